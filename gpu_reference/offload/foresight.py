"""What is known ahead, as the runtime asks for it: read from arrays by step, or asked of predictors that listen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from predictor.foresight.arrays import Predictions, Values
from predictor.foresight.online import OnlineForesight
from predictor.row_network.integers import CERTAIN

Integers = NDArray[np.integer]


class Expected(NamedTuple):
    """What a coming layer is expected to choose: experts, best first, and the chance of each."""

    layer: int
    experts: Integers
    chances: Integers


class Foresight(Protocol):
    """Asked in this order: ``begin_step``, ``at_gate`` of each layer, ``end_step``.

    What is expected is told to the stager in timed steps alone.
    """

    @property
    def predicts(self) -> bool:
        """Whether anything is ever expected, so that deadlines pass."""

    def begin_step(self, step: int) -> Iterable[Expected]:
        """What is expected before any gate of the step is known."""

    def at_gate(
        self, step: int, layer: int, ids: Sequence[int], beside: Sequence[int]
    ) -> tuple[Integers | None, Iterable[Expected]]:
        """The gate is known.

        Args:
            step, layer: of the gate.
            ids: that it chose, token by token.
            beside: what came to the host with them (`runtime.OffloadedExperts.run`).

        Returns:
            the layer's values from now on (``None``: as they were), and what is expected.
        """

    def end_step(self, step: int) -> Iterable[tuple[int, Integers]]:
        """Values that come at the end of the step, (layer, ``[experts]``)."""


class NoForesight:
    """Nothing is known: recency decides, and nothing is fetched ahead."""

    predicts = False

    def begin_step(self, step: int) -> Iterable[Expected]:
        """Nothing."""
        return ()

    def at_gate(
        self, step: int, layer: int, ids: Sequence[int], beside: Sequence[int]
    ) -> tuple[Integers | None, Iterable[Expected]]:
        """Nothing."""
        return None, ()

    def end_step(self, step: int) -> Iterable[tuple[int, Integers]]:
        """Nothing."""
        return ()


class ArrayForesight:
    """Of the arrays of `predictor.foresight`, which are made for the very steps that run.

    What is told when is what simulations of time are told: values at the layer's own gate, or all at the end of the
    step; a target at distance ``d`` at the gate ``d`` layers before it, and at the beginning of the step where there is
    no such gate.
    """

    def __init__(self, layers: int, values: Values | None, predictions: Predictions | None) -> None:
        self._layers = layers
        self._values = values
        self._predictions = predictions

    @property
    def predicts(self) -> bool:
        """See `Foresight`."""
        return self._predictions is not None

    def begin_step(self, step: int) -> Iterable[Expected]:
        """See `Foresight`."""
        of = self._predictions
        if of is not None:
            for target in range(min(of.distances[-1], self._layers)):
                index = next(at for at, distance in enumerate(of.distances) if distance > target)
                yield from self._expected(of, step, target, index)

    def at_gate(
        self, step: int, layer: int, ids: Sequence[int], beside: Sequence[int]
    ) -> tuple[Integers | None, Iterable[Expected]]:
        """See `Foresight`."""
        values = self._values
        told = None if values is None or values.at_step_end else values.rows[step, layer]
        return told, self._ahead(step, layer)

    def end_step(self, step: int) -> Iterable[tuple[int, Integers]]:
        """See `Foresight`."""
        values = self._values
        if values is not None and values.at_step_end:
            for layer in range(self._layers):
                yield layer, values.rows[step, layer]

    def _ahead(self, step: int, layer: int) -> Iterator[Expected]:
        of = self._predictions
        if of is not None:
            for index, distance in enumerate(of.distances):
                if layer + distance < self._layers:
                    yield from self._expected(of, step, layer + distance, index)

    @staticmethod
    def _expected(of: Predictions, step: int, target: int, index: int) -> Iterator[Expected]:
        experts = of.experts[step, target, index]
        told = experts >= 0
        if told.any():
            yield Expected(target, experts[told], of.chances[step, target, index][told])


class ListeningForesight:
    """Of predictors that listen while the model runs (`predictor.foresight.online`), one sequence at a time.

    ``announce`` comes before each step. What is told is what the arrays for these steps hold, but within a prompt's
    pass (see `predictor.foresight.online`).

    Args:
        source: that listens.
        layers, top_k: of the model.
    """

    predicts = True

    def __init__(self, source: OnlineForesight, layers: int, top_k: int) -> None:
        self._source = source
        self._layers = layers
        self._top_k = top_k
        self._identities: list[int] = []
        self._is_pass = False

    def announce(self, identities: Sequence[int], *, starts: bool, is_pass: bool) -> None:
        """The tokens of the coming step: their identities, whether their sequence starts, whether it is its prompt."""
        if starts:
            self._source.start_sequence()
        self._identities, self._is_pass = list(identities), is_pass

    def begin_step(self, step: int) -> Iterable[Expected]:
        """See `Foresight`."""
        if self._is_pass:
            self._source.start_pass(np.array(self._identities, np.int64), len(self._identities))
            return ()
        (identity,) = self._identities
        return [Expected(*found) for found in self._source.start_token(identity)]

    def at_gate(
        self, step: int, layer: int, ids: Sequence[int], beside: Sequence[int]
    ) -> tuple[Integers | None, Iterable[Expected]]:
        """See `Foresight`."""
        if self._is_pass:
            self._source.observe_pass(layer, np.array(ids, np.int16).reshape(-1, self._top_k))
            return self._source.values(layer), ()
        self._source.observe(layer, np.array(ids, np.int16))
        return self._source.values(layer), [Expected(*found) for found in self._source.predictions(layer)]

    def end_step(self, step: int) -> Iterable[tuple[int, Integers]]:
        """See `Foresight`."""
        if not self._is_pass:
            return
        self._source.end_pass()
        if self._source.values_after_pass:
            for layer in range(self._layers):
                values = self._source.values(layer)
                assert values is not None, "known after the pass"
                yield layer, values


class SpeculativeForesight:
    """The next layer's router, applied to what this layer's router reads: its choice is fetched.

    Eliseev and Mazur, "Fast Inference of Mixture-of-Experts Language Models with Offloading", arXiv 2312.17238,
    section 3.2. It needs hidden states, so there is none for a trace alone. The choice comes to the host with the gate.
    """

    predicts = True

    def __init__(self, layers: int) -> None:
        self._layers = layers

    def begin_step(self, step: int) -> Iterable[Expected]:
        """Nothing: layer 0 has no router before it."""
        return ()

    def at_gate(
        self, step: int, layer: int, ids: Sequence[int], beside: Sequence[int]
    ) -> tuple[Integers | None, Iterable[Expected]]:
        """See `Foresight`."""
        if layer + 1 == self._layers or not beside:
            return None, ()
        experts = np.array(list(dict.fromkeys(beside)), np.int64)
        return None, (Expected(layer + 1, experts, np.full(len(experts), CERTAIN)),)

    def end_step(self, step: int) -> Iterable[tuple[int, Integers]]:
        """Nothing."""
        return ()
