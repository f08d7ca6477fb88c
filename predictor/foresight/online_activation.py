"""Activation-aware foresight while a model runs."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from predictor.activation import kernels
from predictor.activation.kernels import Activation
from predictor.activation.profile import ActivationProfile
from predictor.base import ExpertIds
from predictor.foresight.activation_arrays import most_of
from predictor.foresight.online import Gates, Prediction
from predictor.foresight.predicted_rows import check_predicted, first_target
from traces.handle import Handle


class ActivationForesight:
    """`activation_arrays` of one running sequence: values, and predictions where distances are given.

    Args:
        profile: of the model.
        distances: ascending, ≥ 1; none: nothing is predicted.
        most: experts of a prediction, at most.

    Raises:
        ForestageError: for distances or ``most`` out of range.
    """

    values_after_pass = False

    def __init__(self, profile: ActivationProfile, distances: Sequence[int] = (), most: int = 1) -> None:
        layers, experts = profile.layers, profile.experts
        if distances:
            check_predicted(distances, most, layers=layers, experts=experts)
        self.most = most_of(profile)
        self._activation = Activation(profile.collection, profile.running(1))
        self._handle = Handle(self._activation)
        self._gates = Gates(layers)
        self._values = np.zeros((layers, experts), np.int32)
        self._distances = tuple(distances)
        self._before = [
            (index, target)
            for index, distance in enumerate(distances)
            for target in range(first_target(distances, index), min(distance, layers))
        ]
        rows = max(len(distances), len(self._before))
        self._experts = np.empty((rows, most), np.int16)
        self._chances = np.empty((rows, most), np.int32)
        self._asked = np.array(distances, np.int64)
        self._counts = np.zeros(len(distances), np.int64)

    def start_sequence(self) -> None:
        """See `online.OnlineForesight`."""
        kernels.start(self._activation.running, 0)
        self._gates.forget()

    def start_token(self, identity: int | None) -> Sequence[Prediction]:
        """See `online.OnlineForesight`."""
        self._start(1)
        found = []
        for place, (_, target) in enumerate(self._before):
            experts, chances = self._experts[place], self._chances[place]
            count = _predict_first(self._handle, target, experts, chances)
            if count:
                found.append(Prediction(target, experts[:count], chances[:count]))
        return found

    def observe(self, layer: int, ids: ExpertIds | None) -> None:
        """See `online.OnlineForesight`."""
        self._gates.pass_by(layer)
        if ids is not None:
            _note(self._handle, layer, np.asarray(ids, np.int16)[None])
        _tell(self._handle, layer, self._values[layer], self._asked, self._experts, self._chances, self._counts)

    def values(self, layer: int) -> NDArray[np.int32] | None:
        """See `online.OnlineForesight`."""
        return self._values[layer]

    def predictions(self, layer: int) -> Sequence[Prediction]:
        """See `online.OnlineForesight`."""
        return [
            Prediction(layer + distance, self._experts[index, :count], self._chances[index, :count])
            for index, (distance, count) in enumerate(zip(self._distances, self._counts.tolist(), strict=True))
            if count
        ]

    def start_pass(self, identities: NDArray[np.int64] | None, tokens: int) -> None:
        """See `online.OnlineForesight`."""
        self._start(tokens)

    def observe_pass(self, layer: int, ids: ExpertIds, recorded: NDArray[np.bool_] | None = None) -> None:
        """See `online.OnlineForesight`."""
        self._gates.pass_by(layer)
        chosen = np.asarray(ids, np.int16)
        if recorded is not None:
            chosen = chosen[recorded]
        if len(chosen):
            _note(self._handle, layer, chosen)
        _value(self._handle, layer, self._values[layer])

    def end_pass(self) -> None:
        """See `online.OnlineForesight`."""
        self._gates.end()

    def _start(self, tokens: int) -> None:
        self._gates.begin()
        if not self._activation.running.live[0]:
            raise ValueError("a token comes before its sequence has begun")
        self._activation.running.now[0] = tokens


@njit()
def _note(handle: Handle, layer: int, ids: NDArray[np.int16]) -> None:
    activation = handle.held
    for token in range(len(ids)):
        kernels.note(activation, 0, layer, ids[token])
    kernels.match(activation, 0, layer)


@njit()
def _value(handle: Handle, layer: int, values: NDArray[np.int32]) -> None:
    kernels.value(handle.held, layer, values)


@njit()
def _tell(
    handle: Handle,
    layer: int,
    values: NDArray[np.int32],
    distances: NDArray[np.int64],
    experts: NDArray[np.int16],
    chances: NDArray[np.int32],
    counts: NDArray[np.int64],
) -> None:
    """Values of ``layer``, and ``counts [distances]`` predictions of the targets beyond it."""
    activation = handle.held
    kernels.value(activation, layer, values)
    for index in range(len(distances)):
        target = layer + distances[index]
        counts[index] = 0
        if target < activation.running.counts.shape[1]:
            counts[index] = kernels.predict(activation, layer, target, experts[index], chances[index])


@njit()
def _predict_first(handle: Handle, target: int, experts: NDArray[np.int16], chances: NDArray[np.int32]) -> int:
    return kernels.predict(handle.held, -1, target, experts, chances)
