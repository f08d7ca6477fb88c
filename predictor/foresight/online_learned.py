"""The learned predictors' answers while a model runs: one compiled call a gate."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from catalog.errors import ForestageError
from predictor.base import ExpertIds
from predictor.foresight.online import Gates, PassLog, Prediction
from predictor.foresight.predicted_rows import check_predicted, first_target
from predictor.measure.ranking import best_experts
from predictor.next_layer.predictor import NextLayerPredictor
from predictor.next_use.predictor import NextUsePredictor
from predictor.row_network import kernels, stream
from predictor.row_network.integers import CERTAIN, CHANCE_SHIFT
from predictor.row_network.stream import Parts
from predictor.row_network.twin import RowNetwork
from traces.handle import Handle


class _NetworkStream:
    """The calls of `online.OnlineForesight` that both heads answer alike."""

    def __init__(self, network: RowNetwork, lookaheads: Sequence[int], firsts: Sequence[int]) -> None:
        self._network = network
        self._parts = stream.stream_parts(network, lookaheads, firsts)
        self._handle = Handle(self._parts)
        self._gates = Gates(network.layers)
        self._pass = PassLog(network.layers, network.top_k)
        self._nothing = np.zeros(network.top_k, np.int16)

    def start_sequence(self) -> None:
        """See `online.OnlineForesight`."""
        kernels.start_sequence(self._parts.state)
        self._gates.forget()

    def _begin(self, identity: int | None) -> None:
        self._gates.begin()
        token = kernels.UNKNOWN if identity is None else int(identity)
        _begin(self._handle, token, int(self._network.identity_index(np.array([token]))[0]))

    def _chosen(self, layer: int, ids: ExpertIds | None) -> NDArray[np.int16]:
        self._gates.pass_by(layer)
        return self._nothing if ids is None else np.asarray(ids, np.int16)

    def start_pass(self, identities: NDArray[np.int64] | None, tokens: int) -> None:
        """See `online.OnlineForesight`."""
        self._gates.begin()
        self._pass.start(identities, tokens)

    def observe_pass(self, layer: int, ids: ExpertIds, recorded: NDArray[np.bool_] | None = None) -> None:
        """See `online.OnlineForesight`."""
        self._gates.pass_by(layer)
        self._pass.observe(layer, ids, recorded)

    def _run_pass(self) -> None:
        log = self._pass
        rows = self._network.identity_index(log.identities)
        _run(self._handle, log.ids, log.recorded, log.identities, rows)


class LearnedValues(_NetworkStream):
    """`learned_values.learned_values` of one running sequence.

    Args:
        predictor: of lookahead 0.

    Raises:
        ForestageError: for one of another lookahead.
    """

    values_after_pass = True

    def __init__(self, predictor: NextUsePredictor) -> None:
        if predictor.lookahead:
            raise ForestageError(
                f"next-use predictor: lookahead {predictor.lookahead}: values are told at a layer's own gate; "
                "give one of lookahead 0"
            )
        network = predictor.network
        super().__init__(network, (0,), (0,))
        self.most = predictor.config.questions * CERTAIN
        self._values = np.zeros((network.layers, network.experts), np.int32)
        self._in_pass = False

    def start_token(self, identity: int | None) -> Sequence[Prediction]:
        """See `online.OnlineForesight`."""
        self._begin(identity)
        return ()

    def observe(self, layer: int, ids: ExpertIds | None) -> None:
        """See `online.OnlineForesight`."""
        _value(self._handle, layer, self._chosen(layer, ids), ids is not None, self._values[layer])

    def values(self, layer: int) -> NDArray[np.int32] | None:
        """See `online.OnlineForesight`."""
        return None if self._in_pass else self._values[layer]

    def predictions(self, layer: int) -> Sequence[Prediction]:
        """See `online.OnlineForesight`."""
        return ()

    def start_pass(self, identities: NDArray[np.int64] | None, tokens: int) -> None:
        """See `online.OnlineForesight`."""
        super().start_pass(identities, tokens)
        self._in_pass = True

    def end_pass(self) -> None:
        """See `online.OnlineForesight`."""
        self._gates.end()
        self._run_pass()
        _value_all(self._handle, self._values)
        self._in_pass = False


class LearnedPredictions(_NetworkStream):
    """`learned_predictions.learned_predictions` of one running sequence.

    Args:
        predictor: that serves the distances.
        distances: ascending, ≥ 1.
        most: experts of a row, at most.

    Raises:
        ForestageError: for distances that it does not serve or that do not ascend, or ``most`` out of range.
    """

    most = 0
    values_after_pass = False

    def __init__(self, predictor: NextLayerPredictor, distances: Sequence[int], most: int) -> None:
        network = predictor.network
        check_predicted(distances, most, layers=network.layers, experts=network.experts)
        firsts = [first_target(distances, index) for index in range(len(distances))]
        super().__init__(network, distances, firsts)
        self._distances = tuple(distances)
        self._experts = np.empty((len(distances), most), np.int16)
        self._chances = np.empty((len(distances), most), np.int32)
        self._counts = np.zeros(len(distances), np.int64)
        self._full = [
            [
                Prediction(layer + distance, self._experts[index], self._chances[index])
                for index, distance in enumerate(distances)
                if layer + distance < network.layers
            ]
            for layer in range(network.layers)
        ]
        self._is_full = False
        # Targets before layer 0: of each the smallest distance beyond it.
        self._before = [
            (index, target)
            for index, distance in enumerate(distances)
            for target in range(firsts[index], min(distance, network.layers))
        ]
        self._before_experts = np.empty((len(self._before), most), np.int16)
        self._before_chances = np.empty((len(self._before), most), np.int32)

    def start_token(self, identity: int | None) -> Sequence[Prediction]:
        """See `online.OnlineForesight`."""
        self._begin(identity)
        found = []
        for place, (index, target) in enumerate(self._before):
            experts, chances = self._before_experts[place], self._before_chances[place]
            count = _rank_before(self._handle, index, target, experts, chances)
            if count:
                found.append(Prediction(target, experts[:count], chances[:count]))
        return found

    def observe(self, layer: int, ids: ExpertIds | None) -> None:
        """See `online.OnlineForesight`."""
        self._is_full = _predict(
            self._handle, layer, self._chosen(layer, ids), ids is not None, self._experts, self._chances, self._counts
        )

    def values(self, layer: int) -> NDArray[np.int32] | None:
        """See `online.OnlineForesight`."""
        return None

    def predictions(self, layer: int) -> Sequence[Prediction]:
        """See `online.OnlineForesight`."""
        if self._is_full:  # the usual case, and making the tuples would take longer than what they say
            return self._full[layer]
        return [
            Prediction(layer + distance, self._experts[index, :count], self._chances[index, :count])
            for index, (distance, count) in enumerate(zip(self._distances, self._counts.tolist(), strict=True))
            if count
        ]

    def end_pass(self) -> None:
        """See `online.OnlineForesight`."""
        self._gates.end()
        self._run_pass()


@njit()
def _begin(handle: Handle, token: int, identity: int) -> None:
    stream.begin(handle.held, token, identity)


@njit()
def _run(
    handle: Handle,
    ids: NDArray[np.int16],
    recorded: NDArray[np.bool_],
    identities: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> None:
    stream.tokens(handle.held, ids, recorded, identities, rows)


@njit()
def _value(handle: Handle, layer: int, ids: NDArray[np.int16], recorded: bool, values: NDArray[np.int32]) -> None:
    """A gate of a decoded token: ``values [experts]`` are the sums of the layer's chances over the horizons."""
    parts = handle.held
    stream.gate(parts, layer, ids, recorded, True)
    _add_up(parts, layer, values)


