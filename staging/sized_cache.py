"""A cache of experts that differ in size, where no place fits all: its capacity is in bytes.

The event rule is the stager's in zero time (``staging.stager.zero_time``), with bytes in place of places; where all
experts are of one size, so are the hits (tested).

Its residents lie in a binary min-heap by rank, from which any entry can be taken. ``heap`` holds keys in heap order,
``place[key]`` where the key is in it (−1: absent), ``rank[key]`` what it is ordered by; the caller keeps the size,
which ``push`` and ``remove`` return anew.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from staging.stager.zero_time import check_uses, present

Ints = NDArray[np.int32]
Ranks = NDArray[np.int64]


@dataclass
class SizedCache:
    """The state that a stream of events carries on.

    Attributes:
        sizes: i64 ``[layers]``, an expert's size by layer, in the unit of ``capacity``.
        capacity: of each cache.
        heaps: i32 ``[caches, keys of one]``.
        count, used: i64 ``[caches]``, residents of each, and what they take.
        place: i32 ``[layers · experts]``.
        rank: i64 ``[layers · experts]``, ``value · 2^32 + recency``; the lowest gives way first.
        by_recency: of equal values the least recently used gives way; otherwise the largest key.
        uses: so far.
    """

    sizes: NDArray[np.int64]
    capacity: int
    heaps: Ints
    count: NDArray[np.int64]
    used: NDArray[np.int64]
    place: Ints
    rank: Ranks
    by_recency: bool
    uses: int = 0

    @classmethod
    def empty(
        cls, sizes: NDArray[np.int64], experts: int, capacity: int, *, per_layer: bool, by_recency: bool
    ) -> "SizedCache":
        """No resident; a cache for each layer, or one for all."""
        layers = len(sizes)
        caches = layers if per_layer else 1
        return cls(
            sizes=sizes,
            capacity=capacity,
            heaps=np.empty((caches, layers * experts // caches), np.int32),
            count=np.zeros(caches, np.int64),
            used=np.zeros(caches, np.int64),
            place=np.full(layers * experts, -1, np.int32),
            rank=np.zeros(layers * experts, np.int64),
            by_recency=by_recency,
        )

    def run(
        self,
        keys: NDArray[np.int32],
        offsets: NDArray[np.int64],
        layer_of: NDArray[np.int32],
        hit: NDArray[np.bool_],
        *,
        use_values: NDArray[np.int32] | None = None,
        rows: NDArray[np.int32] | None = None,
        ahead_rows: NDArray[np.int32] | None = None,
        lookahead: int = 0,
    ) -> None:
        """Run events ``[n]``; arguments and errors as ``ZeroTimeStager.run``."""
        used = check_uses(self.uses, offsets)
        _run(
            keys, offsets, layer_of, hit,
            *present(len(self.place) // len(self.sizes), use_values, rows, ahead_rows), lookahead,
            self.sizes, self.capacity, self.heaps, self.count, self.used, self.place, self.rank,
            self.by_recency, self.uses,
        )  # fmt: skip
        self.uses += used


@njit()
def push(heap: Ints, place: Ints, rank: Ranks, size: int, key: int) -> int:
    """Add an absent ``key``; returns the new size."""
    heap[size] = key
    place[key] = size
    _rise(heap, place, rank, size)
    return size + 1


@njit()
def remove(heap: Ints, place: Ints, rank: Ranks, size: int, key: int) -> int:
    """Take out ``key``, which is present; returns the new size."""
    hole = place[key]
    place[key] = -1
    size -= 1
    if hole < size:
        moved = heap[size]
        heap[hole] = moved
        place[moved] = hole
        _rise(heap, place, rank, hole)
        _sink(heap, place, rank, size, place[moved])
    return size


@njit()
def _rise(heap: Ints, place: Ints, rank: Ranks, at: int) -> None:
    key = heap[at]
    while at > 0:
        parent = (at - 1) // 2
        if rank[heap[parent]] <= rank[key]:
            break
        heap[at] = heap[parent]
        place[heap[at]] = at
        at = parent
    heap[at] = key
    place[key] = at


@njit()
def _sink(heap: Ints, place: Ints, rank: Ranks, size: int, at: int) -> None:
    key = heap[at]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and rank[heap[child + 1]] < rank[heap[child]]:
            child += 1
        if rank[heap[child]] >= rank[key]:
            break
        heap[at] = heap[child]
        place[heap[at]] = at
        at = child
    heap[at] = key
    place[key] = at


@njit()
def _run(
    keys: NDArray[np.int32],
    offsets: NDArray[np.int64],
    layer_of: NDArray[np.int32],
    hit: NDArray[np.bool_],
    use_values: NDArray[np.int32],
    rows: NDArray[np.int32],
    ahead_rows: NDArray[np.int32],
    lookahead: int,
    sizes: NDArray[np.int64],
    capacity: int,
    heaps: Ints,
    count: NDArray[np.int64],
    used: NDArray[np.int64],
    place: Ints,
    rank: Ranks,
    by_recency: bool,
    uses: int,
) -> None:
    layers, experts = len(sizes), rows.shape[1]
    per_layer = len(heaps) > 1
    first_use = offsets[0]
    for event in range(len(layer_of)):
        layer = layer_of[event]
        cache = layer if per_layer else 0
        heap = heaps[cache]
        size = sizes[layer]
        begin, end = offsets[event], offsets[event + 1]
        if len(rows):
            count[cache] = _set_values(heap, place, rank, count[cache], layer * experts, rows[event])
        above = layer + lookahead
        if len(ahead_rows) and above < layers:
            other = above if per_layer else 0
            row = ahead_rows[event]
            count[other] = _set_values(heaps[other], place, rank, count[other], above * experts, row)
        # What the event needs leaves the heap, so that it cannot give way; what remains makes room for all of it.
        for use in range(begin, end):
            key = keys[use]
            if place[key] >= 0:
                hit[use] = True
                count[cache] = remove(heap, place, rank, count[cache], key)
                used[cache] -= size
        need = (end - begin) * size
        while used[cache] + need > capacity and count[cache] > 0:
            victim = heap[0]
            count[cache] = remove(heap, place, rank, count[cache], victim)
            used[cache] -= sizes[victim // experts]
        for use in range(begin, end):
            key = keys[use]
            value = np.int64(use_values[use]) if len(use_values) else rank[key] >> 32
            rank[key] = (value << 32) + (uses + use - first_use if by_recency else len(rank) - 1 - key)
            count[cache] = push(heap, place, rank, count[cache], key)
        used[cache] += need
        while used[cache] > capacity:
            victim = heap[0]
            count[cache] = remove(heap, place, rank, count[cache], victim)
            used[cache] -= sizes[victim // experts]


@njit()
def _set_values(heap: Ints, place: Ints, rank: Ranks, size: int, first: int, row: NDArray[np.int32]) -> int:
    """The values of a layer, whose keys begin at ``first``; recency stays. Returns the heap's size."""
    for expert in range(len(row)):
        key = first + expert
        is_resident = place[key] >= 0
        if is_resident:
            size = remove(heap, place, rank, size, key)
        rank[key] = (np.int64(row[expert]) << 32) + (rank[key] & 0xFFFFFFFF)
        if is_resident:
            size = push(heap, place, rank, size, key)
    return size
