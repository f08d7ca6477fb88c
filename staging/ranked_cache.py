"""A cache whose residents' priorities change with every event, compiled: the hits of a stream of events.

The lowest resident of each layer is remembered and found anew only where that layer's priorities or residents changed,
so an eviction costs a walk over one layer's experts and, in a shared cache, over the layers.

What is compiled here calls nothing compiled elsewhere: numba's cache on disk does not notice a change in another file.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from traces.compiled import njit

_NONE = -1
_UNKNOWN = -2


@dataclass
class RankedCache:
    """The state that a stream of events carries on.

    Attributes:
        sizes: i64 ``[layers]``, an expert's size by layer, in the unit of ``capacity``.
        capacity: of each cache.
        per_layer: whether each layer has a cache of its own.
        resident: bool ``[layers, experts]``.
        priority: i32 ``[layers, experts]``; the larger, the longer it stays; of equals the larger id gives way first.
        lowest: i32 ``[layers]``, the resident that gives way first, ``_NONE``, or ``_UNKNOWN``: to be found.
        used: i64 ``[caches]``, what the residents of each take.
    """

    sizes: NDArray[np.int64]
    capacity: int
    per_layer: bool
    resident: NDArray[np.bool_]
    priority: NDArray[np.int32]
    lowest: NDArray[np.int32]
    used: NDArray[np.int64]

    @classmethod
    def empty(cls, sizes: NDArray[np.int64], experts: int, capacity: int, *, per_layer: bool) -> "RankedCache":
        """No resident, all priorities 0."""
        layers = len(sizes)
        return cls(
            sizes=sizes,
            capacity=capacity,
            per_layer=per_layer,
            resident=np.zeros((layers, experts), np.bool_),
            priority=np.zeros((layers, experts), np.int32),
            lowest=np.full(layers, _NONE, np.int32),
            used=np.zeros(layers if per_layer else 1, np.int64),
        )

    def run(
        self,
        keys: NDArray[np.int32],
        offsets: NDArray[np.int64],
        layer_of: NDArray[np.int32],
        rows: NDArray[np.int32],
        hit: NDArray[np.bool_],
        *,
        ahead_rows: NDArray[np.int32] | None = None,
        lookahead: int = 0,
    ) -> None:
        """Run events ``[n]`` and mark in ``hit`` the uses that were resident.

        Args:
            keys, hit: of all uses of the trace; ``offsets [n + 1]`` index them.
            layer_of: i32 ``[n]``.
            rows: i32 ``[n, experts]``, the priorities of the event's own layer, known once its gate is.
            ahead_rows: i32 ``[n, experts]``, at the same moment those of the layer ``lookahead`` above, where there is
                one.
        """
        if ahead_rows is None:
            ahead_rows = rows[:0]
        _run(
            keys, offsets, layer_of, rows, ahead_rows, lookahead, self.sizes, self.capacity, self.per_layer,
            self.resident, self.priority, self.lowest, self.used, hit,
        )  # fmt: skip


@njit()
def _run(
    keys: NDArray[np.int32],
    offsets: NDArray[np.int64],
    layer_of: NDArray[np.int32],
    rows: NDArray[np.int32],
    ahead_rows: NDArray[np.int32],
    lookahead: int,
    sizes: NDArray[np.int64],
    capacity: int,
    per_layer: bool,
    resident: NDArray[np.bool_],
    priority: NDArray[np.int32],
    lowest: NDArray[np.int32],
    used: NDArray[np.int64],
    hit: NDArray[np.bool_],
) -> None:
    layers, experts = resident.shape
    for event in range(len(layer_of)):
        layer = layer_of[event]
        cache = layer if per_layer else 0
        first, last = (layer, layer + 1) if per_layer else (0, layers)
        priority[layer] = rows[event]
        above = layer + lookahead
        if len(ahead_rows) and above < layers:
            priority[above] = ahead_rows[event]
            lowest[above] = _UNKNOWN
        # What the event needs is no resident while the others make room for all of it: it cannot give way.
        begin, end = offsets[event], offsets[event + 1]
        for use in range(begin, end):
            expert = keys[use] % experts
            if resident[layer, expert]:
                hit[use] = True
                resident[layer, expert] = False
                used[cache] -= sizes[layer]
        lowest[layer] = _UNKNOWN
        _make_room(capacity - (end - begin) * sizes[layer], cache, first, last, sizes, resident, priority, lowest, used)
        for use in range(begin, end):
            resident[layer, keys[use] % experts] = True
        used[cache] += (end - begin) * sizes[layer]
        lowest[layer] = _UNKNOWN
        _make_room(capacity, cache, first, last, sizes, resident, priority, lowest, used)


@njit()
def _make_room(
    room: int,
    cache: int,
    first: int,
    last: int,
    sizes: NDArray[np.int64],
    resident: NDArray[np.bool_],
    priority: NDArray[np.int32],
    lowest: NDArray[np.int32],
    used: NDArray[np.int64],
) -> None:
    """Evict the lowest of the layers ``first … last − 1``, which share ``cache``, until they take at most ``room``."""
    while used[cache] > room:
        victim_layer = _NONE
        for layer in range(first, last):
            if lowest[layer] == _UNKNOWN:
                lowest[layer] = _lowest_of(resident[layer], priority[layer])
            expert = lowest[layer]
            if expert == _NONE:
                continue
            if victim_layer == _NONE or priority[layer, expert] <= priority[victim_layer, lowest[victim_layer]]:
                victim_layer = layer
        if victim_layer == _NONE:
            return
        resident[victim_layer, lowest[victim_layer]] = False
        lowest[victim_layer] = _UNKNOWN
        used[cache] -= sizes[victim_layer]


@njit()
def _lowest_of(resident: NDArray[np.bool_], priority: NDArray[np.int32]) -> int:
    """The resident of lowest priority, of equals the largest id; ``_NONE`` where nothing is resident."""
    lowest = _NONE
    for expert in range(len(resident)):
        if resident[expert] and (lowest == _NONE or priority[expert] <= priority[lowest]):
            lowest = expert
    return lowest