@njit()
def _value_all(handle: Handle, values: NDArray[np.int32]) -> None:
    parts = handle.held
    for layer in range(len(values)):
        _add_up(parts, layer, values[layer])


@njit()
def _add_up(parts: Parts, layer: int, values: NDArray[np.int32]) -> None:
    chances = parts.tables.chances[layer, kernels.distance_of(layer, 0, parts.rules.nearest)]
    scores = parts.asked.scores[0, layer]
    experts = len(values)
    values[:] = 0
    for question in range(chances.shape[0]):
        for expert in range(experts):
            values[expert] += np.int32(chances[question, scores[question * experts + expert] >> CHANCE_SHIFT])


@njit()
def _predict(
    handle: Handle,
    layer: int,
    ids: NDArray[np.int16],
    recorded: bool,
    experts: NDArray[np.int16],
    chances: NDArray[np.int32],
    counts: NDArray[np.int64],
) -> bool:
    """A gate of a decoded token: fill what is predicted at each distance, ``[distances, most]``, ``counts`` of it.

    Returns:
        Whether the row of each target that the model has is full.
    """
    is_full = True
    parts = handle.held
    stream.gate(parts, layer, ids, recorded, True)
    for index in range(len(counts)):
        target = layer + parts.asked.lookaheads[index]
        counts[index] = 0
        if target < len(parts.state.now):
            counts[index] = _rank(parts, index, target, experts[index], chances[index])
            is_full &= counts[index] == experts.shape[1]
    return is_full


@njit()
def _rank_before(
    handle: Handle, index: int, target: int, experts: NDArray[np.int16], chances: NDArray[np.int32]
) -> int:
    return _rank(handle.held, index, target, experts, chances)


@njit()
def _rank(parts: Parts, index: int, target: int, experts: NDArray[np.int16], chances: NDArray[np.int32]) -> int:
    """The likeliest experts of a target by its latest scores, best first; returns how many there are."""
    lookahead = parts.asked.lookaheads[index]
    table = parts.tables.chances[target, kernels.distance_of(target, lookahead, parts.rules.nearest), 0]
    scores = parts.asked.scores[index, target]
    row = np.empty(len(scores), np.int32)
    for expert in range(len(row)):
        row[expert] = table[scores[expert] >> CHANCE_SHIFT]
    count = min(best_experts(row, 1, experts), len(experts))
    for rank in range(count):
        chances[rank] = row[experts[rank]]
    return count
