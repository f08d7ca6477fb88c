"""The one definition of every metric of a prediction.

A *row* is one recorded (token, layer) with layer ≥ lookahead; rows that were not recorded and layers below the
lookahead count nowhere. In a row, *needed* are the ``top_k`` experts that the gate chose, *issued* the experts that the
predictor issues under a limit ``m`` (the best ``m`` scores ≥ its threshold), and *hits* their intersection.

All tallies are integers, so that a metric depends on no summation order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from predictor.base import Predictor, Scores, read_ids
from predictor.ranking import check_limit, rank_chunk
from traces import RoutingTrace

Counts = NDArray[np.int64]
Progress = Callable[[int, int], None]  # (tokens done, tokens in all)


@dataclass(frozen=True)
class Tally:
    """Counts over rows, ``[…, limits]`` where a limit is concerned; leading axes are groups and layers.

    The last entry along ``limits`` is the predictor's own accord: every score that reaches its threshold.
    """

    rows: Counts
    hits: Counts
    issued: Counts
    top_k: int

    def over(self, axes: tuple[int, ...]) -> "Tally":
        """Sum over leading axes."""
        return Tally(self.rows.sum(axes), self.hits.sum(axes), self.issued.sum(axes), self.top_k)

    def at(self, index: int) -> "Tally":
        """The entry ``index`` of the first axis."""
        return Tally(self.rows[index], self.hits[index], self.issued[index], self.top_k)


def recall(tally: Tally) -> NDArray[np.float64]:
    """Recall@m: the mean over rows of ``hits / top_k``; NaN where there is no row.

    Where every row is recorded this is the mean over tokens and over layers ≥ lookahead.
    """
    return _ratio(tally.hits, tally.rows[..., None] * tally.top_k)


def precision(tally: Tally) -> NDArray[np.float64]:
    """Precision: hits over issued, both summed over rows (of what was fetched, the share that was needed).

    NaN where nothing was issued. It is not the mean of per-row ratios, which a row that issues nothing does not have.
    """
    return _ratio(tally.hits, tally.issued)


def issued_per_layer(tally: Tally) -> NDArray[np.float64]:
    """Issued experts: the mean over rows of how many were issued; NaN where there is no row."""
    return _ratio(tally.issued, tally.rows[..., None])


def tally_predictor(
    predictor: Predictor,
    trace: RoutingTrace,
    limits: Sequence[int],
    *,
    groups: NDArray[np.integer[Any]] | None = None,
    progress: Progress | None = None,
    chunk_tokens: int | None = None,
) -> Tally:
    """Count hits and issued experts of ``predictor`` on ``trace`` for each limit.

    ``groups`` ``[sequences]`` assigns each sequence to a group (by default all to group 0). Rows are
    ``[groups, layers]``, hits and issued ``[groups, layers, limits + 1]``. Memory is bounded by the chunk, not by
    the trace.

    Raises:
        ForestageError: if a limit is not in 1…experts, or the trace's shape is not that of the predictor.
    """
    for limit in limits:
        check_limit(limit, predictor.experts)
    group_of = np.zeros(trace.sequences, np.int64) if groups is None else np.asarray(groups, np.int64)
    shape = (int(group_of.max(initial=0)) + 1, trace.layers)
    rows = np.zeros(shape, np.int64)
    hits = np.zeros((*shape, len(limits) + 1), np.int64)
    issued = np.zeros_like(hits)
    offsets = np.asarray(trace.sequence_offsets)
    limit_array = np.asarray(limits, np.int64)
    for first, scores in predictor.score_chunks(trace, chunk_tokens=chunk_tokens):
        last = first + len(scores)
        ids, recorded = read_ids(trace, first, last)
        sequence = np.searchsorted(offsets, np.arange(first, last), side="right") - 1
        best = np.empty((len(scores), trace.layers, max(limits, default=0)), np.int16)
        qualified = np.empty(scores.shape[:2], np.int32)
        rank_chunk(scores, predictor.issue_threshold, best, qualified)
        _tally_chunk(
            scores, best, qualified, ids, recorded, group_of[sequence], predictor.lookahead, predictor.issue_threshold,
            limit_array, rows, hits, issued,
        )  # fmt: skip
        if progress is not None:
            progress(last, trace.tokens)
    return Tally(rows, hits, issued, trace.top_k)


def _ratio(numerator: Counts, denominator: Counts) -> NDArray[np.float64]:
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


@njit(cache=True)
def _tally_chunk(
    scores: Scores,
    best: NDArray[np.int16],
    qualified: NDArray[np.int32],
    ids: NDArray[np.int32],
    recorded: NDArray[np.bool_],
    group_of: Counts,
    lookahead: int,
    threshold: int,
    limits: Counts,
    rows: Counts,
    hits: Counts,
    issued: Counts,
) -> None:
    own = len(limits)
    needed = np.zeros(scores.shape[2], np.bool_)
    for token in range(scores.shape[0]):
        group = group_of[token]
        for layer in range(lookahead, scores.shape[1]):
            if not recorded[token, layer]:
                continue
            rows[group, layer] += 1
            for expert in ids[token, layer]:
                needed[expert] = True
                if scores[token, layer, expert] >= threshold:
                    hits[group, layer, own] += 1
            issued[group, layer, own] += qualified[token, layer]
            for i in range(len(limits)):
                count = min(limits[i], qualified[token, layer])
                issued[group, layer, i] += count
                for rank in range(count):
                    if needed[best[token, layer, rank]]:
                        hits[group, layer, i] += 1
            for expert in ids[token, layer]:
                needed[expert] = False
