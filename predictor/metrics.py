"""The one definition of every metric of a prediction.

A *row* is one recorded (token, layer); rows that were not recorded count nowhere. In a row, *needed* are the ``top_k``
experts that the gate chose, *issued* the experts that the predictor issues under a limit ``m`` (the best ``m`` scores ≥
its threshold), and *hits* their intersection.

Overall figures are of rows with layer ≥ lookahead. The layers below it, the *early* ones, appear layer by layer alone:
what a predictor says there rests on other inputs (see its documentation), and most say nothing.

Every metric is a ratio of two sums of integers over rows, so that it depends on no order of summation and can be
resampled by sequence (``predictor.bootstrap``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from predictor.base import Predictor, read_ids
from predictor.ranking import check_limit, ranks_of_chosen
from traces import RoutingTrace

Counts = NDArray[np.int64]
Progress = Callable[[int, int], None]  # (tokens done, tokens in all)


@dataclass(frozen=True)
class Tally:
    """Counts over rows. Leading axes are sequences and layers; ``hits`` and ``issued`` have the limits last.

    Attributes:
        rows: how many.
        exact: rows whose best ``top_k`` issued experts are exactly those needed.
        hits: experts issued and needed, by limit.
        issued: experts issued, by limit.
        top_k: experts needed a row.
    """

    rows: Counts
    exact: Counts
    hits: Counts
    issued: Counts
    top_k: int

    def over(self, axes: int | tuple[int, ...]) -> "Tally":
        """Sum over leading axes, counted from 0."""
        return Tally(self.rows.sum(axes), self.exact.sum(axes), self.hits.sum(axes), self.issued.sum(axes), self.top_k)

    def of(self, chosen: NDArray[np.bool_] | slice) -> "Tally":
        """The chosen entries of the first axis."""
        return Tally(self.rows[chosen], self.exact[chosen], self.hits[chosen], self.issued[chosen], self.top_k)


@dataclass(frozen=True)
class TraceTally:
    """What one pass over a trace counts.

    Attributes:
        by_layer: ``[sequences, layers]``, early layers included; limits: those asked for, then no limit (the
            predictor's own accord: every score that reaches its threshold).
        curve: ``[sequences]``, layers ≥ lookahead; limits 1 … experts.
        lookahead: of the predictor.
    """

    by_layer: Tally
    curve: Tally
    lookahead: int

    def overall(self) -> Tally:
        """``[sequences]``: layers ≥ lookahead together; limits as in ``by_layer``."""
        part = self.by_layer
        late = slice(self.lookahead, None)
        return Tally(
            part.rows[:, late], part.exact[:, late], part.hits[:, late], part.issued[:, late], part.top_k
        ).over(1)


@dataclass(frozen=True)
class Ratio:
    """A metric, ``numerator / denominator``, two arrays of one shape; counts, or weighted sums of counts."""

    numerator: NDArray[np.number]
    denominator: NDArray[np.number]

    def values(self) -> NDArray[np.float64]:
        """The quotients; NaN where the denominator is 0."""
        return divide(self.numerator, self.denominator)

    def over(self, axes: int | tuple[int, ...]) -> "Ratio":
        """The ratio of the sums over leading axes."""
        return Ratio(self.numerator.sum(axes), self.denominator.sum(axes))


def recall(tally: Tally) -> Ratio:
    """Recall@m: the mean over rows of ``hits / top_k``.

    Where every row is recorded this is the mean over tokens and over layers ≥ lookahead.
    """
    return Ratio(tally.hits, _by_limit(tally.rows * tally.top_k, tally))


def precision(tally: Tally) -> Ratio:
    """Precision: hits over issued, both summed over rows (of what was fetched, the share that was needed).

    Undefined where nothing was issued. It is not the mean of per-row ratios, which a row that issues nothing does not
    have.
    """
    return Ratio(tally.hits, tally.issued)


def issued_per_layer(tally: Tally) -> Ratio:
    """Issued experts: the mean over rows of how many were issued."""
    return Ratio(tally.issued, _by_limit(tally.rows, tally))


def wasted_per_layer(tally: Tally) -> Ratio:
    """Wasted experts: the mean over rows of how many were issued and not needed."""
    return Ratio(tally.issued - tally.hits, _by_limit(tally.rows, tally))


def exact_set(tally: Tally) -> Ratio:
    """Exact-set rate: the share of rows whose best ``top_k`` issued experts are exactly the chosen set.

    Whatever the limit; a predictor that issues fewer than ``top_k`` of its own accord misses.
    """
    return Ratio(tally.exact, tally.rows)


def divide(numerator: NDArray[np.number], denominator: NDArray[np.number]) -> NDArray[np.float64]:
    """``numerator / denominator``; NaN where the denominator is 0."""
    quotients = np.full(np.shape(numerator), np.nan)
    return np.divide(numerator, denominator, out=quotients, where=np.asarray(denominator) > 0)


def tally_predictor(
    predictor: Predictor,
    trace: RoutingTrace,
    limits: Sequence[int],
    *,
    progress: Progress | None = None,
    chunk_tokens: int | None = None,
) -> TraceTally:
    """Count rows, hits and issued experts of ``predictor`` on ``trace``, for the limits given and for every limit.

    Memory is bounded by the chunk and by sequences × (layers × limits + experts), not by the tokens.

    Raises:
        ForestageError: if a limit is not in 1…experts, or the trace's shape is not that of the predictor.
    """
    for limit in limits:
        check_limit(limit, predictor.experts)
    experts, layers, sequences = predictor.experts, trace.layers, trace.sequences
    bounds = np.array([*limits, experts], np.int64)
    rows = np.zeros((sequences, layers), np.int64)
    exact = np.zeros_like(rows)
    hits = np.zeros((sequences, layers, len(bounds)), np.int64)
    issued = np.zeros_like(hits)
    # Late rows by sequence: needed experts found at each place, and rows that issue so many (0 … experts).
    found_at = np.zeros((sequences, experts), np.int64)
    issuing = np.zeros((sequences, experts + 1), np.int64)
    offsets = np.asarray(trace.sequence_offsets)
    for first, scores in predictor.score_chunks(trace, chunk_tokens=chunk_tokens):
        last = first + len(scores)
        ids, recorded = read_ids(trace, first, last)
        ranks = np.empty(ids.shape, np.int32)
        qualified = np.empty(recorded.shape, np.int32)
        ranks_of_chosen(scores, predictor.issue_threshold, ids, recorded, ranks, qualified)
        sequence = np.searchsorted(offsets, np.arange(first, last), side="right") - 1
        _count_rows(
            ranks, qualified, recorded, sequence, predictor.lookahead, bounds, rows, exact, hits, issued, found_at,
            issuing,
        )  # fmt: skip
        if progress is not None:
            progress(last, trace.tokens)
    late = slice(predictor.lookahead, None)
    at_least = issuing[:, ::-1].cumsum(axis=1)[:, ::-1]  # rows that issue n experts or more
    curve = Tally(
        rows[:, late].sum(axis=1),
        exact[:, late].sum(axis=1),
        found_at.cumsum(axis=1),
        at_least[:, 1:].cumsum(axis=1),
        trace.top_k,
    )
    return TraceTally(Tally(rows, exact, hits, issued, trace.top_k), curve, predictor.lookahead)


def _by_limit(counts: Counts, tally: Tally) -> Counts:
    """``counts [...]`` repeated for every limit of ``tally``."""
    return np.broadcast_to(counts[..., None], tally.hits.shape)


@njit(cache=True)
def _count_rows(
    ranks: NDArray[np.int32],
    qualified: NDArray[np.int32],
    recorded: NDArray[np.bool_],
    sequence: Counts,
    lookahead: int,
    bounds: Counts,
    rows: Counts,
    exact: Counts,
    hits: Counts,
    issued: Counts,
    found_at: Counts,
    issuing: Counts,
) -> None:
    """Add a chunk's rows to the counts; a rank at or above a bound is not issued under it."""
    tokens, layers, top_k = ranks.shape
    experts = found_at.shape[1]
    for token in range(tokens):
        here = sequence[token]
        for layer in range(layers):
            if not recorded[token, layer]:
                continue
            rows[here, layer] += 1
            for i in range(len(bounds)):
                issued[here, layer, i] += min(bounds[i], qualified[token, layer])
            if layer >= lookahead:
                issuing[here, qualified[token, layer]] += 1
            first = 0
            for k in range(top_k):
                rank = ranks[token, layer, k]
                first += rank < top_k
                for i in range(len(bounds)):
                    hits[here, layer, i] += rank < bounds[i]
                if layer >= lookahead and rank < experts:
                    found_at[here, rank] += 1
            exact[here, layer] += first == top_k
