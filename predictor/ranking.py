"""The order in which scored experts are issued: one compiled rule for metrics, policies and tests.

What is compiled here calls nothing compiled elsewhere: numba's cache on disk does not notice a change in another file.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from catalog.errors import ForestageError


def check_limit(limit: int, experts: int) -> None:
    """Raise ForestageError unless ``limit`` experts can be issued for a layer of ``experts``."""
    if not 1 <= limit <= experts:
        raise ForestageError(f"issue: {limit} is not in 1…{experts} (experts of a layer); choose one that is")


@njit(cache=True)
def best_experts(scores: NDArray[np.int32], threshold: int, best: NDArray[np.int16]) -> int:
    """Fill ``best`` with the ids of the highest of ``scores`` ``[experts]``, largest first, padded with −1.

    Only scores ≥ ``threshold`` qualify; ties go to the smaller id. Returns how many qualified in all, which may be more
    than ``len(best)``.
    """
    limit = len(best)
    qualified = 0
    held = 0
    for expert in range(len(scores)):
        score = scores[expert]
        if score < threshold:
            continue
        qualified += 1
        if held == limit and (limit == 0 or score <= scores[best[limit - 1]]):
            continue
        # Insertion: ids arrive ascending, so an equal score stays behind the one that is there.
        at = held if held < limit else limit - 1
        while at > 0 and scores[best[at - 1]] < score:
            best[at] = best[at - 1]
            at -= 1
        best[at] = expert
        held = min(held + 1, limit)
    best[held:] = -1
    return qualified


@njit(cache=True)
def rank_chunk(
    scores: NDArray[np.int32], threshold: int, best: NDArray[np.int16], qualified: NDArray[np.int32]
) -> None:
    """``best_experts`` of every row of ``scores [n, layers, experts]``.

    Fills ``best [n, layers, limit]`` and ``qualified [n, layers]``.
    """
    for token in range(scores.shape[0]):
        for layer in range(scores.shape[1]):
            qualified[token, layer] = best_experts(scores[token, layer], threshold, best[token, layer])
