"""First-order Markov predictors: across layers (spatial) and across tokens (temporal).

Both sum, over the experts that were chosen at the source, the rate at which the target expert followed each of them in
training: ``score(b) = Σ_a P(b | a)``. The rates are fixed-point numbers, not log-likelihoods, so the sum is an integer
and needs no smoothing; it is the expected number of votes for ``b`` if each source expert votes by its own rates.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from catalog.compiled import njit
from catalog.config import StrictModel
from predictor.base import ExpertIds, Predictor, Scores, id_chunks
from predictor.baselines.profile import spatial_rates, temporal_rates
from traces import RoutingTrace


class MarkovParameters(StrictModel):
    """The Markov predictors have no parameters."""


class _Markov(Predictor):
    """Their common part: a table of rates ``[layers, source expert, target expert]`` and a row of source experts."""

    parameters_model: ClassVar[type[StrictModel]] = MarkovParameters

    def __init__(self, rates: NDArray[np.int32], *, top_k: int, lookahead: int) -> None:
        super().__init__(layers=rates.shape[0], experts=rates.shape[1], top_k=top_k, lookahead=lookahead)
        self.rates = rates
        self.reset()

    @override
    def reset(self) -> None:
        # The latest known choice of each layer; −1: none.
        self.chosen = np.full((self.layers, self.top_k), -1, np.int32)

    @override
    def start_sequence(self) -> None:
        self.chosen[:] = -1

    def _sum_rates(self, layer: int, source: NDArray[np.int32]) -> Scores:
        scores = np.empty(self.experts, np.int32)
        _sum_rates(self.rates[layer], source, scores)
        return scores


class SpatialMarkovPredictor(_Markov):
    """Predicts layer ``l`` from the experts that this token chose in layer ``l − lookahead``.

    All scores are 0 in layers below the lookahead, and where the source layer was not recorded.
    """

    name: ClassVar[str] = "markov-spatial"

    @classmethod
    @override
    def fit(cls, trace: RoutingTrace, *, lookahead: int = 1, **parameters: Any) -> Self:
        MarkovParameters.parse(parameters, origin=f"predictor '{cls.name}'")
        return cls(spatial_rates(trace, lookahead), top_k=trace.top_k, lookahead=lookahead)

    @override
    def predict(self, layer: int) -> Scores:
        if layer < self.lookahead:
            return np.zeros(self.experts, np.int32)
        return self._sum_rates(layer, self.chosen[layer - self.lookahead])

    @override
    def observe(self, layer: int, ids: ExpertIds | None) -> None:
        self.chosen[layer] = -1 if ids is None else ids

    @override
    def score_chunks(self, trace: RoutingTrace, *, chunk_tokens: int | None = None) -> Iterator[tuple[int, Scores]]:
        self.check_trace(trace)
        for first, ids, recorded, _ in id_chunks(trace, chunk_tokens):
            scores = np.zeros((len(ids), self.layers, self.experts), np.int32)
            _score_spatial(ids, recorded, self.lookahead, self.rates, scores)
            yield first, scores


class TemporalMarkovPredictor(_Markov):
    """Predicts layer ``l`` from the experts that the sequence's previous recorded token chose in layer ``l``.

    The lookahead changes nothing. All scores are 0 for a sequence's first token.
    """

    name: ClassVar[str] = "markov-temporal"

    @classmethod
    @override
    def fit(cls, trace: RoutingTrace, *, lookahead: int = 1, **parameters: Any) -> Self:
        MarkovParameters.parse(parameters, origin=f"predictor '{cls.name}'")
        return cls(temporal_rates(trace), top_k=trace.top_k, lookahead=lookahead)

    @override
    def predict(self, layer: int) -> Scores:
        return self._sum_rates(layer, self.chosen[layer])

    @override
    def observe(self, layer: int, ids: ExpertIds | None) -> None:
        if ids is not None:
            self.chosen[layer] = ids

    @override
    def score_chunks(self, trace: RoutingTrace, *, chunk_tokens: int | None = None) -> Iterator[tuple[int, Scores]]:
        self.check_trace(trace)
        chosen = np.full((self.layers, self.top_k), -1, np.int32)
        for first, ids, recorded, starts in id_chunks(trace, chunk_tokens):
            scores = np.empty((len(ids), self.layers, self.experts), np.int32)
            _score_temporal(ids, recorded, starts, chosen, self.rates, scores)
            yield first, scores


@njit()
def _sum_rates(rates: NDArray[np.int32], source: NDArray[np.int32], scores: Scores) -> None:
    """Add to ``scores`` the rows ``source`` of ``rates [experts, experts]``; a source of −1 (unknown) adds nothing."""
    scores[:] = 0
    for i in range(len(source)):
        if source[i] >= 0:
            for expert in range(len(scores)):
                scores[expert] += rates[source[i], expert]


@njit()
def _score_spatial(
    ids: ExpertIds, recorded: NDArray[np.bool_], distance: int, rates: NDArray[np.int32], scores: Scores
) -> None:
    """Fill ``scores`` (zeros on entry) in rows whose token has a known source layer."""
    for token in range(ids.shape[0]):
        for layer in range(distance, ids.shape[1]):
            if recorded[token, layer - distance]:
                _sum_rates(rates[layer], ids[token, layer - distance], scores[token, layer])


@njit()
def _score_temporal(
    ids: ExpertIds,
    recorded: NDArray[np.bool_],
    starts: NDArray[np.bool_],
    chosen: NDArray[np.int32],
    rates: NDArray[np.int32],
    scores: Scores,
) -> None:
    for token in range(ids.shape[0]):
        if starts[token]:
            chosen[:] = -1
        for layer in range(ids.shape[1]):
            _sum_rates(rates[layer], chosen[layer], scores[token, layer])
            if recorded[token, layer]:
                chosen[layer] = ids[token, layer]
