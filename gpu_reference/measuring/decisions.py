"""How long the stager's decisions take, beside what they decide about: the runtime's commands, in its form."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpu_reference.measuring.bench import Bench, Figures, WrongResultError
from gpu_reference.records.micro import MicroKind
from predictor.row_network.integers import CERTAIN
from staging.stager.compiled.direct import DirectStager
from staging.stager.limits import StagerLimits, StagerSettings

PREFETCHED = 8
STEPS = 64


@dataclass(frozen=True)
class Decided:
    """What a policy tells the stager.

    Attributes:
        name: in records.
        values: whether each layer's values are told at each step.
        predictions: whether the next layer's experts are predicted.
        background: whether what is worth having moves.
    """

    name: str
    values: bool = False
    predictions: bool = False
    background: bool = False


KINDS = (
    Decided("recency"),
    Decided("values", values=True),
    Decided("values and prefetch", values=True, predictions=True),
    Decided("values, prefetch and background loads", values=True, predictions=True, background=True),
)


def decisions(bench: Bench) -> Figures:
    """All commands of one layer of one step, by what is told: a quarter of all experts held, transfers take no time."""
    model = bench.model
    places = max(1, model.moe_layers * model.experts // 4)
    for kind in KINDS:
        driver = _Driver(bench, kind, places)
        for piece in range(model.moe_layers * 4):  # the places fill
            driver.layer(piece)
        yield bench.micro(
            MicroKind.DECISION,
            driver.layer,
            queued=model.moe_layers,
            policy=kind.name,
            layers=model.moe_layers,
            experts=model.experts,
            top_k=model.top_k,
            places=places,
        )


class _Driver:
    """Random routing with some experts likelier than others, and the stager that serves it."""

    def __init__(self, bench: Bench, kind: Decided, places: int) -> None:
        model = bench.model
        self.layers, self.kind = model.moe_layers, kind
        random = np.random.default_rng(bench.seed)
        likely = 1 / (1 + np.arange(model.experts))
        shape = (STEPS, self.layers)
        chosen: NDArray[np.int64] = np.empty((*shape, model.top_k), np.int64)
        self.predicted = np.empty((*shape, min(PREFETCHED, model.experts)), np.int64)
        for step, layer in np.ndindex(shape):
            order = np.argsort(-np.log(likely) - random.gumbel(size=model.experts)).astype(np.int64)
            chosen[step, layer] = order[: model.top_k]
            self.predicted[step, layer] = order[: self.predicted.shape[2]]
        self.chosen: list[list[list[int]]] = chosen.tolist()  # as the runtime tells them
        self.values = random.integers(0, CERTAIN, (*shape, model.experts))
        self.chances = np.sort(random.integers(1, CERTAIN, self.predicted.shape[2]))[::-1].copy()
        self.stager = DirectStager(
            StagerLimits(
                layers=self.layers,
                experts=model.experts,
                places=places,
                spare=model.experts,
                queue_depth=max(32, model.top_k),
                event_experts=model.top_k,
                value_bits=20,
                scale_bits=24,
            ),
            StagerSettings(shares=(places,), by_recency=not kind.values, background=kind.background),
        )

    def layer(self, number: int) -> None:
        """The commands of the layer ``number`` of all steps."""
        step, layer = number // self.layers, number % self.layers
        stager, experts = self.stager, self.chosen[step % STEPS][layer]
        stager.demand(layer, experts)
        self._move()
        if self.kind.predictions:
            stager.expire(number)
        if not all(stager.are_resident(layer, experts)):
            raise WrongResultError("stager: an expert that was demanded did not arrive")
        if self.kind.values:
            stager.set_values(layer, self.values[step % STEPS, layer])
        if self.kind.predictions and layer + 1 < self.layers:
            stager.prefetch(layer + 1, self.predicted[step % STEPS, layer + 1], self.chances, number + 1)
        self._move()
        stager.release(layer, experts)

    def _move(self) -> None:
        """Everything that the stager grants."""
        while self.stager.grant() is not None:
            self.stager.arrive()
