"""The definition of every metric of predictions.

A *row* is one recorded (token, layer); unrecorded rows are not counted. In a row, the *needed* experts are the
``top_k`` that the gate chose, the *issued* experts are those that the predictor issues under a limit ``m`` (the best
``m`` scores ≥ its threshold), and the *hits* are both.

Where the trace has gate weights, a needed expert's *mass* is its share of the row's sum of weights, in whole units
(``predictor.measure.gate_mass``); a row whose weights are all 0 has no mass and is in no metric of mass.

Overall figures count rows with layer ≥ lookahead. The layers below it, the *early* ones, appear only in the figures by
layer: there a predictor uses other inputs (see its documentation), and most predict nothing.

Every metric is a ratio of two sums of integers over rows, so that it does not depend on the order of summation and can
be resampled by sequence (``predictor.measure.bootstrap``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from catalog.errors import ForestageError
from catalog.progress import Progress
from predictor.base import BatchPredictor, read_ids, read_weights
from predictor.measure.gate_mass import MASS_ONE, mass_units
from predictor.measure.ranking import check_limit, ranks_of_chosen
from traces import RoutingTrace

Counts = NDArray[np.int64]
_CHUNK_TOKENS = 4096


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Counts over rows. Leading axes are sequences and layers; ``hits``, ``issued`` and ``mass`` have the limits last.

    Attributes:
        rows: number of rows.
        exact: rows whose best ``top_k`` issued experts are exactly the needed ones.
        answered: rows in which anything is issued without a limit.
        weighed: rows with gate weights.
        hits: experts issued and needed, by limit.
        issued: experts issued, by limit.
        mass: gate mass of the experts issued and needed, in units, by limit.
        top_k: experts needed per row.
        listed: how many experts the predictor's ranking names per row; ``None``: all.
    """

    rows: Counts
    exact: Counts
    answered: Counts
    weighed: Counts
    hits: Counts
    issued: Counts
    mass: Counts
    top_k: int
    listed: int | None = None

    def each(self, change: Callable[[Counts], Counts]) -> "Tally":
        """A tally with ``change`` applied to every count."""
        changed: dict[str, Any] = {name: change(getattr(self, name)) for name in (*_COUNTS, *_LIMITED)}
        return replace(self, **changed)

    def limited(self, limits: slice) -> "Tally":
        """The tally of some of the limits."""
        kept: dict[str, Any] = {name: getattr(self, name)[..., limits] for name in _LIMITED}
        return replace(self, **kept)

    def over(self, axes: int | tuple[int, ...]) -> "Tally":
        """Sum over leading axes, counted from 0."""
        return self.each(lambda counts: counts.sum(axes))

    def of(self, chosen: NDArray[np.bool_] | slice) -> "Tally":
        """The chosen entries of the first axis."""
        return self.each(lambda counts: counts[chosen])


_COUNTS = ("rows", "exact", "answered", "weighed")
_LIMITED = ("hits", "issued", "mass")


@dataclass(frozen=True)
class TraceTally:
    """The counts of one pass over a trace.

    Attributes:
        by_layer: ``[sequences, layers]``, early layers included; limits: those asked for, then uncapped (every score at
            or above the threshold).
        curve: ``[sequences]``, layers ≥ lookahead; limits 1 … experts, or as many as the predictor lists.
        lookahead: the predictor's.
    """

    by_layer: Tally
    curve: Tally
    lookahead: int

    def overall(self) -> Tally:
        """``[sequences]``: layers ≥ lookahead together; limits as in ``by_layer``."""
        late = slice(self.lookahead, None)
        return self.by_layer.each(lambda counts: counts[:, late]).over(1)


