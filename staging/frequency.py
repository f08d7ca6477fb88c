"""Decayed use counters: how often each expert was wanted of late, in the integers that hardware would keep.

Each (layer, expert) has a 16-bit counter. At every event of its layer each counter gives up a ``2^−shift`` of itself
(rounded down), then the counters of the experts in the event rise by ``increment(shift)``: an exponential moving
average of being wanted, with a time constant of ``2^shift`` events. Counters start at 0 and live on from sequence to
sequence. An expert that is wanted in every event ends at ``increment << shift`` plus what rounding keeps, 65535.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from catalog.errors import SettingError
from staging.events import Events

COUNTER_BITS = 16
MAX_SHIFT = COUNTER_BITS - 1
DEFAULT_SHIFT = 5
"""2^5 = 32 events: of 1 … 8 the best for a cache a layer, on the training part of gpt-oss-20b (docs/next-use.md)."""

_CHUNK_BYTES = 16 << 20


def increment(shift: int) -> int:
    """What one use adds: the largest step that never carries a counter past ``COUNTER_BITS``.

    Raises:
        SettingError: if ``shift`` is not in 1 … ``MAX_SHIFT``.
    """
    if not 1 <= shift <= MAX_SHIFT:
        raise SettingError("ema_shift", f"choose 1 to {MAX_SHIFT}", value=shift)
    return (1 << (COUNTER_BITS - shift)) - 1


class DecayedCounters:
    """The counters in streaming form.

    Attributes:
        values: i32 ``[layers, experts]``.
    """

    def __init__(self, layers: int, experts: int, shift: int = DEFAULT_SHIFT) -> None:
        self._increment = increment(shift)
        self._shift = shift
        self.values = np.zeros((layers, experts), np.int32)

    def observe(self, layer: int, experts: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """One event: the distinct ``experts`` of ``layer`` are wanted; returns the layer's counters, a view."""
        row = self.values[layer]
        row -= row >> self._shift
        row[np.asarray(experts, np.int64)] += self._increment
        return row


def decayed_counts(events: Events, shift: int = DEFAULT_SHIFT) -> Iterator[NDArray[np.int32]]:
    """The counters of each event's layer just after it: i32 ``[events of a chunk, experts]``, chunk by chunk.

    A chunk's array is reused for the next one.
    """
    step = increment(shift)
    values = np.zeros((events.layers, events.experts), np.int32)
    chunk = max(1, _CHUNK_BYTES // (4 * events.experts))
    rows = np.empty((min(chunk, len(events.layer)), events.experts), np.int32)
    for first in range(0, len(events.layer), chunk):
        last = min(first + chunk, len(events.layer))
        filled = rows[: last - first]
        _fill_counts(
            events.keys, events.offsets[first : last + 1], events.layer[first:last], shift, step, values, filled
        )
        yield filled


@njit()
def count_event(counters: NDArray[np.int32], chosen: NDArray[np.int32], first_key: int, shift: int, step: int) -> None:
    """The compiled rule: a layer's ``counters [experts]`` after an event that needs the ``chosen`` keys.

    ``first_key`` is the key of the layer's first expert, 0 where ``chosen`` are experts; ``step`` is
    ``increment(shift)``.
    """
    for expert in range(len(counters)):
        counters[expert] -= counters[expert] >> shift
    for key in chosen:
        counters[key - first_key] += step


@njit()
def _fill_counts(
    keys: NDArray[np.int32],
    offsets: NDArray[np.int64],
    layer_of: NDArray[np.int32],
    shift: int,
    step: int,
    values: NDArray[np.int32],
    rows: NDArray[np.int32],
) -> None:
    for event in range(len(layer_of)):
        layer = layer_of[event]
        count_event(values[layer], keys[offsets[event] : offsets[event + 1]], layer * values.shape[1], shift, step)
        rows[event] = values[layer]
