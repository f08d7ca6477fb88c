"""The issue sets of a predictor of the registry while a model runs: each expert of a set counts as certain."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from predictor.base import ExpertIds, Predictor
from predictor.foresight.online import Gates, PassLog, Prediction
from predictor.foresight.predicted_rows import check_predicted
from predictor.measure.ranking import best_experts, check_limit
from predictor.row_network.integers import CERTAIN


class IssuedPredictions:
    """`issued_predictions.issued_predictions` of single requests.

    What the predictor adapts lives on from sequence to sequence, from the state just after ``fit`` on.

    Args:
        predictor: of the registry. Its streaming form is used, so that nobody else may use that meanwhile.
        issue_limit: the most experts of a token's set.

    Raises:
        ForestageError: for a limit out of range.
    """

    most = 0
    values_after_pass = False

    def __init__(self, predictor: Predictor, issue_limit: int) -> None:
        check_limit(issue_limit, predictor.experts)
        check_predicted((predictor.lookahead,), issue_limit, layers=predictor.layers, experts=predictor.experts)
        self._predictor = predictor
        self._gates = Gates(predictor.layers)
        self._pass = PassLog(predictor.layers, predictor.top_k)
        self._best = np.empty(issue_limit, np.int16)
        self._certain = np.full(issue_limit, CERTAIN, np.int32)
        predictor.reset()

    def start_sequence(self) -> None:
        """See `online.OnlineForesight`."""
        self._predictor.start_sequence()
        self._gates.forget()

    def start_token(self, identity: int | None) -> Sequence[Prediction]:
        """See `online.OnlineForesight`."""
        self._gates.begin()
        self._predictor.start_token(identity)
        before = range(min(self._predictor.lookahead, self._predictor.layers))
        return [found for target in before for found in self._issued(target, self._best.copy())]

    def observe(self, layer: int, ids: ExpertIds | None) -> None:
        """See `online.OnlineForesight`."""
        self._gates.pass_by(layer)
        self._predictor.observe(layer, ids)

    def values(self, layer: int) -> NDArray[np.int32] | None:
        """See `online.OnlineForesight`."""
        return None

    def predictions(self, layer: int) -> Sequence[Prediction]:
        """See `online.OnlineForesight`."""
        target = layer + self._predictor.lookahead
        return self._issued(target, self._best) if target < self._predictor.layers else ()

    def start_pass(self, identities: NDArray[np.int64] | None, tokens: int) -> None:
        """See `online.OnlineForesight`."""
        self._gates.begin()
        self._pass.start(identities, tokens)

    def observe_pass(self, layer: int, ids: ExpertIds, recorded: NDArray[np.bool_] | None = None) -> None:
        """See `online.OnlineForesight`."""
        self._gates.pass_by(layer)
        self._pass.observe(layer, ids, recorded)

    def end_pass(self) -> None:
        """See `online.OnlineForesight`."""
        self._gates.end()
        log, predictor = self._pass, self._predictor
        for ids, recorded, identity in zip(log.ids, log.recorded, log.identities.tolist(), strict=True):
            predictor.start_token(None if identity < 0 else identity)
            for layer in range(predictor.layers):
                predictor.observe(layer, ids[layer] if recorded[layer] else None)

    def _issued(self, target: int, best: NDArray[np.int16]) -> Sequence[Prediction]:
        """The set for ``target`` in ``best [issue limit]``, if it holds an expert."""
        scores = self._predictor.predict(target)
        count = min(int(best_experts(scores, self._predictor.issue_threshold, best)), len(best))
        return (Prediction(target, best[:count], self._certain[:count]),) if count else ()
