"""How a trace and its steps are walked: the steps in parts, and where each token counts."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from staging.steps import Steps
from traces import RoutingTrace

PART_BYTES = 16 << 20
"""Of an i32 array that is filled at once."""


def step_parts(steps: int, entries: int) -> Iterator[tuple[int, int]]:
    """(first, end) of parts of ``steps`` rows, each of ``entries`` i32."""
    part = max(1, PART_BYTES // (4 * entries))
    for first in range(0, steps, part):
        yield first, min(first + part, steps)


@dataclass(frozen=True, eq=False)
class Reach:
    """From which step on what is known after a token counts, and up to which: until its sequence runs again.

    Attributes:
        first, end: i64 ``[tokens]``; an empty range where a later token of the sequence is in the same step.
        live: the most sequences that count in one step.
    """

    first: NDArray[np.int64]
    end: NDArray[np.int64]
    live: int


def step_of_token(trace: RoutingTrace, steps: Steps) -> NDArray[np.int64]:
    """The step of each token of ``trace``: i64 ``[tokens]``.

    Raises:
        ForestageError: unless the steps hold each token once, those of a sequence in order.
    """
    found = np.full(trace.tokens, -1, np.int64)
    inside = steps.tokens[(steps.tokens >= 0) & (steps.tokens < trace.tokens)]
    if len(inside) == len(steps.tokens) == trace.tokens:
        found[steps.tokens] = np.repeat(np.arange(len(steps)), np.diff(steps.offsets))
    back = np.diff(found) < 0
    back[trace.sequence_offsets[1:-1] - 1] = False
    if (found < 0).any() or back.any():
        raise ForestageError(
            f"{trace.origin}: steps: they must hold each of its {trace.tokens} tokens once, a sequence's in order; "
            "make them from this trace"
        )
    return found


def reach_of(trace: RoutingTrace, steps: Steps) -> Reach:
    """How long each token's row counts; raises as ``step_of_token``."""
    first = step_of_token(trace, steps)
    end = np.append(first[1:], 0)
    ends = trace.sequence_offsets[1:] - 1
    end[ends] = first[ends] + 1
    changes = np.zeros(len(steps) + 1, np.int64)
    counts = end > first
    np.add.at(changes, first[counts], 1)
    np.add.at(changes, end[counts], -1)
    return Reach(first, end, int(np.cumsum(changes).max()))
