"""What a policy knows ahead, told while a model runs: the streaming forms of the arrays, one sequence at a time.

Whoever runs a model calls, for each sequence, ``start_sequence``; then for each step one of two:

* a decoded token: ``start_token``, and at each gate, ascending, ``observe``;
* a prompt's pass, several tokens that go through the layers together: ``start_pass``, at each gate ``observe_pass``,
  and ``end_pass``.

After each gate ``values`` and, of a decoded token, ``predictions`` are what is to be told to a stager, and what
``start_token`` returns is to be told before the first gate. All are those of the arrays for single requests
(`staging.steps.decode_steps`), integer for integer, with one exception. **Within a pass** learned values are not known
before its end (the next-use predictor needs each token's routing in all layers), while the arrays tell the pass's row
at its gates, as if it were. So ``values`` is ``None`` there, and whoever finds ``values_after_pass`` tells the values
of all layers when ``end_pass`` has returned.

A row that was not recorded is observed as ``None``, of a pass as a row that ``recorded`` denies.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from predictor.base import ExpertIds


class Prediction(NamedTuple):
    """Which experts a coming gate is expected to choose.

    Attributes:
        target: layer.
        experts: i16 ``[n]``, best first.
        chances: i32 ``[n]``, 65535 being certainty.
    """

    target: int
    experts: NDArray[np.int16]
    chances: NDArray[np.int32]


class OnlineForesight(Protocol):
    """See the module's description. Arrays that are returned are views, in force until the next call.

    Attributes:
        most: the largest absolute value that ``values`` may hold; 0 where it has none.
        values_after_pass: whether the values of all layers are to be told after a pass.
    """

    @property
    def most(self) -> int:
        """See the class."""

    @property
    def values_after_pass(self) -> bool:
        """See the class."""

    def start_sequence(self) -> None:
        """A sequence begins: its past is empty."""

    def start_token(self, identity: int | None) -> Sequence[Prediction]:
        """A token with this identity (``token_hash``; ``None``: not recorded) is about to be decoded.

        Returns:
            What is predicted from the beginning of the step on, targets ascending.
        """

    def observe(self, layer: int, ids: ExpertIds | None) -> None:
        """The gate of ``layer`` chose ``ids`` ``[top_k]``, in rank order; layers ascend."""

    def values(self, layer: int) -> NDArray[np.int32] | None:
        """What each expert of ``layer`` is worth, i32 ``[experts]``, from its gate on; ``None``: it does not say."""

    def predictions(self, layer: int) -> Sequence[Prediction]:
        """What the gate of ``layer``, the latest observed, gives to know, nearest target first."""

    def start_pass(self, identities: NDArray[np.int64] | None, tokens: int) -> None:
        """So many tokens of the prompt are about to go through the layers.

        Args:
            identities: i64 ``[tokens]``, as in ``start_token``; a negative one was not recorded.
            tokens: of the pass.
        """

    def observe_pass(self, layer: int, ids: ExpertIds, recorded: NDArray[np.bool_] | None = None) -> None:
        """The gates of ``layer`` chose ``ids`` ``[tokens, top_k]``.

        Args:
            layer: layers ascend.
            ids: of each token, in rank order.
            recorded: bool ``[tokens]``, whether its row is known; ``None``: all are.
        """

    def end_pass(self) -> None:
        """The pass has gone through all layers."""


class PassLog:
    """What a pass chose, kept until its end for those who go through it token by token.

    Args:
        layers, top_k: of the model.

    Attributes:
        ids: i16 ``[tokens, layers, top_k]``.
        recorded: bool ``[tokens, layers]``.
        identities: i64 ``[tokens]``, −1: not recorded.
    """

    def __init__(self, layers: int, top_k: int) -> None:
        self._shape = (layers, top_k)
        self.start(None, 0)

    def start(self, identities: NDArray[np.int64] | None, tokens: int) -> None:
        """As ``OnlineForesight.start_pass``."""
        self.ids = np.zeros((tokens, *self._shape), np.int16)
        self.recorded = np.zeros((tokens, self._shape[0]), np.bool_)
        self.identities = np.full(tokens, -1, np.int64)
        if identities is not None:
            self.identities[:] = identities

    def observe(self, layer: int, ids: ExpertIds, recorded: NDArray[np.bool_] | None) -> None:
        """As ``OnlineForesight.observe_pass``."""
        known = np.ones(len(self.ids), np.bool_) if recorded is None else recorded
        self.ids[known, layer] = np.asarray(ids)[known]
        self.recorded[:, layer] = known


class Gates:
    """Which gate comes next: a layer left out, or told twice, would give a wrong answer without an error.

    Args:
        layers: of the model.
    """

    def __init__(self, layers: int) -> None:
        self._layers = layers
        self._next = layers

    def begin(self) -> None:
        """A step begins.

        Raises:
            ValueError: within another.
        """
        if self._next != self._layers:
            raise ValueError(f"a step begins, and the gate of layer {self._next} of the one before is still to come")
        self._next = 0

    def end(self) -> None:
        """A step ends.

        Raises:
            ValueError: if a gate of it is still to come.
        """
        if self._next != self._layers:
            raise ValueError(f"the step ends, and the gate of layer {self._next} is still to come")

    def forget(self) -> None:
        """No step has begun."""
        self._next = self._layers

    def pass_by(self, layer: int) -> None:
        """The gate of ``layer`` is known.

        Raises:
            ValueError: if it is not the next one.
        """
        if layer != self._next:
            come = "a step is to begin" if self._next == self._layers else f"layer {self._next} is to come"
            raise ValueError(f"the gate of layer {layer} is told, and {come}")
        self._next += 1


class Joined:
    """Values of one and predictions of another, as one.

    Args:
        values, predictions: whose; the same object may be both.
    """

    def __init__(self, values: OnlineForesight | None, predictions: OnlineForesight | None) -> None:
        self._values = values
        self._predictions = predictions
        self._all = [one for one in (values, predictions) if one is not None]
        if values is predictions:
            self._all = self._all[:1]
        self.most = 0 if values is None else values.most
        self.values_after_pass = values is not None and values.values_after_pass

    def start_sequence(self) -> None:
        """See `OnlineForesight`."""
        for one in self._all:
            one.start_sequence()

    def start_token(self, identity: int | None) -> Sequence[Prediction]:
        """See `OnlineForesight`."""
        found: Sequence[Prediction] = ()
        for one in self._all:
            told = one.start_token(identity)
            if one is self._predictions:
                found = told
        return found

    def observe(self, layer: int, ids: ExpertIds | None) -> None:
        """See `OnlineForesight`."""
        for one in self._all:
            one.observe(layer, ids)

    def values(self, layer: int) -> NDArray[np.int32] | None:
        """See `OnlineForesight`."""
        return None if self._values is None else self._values.values(layer)

    def predictions(self, layer: int) -> Sequence[Prediction]:
        """See `OnlineForesight`."""
        return () if self._predictions is None else self._predictions.predictions(layer)

    def start_pass(self, identities: NDArray[np.int64] | None, tokens: int) -> None:
        """See `OnlineForesight`."""
        for one in self._all:
            one.start_pass(identities, tokens)

    def observe_pass(self, layer: int, ids: ExpertIds, recorded: NDArray[np.bool_] | None = None) -> None:
        """See `OnlineForesight`."""
        for one in self._all:
            one.observe_pass(layer, ids, recorded)

    def end_pass(self) -> None:
        """See `OnlineForesight`."""
        for one in self._all:
            one.end_pass()
