"""What is known ahead, as the runtime asks for it: read from arrays by step, or asked of predictors that listen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from predictor.foresight.arrays import Predictions, Values

Integers = NDArray[np.integer]


class Expected(NamedTuple):
    """What a coming layer is expected to choose: experts, best first, and the chance of each."""

    layer: int
    experts: Integers
    chances: Integers


class Foresight(Protocol):
    """Asked in this order: ``begin_step``, ``at_gate`` of each layer, ``end_step``."""

    def begin_step(self, step: int) -> Iterator[Expected]:
        """What is expected before any gate of the step is known."""

    def at_gate(self, step: int, layer: int, ids: Sequence[int]) -> tuple[Integers | None, Iterator[Expected]]:
        """The gate chose ``ids``, token by token: the layer's values from now on, and what is expected."""

    def end_step(self, step: int) -> Iterator[tuple[int, Integers]]:
        """Values that come at the end of the step, (layer, ``[experts]``)."""

    @property
    def predicts(self) -> bool:
        """Whether anything is ever expected, so that deadlines pass."""


class NoForesight:
    """Nothing is known: recency decides, and nothing is fetched ahead."""

    predicts = False

    def begin_step(self, step: int) -> Iterator[Expected]:
        """Nothing."""
        return iter(())

    def at_gate(self, step: int, layer: int, ids: Sequence[int]) -> tuple[Integers | None, Iterator[Expected]]:
        """Nothing."""
        return None, iter(())

    def end_step(self, step: int) -> Iterator[tuple[int, Integers]]:
        """Nothing."""
        return iter(())


class ArrayForesight:
    """Of the arrays of `predictor.foresight`, which are made for the very steps that run.

    What is told when, is `perfmodel.engine`'s: values at the layer's own gate, or all at the end of the step; a target at
    distance ``d`` at the gate ``d`` layers before it, and at the beginning of the step where there is none.
    """

    def __init__(self, layers: int, values: Values | None, predictions: Predictions | None) -> None:
        self._layers = layers
        self._values = values
        self._predictions = predictions

    @property
    def predicts(self) -> bool:
        """See `Foresight`."""
        return self._predictions is not None

    def begin_step(self, step: int) -> Iterator[Expected]:
        """See `Foresight`."""
        of = self._predictions
        if of is not None:
            for target in range(min(of.distances[-1], self._layers)):
                index = next(at for at, distance in enumerate(of.distances) if distance > target)
                yield from self._expected(of, step, target, index)

    def at_gate(self, step: int, layer: int, ids: Sequence[int]) -> tuple[Integers | None, Iterator[Expected]]:
        """See `Foresight`."""
        values = self._values
        told = None if values is None or values.at_step_end else values.rows[step, layer]
        return told, self._ahead(step, layer)

    def end_step(self, step: int) -> Iterator[tuple[int, Integers]]:
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
