"""A cache whose residents lie in a heap by rank, compiled: the hits of a stream of events.

The heap is a binary min-heap over small integer keys from which any entry can be taken. ``heap`` holds keys in heap
order, ``place[key]`` where the key is in it (−1: absent), ``rank[key]`` what it is ordered by; the caller keeps the
size, which ``push`` and ``remove`` return anew.

Heap and cache share this file because numba's cache on disk does not notice a change in another one.
"""

import numpy as np
from numpy.typing import NDArray

from traces.compiled import njit

Ints = NDArray[np.int32]
Ranks = NDArray[np.int64]


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
def run_cache(
    keys: NDArray[np.int32],
    offsets: NDArray[np.int64],
    ranks: NDArray[np.int64],
    layer_of: NDArray[np.int32],
    sizes: NDArray[np.int64],
    capacity: int,
    per_layer: bool,
    experts: int,
) -> NDArray[np.bool_]:
    """Hit or miss of every use bool ``[uses]``; each cache is a heap of its residents by rank.

    ``sizes`` (of an expert of each layer) and ``capacity`` (of each cache) are in one unit.
    """
    layers = len(sizes)
    caches = layers if per_layer else 1
    heaps = np.empty((caches, layers * experts // caches), np.int32)
    count = np.zeros(caches, np.int64)
    used = np.zeros(caches, np.int64)
    place = np.full(layers * experts, -1, np.int32)
    rank = np.zeros(layers * experts, np.int64)
    hit = np.zeros(len(keys), np.bool_)
    for event in range(len(layer_of)):
        cache = layer_of[event] if per_layer else 0
        heap = heaps[cache]
        size = sizes[layer_of[event]]
        begin, end = offsets[event], offsets[event + 1]
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
            rank[keys[use]] = ranks[use]
            count[cache] = push(heap, place, rank, count[cache], keys[use])
        used[cache] += need
        while used[cache] > capacity:
            victim = heap[0]
            count[cache] = remove(heap, place, rank, count[cache], victim)
            used[cache] -= sizes[victim // experts]
    return hit
