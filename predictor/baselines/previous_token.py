"""Previous token: predict the experts that the previous token used in this layer, then others by a stated rule."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from catalog.compiled import njit
from catalog.config import StrictModel
from predictor.base import ExpertIds, Predictor, Scores, id_chunks
from predictor.baselines.profile import RATE_BITS, RATE_ONE, selection_rates
from traces import RoutingTrace

Fill = Literal["popularity", "recency", "none"]

_AGES = 1 << (30 - RATE_BITS)  # ages that can be distinguished: the age field is above the rate field of a positive i32


class PreviousTokenParameters(StrictModel):
    """How experts that the previous token did not use are ranked.

    Attributes:
        fill: ``popularity``: by the share of training tokens that chose the expert; ``recency``: by tokens since its
            last use in this sequence, then popularity (the order of an LRU stack); ``none``: not at all, so that at
            most ``top_k`` experts are issued.
    """

    fill: Fill = "popularity"


class PreviousTokenPredictor(Predictor):
    """Scores an expert by an age field above its training popularity.

    ``age`` is the number of recorded tokens of this sequence and layer since the expert was last chosen (1: by the
    previous token). Let ``A = 1024``. The score is ``rate + ((A + 1 − age) << RATE_BITS)`` for ages of at most ``A``,
    and ``rate`` for older or unused experts; fill ``popularity`` uses only age 1, and ``none`` does so with
    ``rate = 0``. The lookahead changes nothing: only previous tokens are used, in every layer.
    """

    name: ClassVar[str] = "previous-token"
    parameters_model: ClassVar[type[StrictModel]] = PreviousTokenParameters

    def __init__(self, rates: NDArray[np.int32], *, top_k: int, lookahead: int, fill: Fill) -> None:
        super().__init__(layers=rates.shape[0], experts=rates.shape[1], top_k=top_k, lookahead=lookahead)
        # A rate of exactly 1 would carry into the age field.
        self.rates = np.minimum(rates, RATE_ONE - 1) if fill != "none" else np.zeros_like(rates)
        self.oldest = _AGES if fill == "recency" else 1
        self.reset()

    @classmethod
    @override
    def fit(cls, trace: RoutingTrace, *, lookahead: int = 1, **parameters: Any) -> Self:
        chosen = PreviousTokenParameters.parse(parameters, origin=f"predictor '{cls.name}'")
        return cls(selection_rates(trace), top_k=trace.top_k, lookahead=lookahead, fill=chosen.fill)

    @override
    def reset(self) -> None:
        self.ages = np.zeros((self.layers, self.experts), np.int32)  # 0: not used in this sequence

    @override
    def start_sequence(self) -> None:
        self.ages[:] = 0

    @override
    def predict(self, layer: int) -> Scores:
        scores = np.empty(self.experts, np.int32)
        _score(self.ages[layer], self.rates[layer], self.oldest, scores)
        return scores

    @override
    def observe(self, layer: int, ids: ExpertIds | None) -> None:
        if ids is not None:
            _age(self.ages[layer], np.asarray(ids, np.int32), self.oldest)

    @override
    def score_chunks(self, trace: RoutingTrace, *, chunk_tokens: int | None = None) -> Iterator[tuple[int, Scores]]:
        self.check_trace(trace)
        ages = np.zeros((self.layers, self.experts), np.int32)
        for first, ids, recorded, starts in id_chunks(trace, chunk_tokens):
            scores = np.empty((len(ids), self.layers, self.experts), np.int32)
            _score_chunk(ids, recorded, starts, ages, self.rates, self.oldest, scores)
            yield first, scores


@njit()
def _score(ages: NDArray[np.int32], rates: NDArray[np.int32], oldest: int, scores: Scores) -> None:
    """Fill ``scores [experts]``; each token of age costs ``RATE_ONE``."""
    for expert in range(len(ages)):
        scores[expert] = rates[expert]
        if ages[expert] > 0:
            scores[expert] += (oldest + 1 - ages[expert]) * RATE_ONE


@njit()
def _age(ages: NDArray[np.int32], ids: NDArray[np.int32], oldest: int) -> None:
    """Age all experts by one recorded token: ages above ``oldest`` return to 0 (unused), chosen experts get age 1."""
    for expert in range(len(ages)):
        if ages[expert] > 0:
            ages[expert] = ages[expert] + 1 if ages[expert] < oldest else 0
    for i in range(len(ids)):
        ages[ids[i]] = 1


@njit()
def _score_chunk(
    ids: ExpertIds,
    recorded: NDArray[np.bool_],
    starts: NDArray[np.bool_],
    ages: NDArray[np.int32],
    rates: NDArray[np.int32],
    oldest: int,
    scores: Scores,
) -> None:
    for token in range(ids.shape[0]):
        if starts[token]:
            ages[:] = 0
        for layer in range(ids.shape[1]):
            _score(ages[layer], rates[layer], oldest, scores[token, layer])
            if recorded[token, layer]:
                _age(ages[layer], ids[token, layer], oldest)