@dataclass(frozen=True)
class Ratio:
    """A metric ``numerator / denominator``: two arrays of the same shape, of counts or of weighted sums of counts."""

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

    If every row is recorded, this is the mean over tokens and over layers ≥ lookahead.
    """
    return Ratio(tally.hits, _by_limit(tally.rows * tally.top_k, tally))


def gate_mass_recall(tally: Tally) -> Ratio:
    """Gate-mass recall@m: the hits' share of the needed experts' weight, mean over rows with gate weights.

    For a row whose ``top_k`` chosen experts have weights *w* this is Σ_hits w / Σ_chosen w, whatever the weights sum to
    (normalised, raw softmax or raw sigmoid), in units of 2⁻¹⁶ (``predictor.measure.gate_mass``). An expert with little
    weight counts little, whereas recall counts every needed expert equally. Undefined if no row has weights.
    """
    return Ratio(tally.mass, _by_limit(tally.weighed * MASS_ONE, tally))


def answered(tally: Tally) -> Ratio:
    """Answered: the share of rows in which the predictor issues anything; recall counts the others as misses."""
    return Ratio(tally.answered, tally.rows)


def precision(tally: Tally) -> Ratio:
    """Precision: the share of issued experts that were needed; hits / issued, both summed over rows.

    Undefined if nothing was issued. It is not the mean of per-row ratios, since a row that issues nothing has none.
    """
    return Ratio(tally.hits, tally.issued)


def issued_per_layer(tally: Tally) -> Ratio:
    """Issued experts: how many were issued, mean over rows."""
    return Ratio(tally.issued, _by_limit(tally.rows, tally))


def wasted_per_layer(tally: Tally) -> Ratio:
    """Wasted experts: how many were issued and not needed, mean over rows."""
    return Ratio(tally.issued - tally.hits, _by_limit(tally.rows, tally))


def exact_set(tally: Tally) -> Ratio:
    """Exact-set rate: the share of rows whose best ``top_k`` issued experts are exactly the chosen set.

    It does not depend on the limit; a row in which the predictor uncapped issues fewer than ``top_k`` is a miss.
    Undefined for a ranking that was cut before ``top_k``.
    """
    cut = tally.listed is not None and tally.listed < tally.top_k
    return Ratio(tally.exact, np.zeros_like(tally.rows) if cut else tally.rows)


def divide(numerator: NDArray[np.number], denominator: NDArray[np.number]) -> NDArray[np.float64]:
    """``numerator / denominator``, f64; NaN where the denominator is 0."""
    quotients = np.full(np.shape(numerator), np.nan)
    return np.divide(numerator, denominator, out=quotients, where=np.asarray(denominator) > 0)


def tally_predictor(
    predictor: BatchPredictor,
    trace: RoutingTrace,
    limits: Sequence[int],
    *,
    progress: Progress | None = None,
    chunk_tokens: int | None = None,
) -> TraceTally:
    """Count rows, hits, their mass and issued experts of ``predictor`` on ``trace``, for the given and for all limits.

    Memory depends on the chunk and on sequences × (layers × limits + experts), not on the number of tokens.

    Raises:
        ForestageError: if a limit is not in 1…experts or is larger than the predictor lists, or the trace's shape is
            not the predictor's.
    """
    for limit in limits:
        check_limit(limit, predictor.experts)
        if predictor.listed is not None and limit > predictor.listed:
            raise ForestageError(f"issue: {limit} is more than the {predictor.listed} experts that a row lists")
    experts, layers, sequences = predictor.experts, trace.layers, trace.sequences
    bounds = np.array([*limits, experts], np.int64)
    by_row, by_limit = (sequences, layers), (sequences, layers, len(bounds))
    by_layer = Tally(
        **{name: np.zeros(by_row, np.int64) for name in _COUNTS},
        **{name: np.zeros(by_limit, np.int64) for name in _LIMITED},
        top_k=trace.top_k,
        listed=predictor.listed,
    )
    # Late rows by sequence: needed experts and mass at each rank, and rows that issue exactly 0 … experts.
    found_at = np.zeros((sequences, experts), np.int64)
    mass_at = np.zeros((sequences, experts), np.int64)
    issuing = np.zeros((sequences, experts + 1), np.int64)
    offsets = np.asarray(trace.sequence_offsets)
    for first, scores in predictor.score_chunks(trace, chunk_tokens=chunk_tokens):
        last = first + len(scores)
        ids, recorded = read_ids(trace, first, last)
        weights = read_weights(trace, first, last)
        units = np.zeros(ids.shape, np.int32) if weights is None else mass_units(weights, recorded)
        ranks = np.empty(ids.shape, np.int32)
        qualified = np.empty(recorded.shape, np.int32)
        ranks_of_chosen(scores, predictor.issue_threshold, ids, recorded, ranks, qualified)
        sequence = np.searchsorted(offsets, np.arange(first, last), side="right") - 1
        _count_rows(
            ranks, qualified, units, recorded, sequence, predictor.lookahead, bounds, by_layer.rows, by_layer.exact,
            by_layer.answered, by_layer.weighed, by_layer.hits, by_layer.issued, by_layer.mass, found_at, mass_at,
            issuing,
        )  # fmt: skip
        if progress is not None:
            progress(last, trace.tokens)
    late = slice(predictor.lookahead, None)
    at_least = issuing[:, ::-1].cumsum(axis=1)[:, ::-1]  # rows that issue at least n experts
    curve = Tally(
        **{name: getattr(by_layer, name)[:, late].sum(axis=1) for name in _COUNTS},
        hits=found_at.cumsum(axis=1),
        issued=at_least[:, 1:].cumsum(axis=1),
        mass=mass_at.cumsum(axis=1),
        top_k=trace.top_k,
        listed=predictor.listed,
    )
    return TraceTally(by_layer, curve.limited(slice(predictor.listed)), predictor.lookahead)


def perfect_gate_mass(trace: RoutingTrace, limits: Sequence[int], lookahead: int) -> list[float]:
    """Gate-mass recall at each limit of a predictor that knows the future: it issues the heaviest chosen experts.

    Over the rows of layers ≥ ``lookahead``; NaN if none has weights.
    """
    mass = np.zeros(len(limits), np.int64)
    weighed = 0
    for first in range(0, trace.tokens, _CHUNK_TOKENS):
        last = min(first + _CHUNK_TOKENS, trace.tokens)
        weights = read_weights(trace, first, last)
        if weights is None:
            continue
        units = mass_units(weights, read_ids(trace, first, last)[1])[:, lookahead:]
        weighed += int((units.sum(axis=-1) > 0).sum())
        heaviest = -np.sort(-units, axis=-1)
        mass += [int(heaviest[..., :limit].sum(dtype=np.int64)) for limit in limits]
    return divide(mass, np.full(len(limits), weighed * MASS_ONE)).tolist()


def _by_limit(counts: Counts, tally: Tally) -> Counts:
    """``counts [...]`` repeated for every limit of ``tally``."""
    return np.broadcast_to(counts[..., None], tally.hits.shape)


@njit()
def _count_rows(
    ranks: NDArray[np.int32],
    qualified: NDArray[np.int32],
    units: NDArray[np.int32],
    recorded: NDArray[np.bool_],
    sequence: Counts,
    lookahead: int,
    bounds: Counts,
    rows: Counts,
    exact: Counts,
    answered: Counts,
    weighed: Counts,
    hits: Counts,
    issued: Counts,
    mass: Counts,
    found_at: Counts,
    mass_at: Counts,
    issuing: Counts,
) -> None:
    """Add a chunk's rows to the counts; with the bound b, only ranks below b are issued."""
    tokens, layers, top_k = ranks.shape
    experts = found_at.shape[1]
    for token in range(tokens):
        here = sequence[token]
        for layer in range(layers):
            if not recorded[token, layer]:
                continue
            rows[here, layer] += 1
            answered[here, layer] += qualified[token, layer] > 0
            for i in range(len(bounds)):
                issued[here, layer, i] += min(bounds[i], qualified[token, layer])
            if layer >= lookahead:
                issuing[here, qualified[token, layer]] += 1
            first = 0
            weight = 0
            for k in range(top_k):
                rank = ranks[token, layer, k]
                first += rank < top_k
                weight += units[token, layer, k]
                for i in range(len(bounds)):
                    if rank < bounds[i]:
                        hits[here, layer, i] += 1
                        mass[here, layer, i] += units[token, layer, k]
                if layer >= lookahead and rank < experts:
                    found_at[here, rank] += 1
                    mass_at[here, rank] += units[token, layer, k]
            exact[here, layer] += first == top_k
            weighed[here, layer] += weight > 0
