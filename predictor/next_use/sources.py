"""Which rows feed a target layer's sum.

A *source* is one layer's routing, seen from a target: of this token, of the token before, of what followed the last
time that the text stood here, or averaged over the past. Each has a table of one row an expert; the rows of the experts
that the layer chose are added up.

With lookahead ``d`` the layers up to ``target − d`` of this token are known. A layer above that is known from the token
before; where a row was not recorded, what was last recorded in the sequence stands for the token before, and nothing
for this token. An average over the past with shift ``s`` loses a ``2^−s`` of itself each time the target is asked, and
gains the rows of the newest that is known of its layer.

What followed: if the token matches an earlier one (``predictor.next_use.matches``), tokens ``first … last`` after that
one are read from a log of the sequence, a ring of the newest ``log_tokens``, this token being one of them. All that are
older than this token add the rows of what the target layer chose: an expert that was chosen twice counts twice.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predictor.next_use.parameters import NextUseParameters


@dataclass(frozen=True)
class Source:
    """One layer's routing as an input.

    Attributes:
        offset: the source's layer less the target's.
        previous: of the token before, although this token's may be known.
        shift: 0 for the routing itself, else an average over the past that forgets over ``2^shift`` tokens.
        window: of what followed, the first and the last token after the matched one; the layer is the target.
    """

    offset: int
    previous: bool
    shift: int
    window: tuple[int, int] | None = None


def sources_of(parameters: NextUseParameters) -> tuple[Source, ...]:
    """All sources: first the routing itself, then what followed, then the averages by ascending shift."""
    nearest = -parameters.lookahead
    found = [Source(nearest - back, previous=False, shift=0) for back in range(parameters.layers_back + 1)]
    found += [
        Source(offset, previous=True, shift=0)
        for offset in range(-parameters.previous_below, parameters.previous_above + 1)
    ]
    if parameters.looks_at_identity:
        found += [Source(0, previous=True, shift=0, window=window) for window in parameters.follow]
    for shift in sorted({*parameters.history_shifts, *parameters.neighbour_shifts}):
        for offset in range(-parameters.neighbours, parameters.neighbours + 1):
            if shift in (parameters.neighbour_shifts if offset else parameters.history_shifts):
                found.append(Source(offset, previous=False, shift=shift))
    return tuple(found)


@dataclass(frozen=True)
class SourceArrays:
    """Sources as arrays, for compiled code.

    Attributes:
        offset: i32 ``[sources]``.
        previous: bool ``[sources]``.
        group: i32 ``[sources]``, −1 for the routing itself, else the index of its shift in ``shifts``.
        shifts: i32 ``[groups]``, ascending.
        first, last: i32 ``[sources]``, of what followed; ``last`` is −1 for all other sources.
    """

    offset: NDArray[np.int32]
    previous: NDArray[np.bool_]
    group: NDArray[np.int32]
    shifts: NDArray[np.int32]
    first: NDArray[np.int32]
    last: NDArray[np.int32]


def as_arrays(sources: tuple[Source, ...]) -> SourceArrays:
    """``sources`` as arrays."""
    windows = [source.window or (0, -1) for source in sources]
    shifts = sorted({source.shift for source in sources} - {0})
    return SourceArrays(
        offset=np.array([source.offset for source in sources], np.int32),
        previous=np.array([source.previous for source in sources], np.bool_),
        group=np.array([shifts.index(s.shift) if s.shift else -1 for s in sources], np.int32),
        shifts=np.array(shifts, np.int32),
        first=np.array([first for first, _ in windows], np.int32),
        last=np.array([last for _, last in windows], np.int32),
    )
