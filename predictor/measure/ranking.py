"""The order in which scored experts are issued: one compiled rule for metrics, policies and tests."""

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from catalog.errors import SettingError


def check_limit(limit: int, experts: int) -> None:
    """Raise SettingError unless ``limit`` experts can be issued in a layer of ``experts``."""
    if not 1 <= limit <= experts:
        raise SettingError(
            ("limit", "issue"),
            f"choose 1 to {experts}, the experts of a layer",
            value=limit,
            message=f"issue: {limit} is not in 1…{experts} (experts of a layer); choose one that is",
        )


@njit()
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
        # Insertion: ids come in ascending order, so an equal score goes behind those already there.
        at = held if held < limit else limit - 1
        while at > 0 and scores[best[at - 1]] < score:
            best[at] = best[at - 1]
            at -= 1
        best[at] = expert
        held = min(held + 1, limit)
    best[held:] = -1
    return qualified


@njit()
def rank_chunk(
    scores: NDArray[np.int32], threshold: int, best: NDArray[np.int16], qualified: NDArray[np.int32]
) -> None:
    """``best_experts`` for every row of ``scores [n, layers, experts]``.

    Fills ``best [n, layers, limit]`` and ``qualified [n, layers]``.
    """
    for token in range(scores.shape[0]):
        for layer in range(scores.shape[1]):
            qualified[token, layer] = best_experts(scores[token, layer], threshold, best[token, layer])


@njit()
def ranks_of_chosen(
    scores: NDArray[np.int32],
    threshold: int,
    ids: NDArray[np.int32],
    recorded: NDArray[np.bool_],
    ranks: NDArray[np.int32],
    qualified: NDArray[np.int32],
) -> None:
    """The rank of every chosen expert in the order of ``best_experts``, without sorting.

    Reads ``scores [n, layers, experts]`` and chosen ``ids [n, layers, top_k]``. Fills ``ranks [n, layers, top_k]`` (0:
    issued first; ``experts``: never issued, since its score does not qualify) and ``qualified [n, layers]``: how many
    scores of the row qualify. Rows that are not ``recorded [n, layers]`` get ``experts`` and 0.
    """
    experts = scores.shape[2]
    for token in range(ids.shape[0]):
        for layer in range(ids.shape[1]):
            ranks[token, layer] = experts
            qualified[token, layer] = 0
            if not recorded[token, layer]:
                continue
            row = scores[token, layer]
            for expert in range(experts):
                qualified[token, layer] += row[expert] >= threshold
            for i in range(ids.shape[2]):
                chosen = ids[token, layer, i]
                score = row[chosen]
                if score < threshold:
                    continue
                before = 0  # a score that beats a qualified one qualifies too
                for expert in range(chosen):
                    before += row[expert] >= score
                for expert in range(chosen + 1, experts):
                    before += row[expert] > score
                ranks[token, layer, i] = before
