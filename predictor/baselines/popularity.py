"""Popularity: predict the experts chosen most often in the training trace, whatever was routed before."""

from collections.abc import Iterator
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from catalog.config import StrictModel
from predictor.base import ExpertIds, Predictor, Scores, id_chunks
from predictor.baselines.profile import selection_rates
from traces import RoutingTrace


class PopularityParameters(StrictModel):
    """Popularity has no parameters."""


class PopularityPredictor(Predictor):
    """Scores an expert by the share of training tokens that chose it in this layer (fixed point, ``RATE_BITS``).

    A layer's scores are the same for every token, also in layers below the lookahead.
    """

    name: ClassVar[str] = "popularity"
    parameters_model: ClassVar[type[StrictModel]] = PopularityParameters

    def __init__(self, rates: NDArray[np.int32], *, top_k: int, lookahead: int) -> None:
        super().__init__(layers=rates.shape[0], experts=rates.shape[1], top_k=top_k, lookahead=lookahead)
        self.rates = rates

    @classmethod
    @override
    def fit(cls, trace: RoutingTrace, *, lookahead: int = 1, **parameters: Any) -> Self:
        PopularityParameters.parse(parameters, origin=f"predictor '{cls.name}'")
        return cls(selection_rates(trace), top_k=trace.top_k, lookahead=lookahead)

    @override
    def reset(self) -> None:
        """Do nothing: there is no history."""

    @override
    def start_sequence(self) -> None:
        """Do nothing: there is no history."""

    @override
    def predict(self, layer: int) -> Scores:
        return self.rates[layer].copy()

    @override
    def observe(self, layer: int, ids: ExpertIds | None) -> None:
        """Do nothing: routing does not change the scores."""

    @override
    def score_chunks(self, trace: RoutingTrace, *, chunk_tokens: int | None = None) -> Iterator[tuple[int, Scores]]:
        self.check_trace(trace)
        scores = np.empty((0, self.layers, self.experts), np.int32)
        for first, ids, _, _ in id_chunks(trace, chunk_tokens):
            if len(scores) < len(ids):
                scores = np.repeat(self.rates[None], len(ids), axis=0)
            yield first, scores[: len(ids)]
