"""ST-MoE's tables as a predictor (arXiv 2606.15453); the algorithm is in ``predictor.st_moe.tables``.

Below the lookahead, and where this token's source layer was not recorded, nothing is predicted (all zero), as the
hardware, which acts on the source layer's event, cannot. Tables adapt online and persist across sequences.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Self

import numpy as np
from typing_extensions import override

from catalog.errors import ForestageError
from predictor.base import ExpertIds, Predictor, Scores, id_chunks
from predictor.st_moe.batch import BatchState, Profile, profile_trace
from predictor.st_moe.events import RoutingEvent
from predictor.st_moe.parameters import EngineConfiguration, EngineLimits, StMoeParameters
from predictor.st_moe.tables import StMoeTables
from traces import RoutingTrace

__all__ = ["EngineConfiguration", "EngineLimits", "StMoeParameters", "StMoePredictor", "StMoeTables"]


class StMoePredictor(Predictor):
    """Scores are confidences: those of the correlation rows, aggregated, plus the history table's.

    Attributes:
        parameters: the resolved choices.
        profile: the tables just after ``fit``.
    """

    name: ClassVar[str] = "st-moe"
    parameters_model: ClassVar[type[StMoeParameters]] = StMoeParameters

    def __init__(
        self, profile: Profile, parameters: StMoeParameters, *, layers: int, experts: int, top_k: int, lookahead: int
    ) -> None:
        super().__init__(layers=layers, experts=experts, top_k=top_k, lookahead=lookahead)
        self.profile = profile
        self.parameters = parameters
        self.threshold = parameters.threshold
        self.reset()

    @classmethod
    @override
    def fit(cls, trace: RoutingTrace, *, lookahead: int = 1, **parameters: Any) -> Self:
        chosen = StMoeParameters.parse(parameters, origin=f"predictor '{cls.name}'")
        candidates = trace.top_k if chosen.candidates is None else chosen.candidates
        if candidates > trace.experts:
            raise ForestageError(
                f"predictor '{cls.name}': candidates: {candidates} exceeds the model's {trace.experts} experts"
            )
        profile = profile_trace(
            trace, lookahead=lookahead, candidates=candidates, initial_confidence=chosen.initial_confidence
        )
        return cls(profile, chosen, layers=trace.layers, experts=trace.experts, top_k=trace.top_k, lookahead=lookahead)

    def configuration(self, issue_limit: int | None = None) -> EngineConfiguration:
        """The registers of an engine that does as this predictor; ``issue_limit``: default none."""
        return EngineConfiguration(
            experts=self.experts,
            layers=self.layers,
            top_k=self.top_k,
            candidates=self.profile.candidates.shape[2],
            lookahead=self.lookahead,
            issue_limit=self.experts if issue_limit is None else issue_limit,
            **self.parameters.policy(),
        )

    def tables(self, limits: EngineLimits | None = None, issue_limit: int | None = None) -> StMoeTables:
        """The twin of an engine of ``limits`` (default: the smallest that fits) just after ``fit``.

        Raises:
            ForestageError: if the model exceeds the limits, naming the option that mends it.
        """
        configuration = self.configuration(issue_limit)
        if limits is None:
            limits = EngineLimits.holding(
                layers=self.layers, experts=self.experts, top_k=self.top_k, candidates=configuration.candidates
            )
        return StMoeTables(limits, configuration, self.profile.candidates, self.profile.confidences)

    @override
    def reset(self) -> None:
        self._tables = self.tables()

    @override
    def start_sequence(self) -> None:
        self._tables.start_sequence()

    @override
    def predict(self, layer: int) -> Scores:
        return self._tables.predicted_scores(layer)[: self.experts]

    @override
    def observe(self, layer: int, ids: ExpertIds | None) -> None:
        if layer == 0:
            self._tables.start_token()
        if ids is not None:
            self._tables.step(RoutingEvent(layer, tuple(ids.tolist())))

    @override
    def score_chunks(self, trace: RoutingTrace, *, chunk_tokens: int | None = None) -> Iterator[tuple[int, Scores]]:
        self.check_trace(trace)
        state = BatchState(self.profile, self.configuration())
        for first, ids, recorded, starts in id_chunks(trace, chunk_tokens):
            scores = np.empty((len(ids), self.layers, self.experts), np.int32)
            state.score(ids, recorded, starts, scores)
            yield first, scores
