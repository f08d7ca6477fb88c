"""A binary min-heap over small integer keys that can change or lose any entry, for compiled code.

``heap`` holds keys in heap order, ``place[key]`` where the key is in it (−1: absent), ``rank[key]`` what it is ordered
by. The caller keeps the size, which ``push`` and ``remove`` return anew.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Ranks = NDArray[np.int64]


@njit(cache=True)
def push(heap: Ints, place: Ints, rank: Ranks, size: int, key: int) -> int:
    """Add an absent ``key``; returns the new size."""
    heap[size] = key
    place[key] = size
    _rise(heap, place, rank, size)
    return size + 1


@njit(cache=True)
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


@njit(cache=True)
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


@njit(cache=True)
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
