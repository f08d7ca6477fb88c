"""Small runs for tests of the runtime: a model of few bytes, random routing, and policies of every kind."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from gpu_reference.experts.compute import expert_kernel
from gpu_reference.experts.group import one_by_one
from gpu_reference.experts.layout import ExpertLayout
from gpu_reference.experts.shape import ExpertShape
from gpu_reference.offload.foresight import ArrayForesight
from gpu_reference.offload.host_compute import HostWorker
from gpu_reference.offload.host_store import HostExperts
from gpu_reference.offload.queues import ImmediateQueue
from gpu_reference.offload.resident import ResidentExperts
from gpu_reference.offload.runtime import OffloadedExperts
from predictor.foresight.arrays import Predictions, Values
from predictor.policies.plan import Missing, Plan
from predictor.policies.policy import Eviction, Policy, Prefetch, plan_of
from staging.results import Scope

LAYERS, EXPERTS, TOP_K, HIDDEN, STEPS = 3, 8, 2, 8, 12
LAYOUT = ExpertLayout(ExpertShape(hidden=HIDDEN, intermediate=4, matrices=3, activation="swiglu"), "fp32")

FETCHING: dict[str, Policy] = {
    "LRU": Policy(eviction=Eviction.LRU),
    "values": Policy(eviction=Eviction.FREQUENCY),
    "values, background": Policy(eviction=Eviction.FREQUENCY, background=True, price=20),
    "prefetch": Policy(eviction=Eviction.LRU, prefetch=Prefetch.PERFECT),
    "wrong prefetch": Policy(eviction=Eviction.LRU, prefetch=Prefetch.LEARNED),
    "all": Policy(eviction=Eviction.FREQUENCY, prefetch=Prefetch.LEARNED, background=True, price=5),
}
COMPUTING: dict[str, Policy] = {
    "static": Policy(eviction=Eviction.STATIC, missing=Missing.HOST),
    "host, background": Policy(eviction=Eviction.FREQUENCY, missing=Missing.HOST, background=True, price=20),
}


@dataclass(frozen=True, eq=False)
class Scene:
    """Routing and inputs of some steps: a step has one token, or several (the first of each run of six)."""

    ids: list[np.ndarray]  # [steps] of i64 [layers, n, k]
    xs: list[torch.Tensor]
    weights: list[torch.Tensor]
    values: dict[Eviction, Values]
    predictions: dict[Prefetch, Predictions]

    @classmethod
    def of(cls, seed: int, *, tokens: int = 1) -> "Scene":
        generator = np.random.default_rng(seed)
        ids, xs, weights = [], [], []
        perfect = np.full((STEPS, LAYERS, 2, EXPERTS), -1, np.int16)
        for step in range(STEPS):
            n = tokens if step % 6 else 5
            # Few favourites, so that there are hits.
            odds = generator.permutation(np.r_[np.full(3, 6.0), np.ones(EXPERTS - 3)])
            odds /= odds.sum()
            chosen = np.stack(
                [[generator.choice(EXPERTS, TOP_K, replace=False, p=odds) for _ in range(n)] for _ in range(LAYERS)]
            )
            ids.append(chosen)
            xs.append(torch.from_numpy(generator.standard_normal((n, HIDDEN)).astype(np.float32)))
            weights.append(torch.from_numpy(generator.random((LAYERS, n, TOP_K)).astype(np.float32)))
            for layer in range(LAYERS):
                wanted = np.unique(chosen[layer])
                perfect[step, layer, :, : len(wanted)] = wanted
        guessed = generator.permuted(np.tile(np.arange(EXPERTS, dtype=np.int16), (STEPS, LAYERS, 2, 1)), axis=3)
        guessed[..., 3:] = -1
        chances = generator.integers(0, 65536, guessed.shape).astype(np.int32)
        rows = generator.integers(0, 100, (STEPS, LAYERS, EXPERTS)).astype(np.int32)
        return cls(
            ids,
            xs,
            weights,
            {Eviction.FREQUENCY: Values(rows=rows, at_step_end=False, most=100)},
            {
                Prefetch.PERFECT: Predictions(
                    distances=(1, 2), experts=perfect, chances=np.full(perfect.shape, 65535, np.int32)
                ),
                Prefetch.LEARNED: Predictions(distances=(1, 2), experts=guessed, chances=chances),
            },
        )

    def plan(self, policy: Policy, places: int, scope: Scope = "global", *, spare: int | None = None) -> Plan:
        hottest = np.arange(places) if scope == "global" else _first_of_each(places)
        plan = plan_of(
            policy,
            layers=LAYERS,
            experts=EXPERTS,
            most_needed=EXPERTS,
            places=places,
            scope=scope,
            hottest=hottest.astype(np.int64),
            values=self.values,
            predictions=self.predictions,
        )
        if spare is None:
            return plan
        limits = plan.limits.model_copy(update={"spare": spare})
        return Plan(**{**vars(plan), "limits": limits})


def _first_of_each(places: int) -> np.ndarray:
    share = places // LAYERS
    return np.concatenate([np.arange(share) + layer * EXPERTS for layer in range(LAYERS)])


def kernel() -> Any:
    return expert_kernel(LAYOUT, "cpu")


def outputs(scene: Scene, experts: OffloadedExperts | ResidentExperts, drain: Callable[[], None]) -> list[torch.Tensor]:
    """The output of every (step, layer); each layer's input is the step's, so that one error shows once."""
    found: list[torch.Tensor] = []
    for step, (ids, x, weights) in enumerate(zip(scene.ids, scene.xs, scene.weights, strict=True)):
        experts.begin_step(step, timed=step % 6 > 0)
        found += [experts.run(layer, x, torch.from_numpy(ids[layer]), weights[layer]) for layer in range(LAYERS)]
        experts.end_step()
    drain()
    experts.close()
    return found


@cache
def scene_of(seed: int, tokens: int = 1) -> Scene:
    return Scene.of(seed, tokens=tokens)


@cache
def host_experts() -> HostExperts:
    return HostExperts.random(LAYOUT, LAYERS, EXPERTS, seed=1, device=torch.device("cpu"))


@cache
def resident_outputs(scene: Scene) -> list[torch.Tensor]:
    host = host_experts()
    return outputs(scene, ResidentExperts(host, ImmediateQueue(), one_by_one(kernel())), lambda: None)


def offloaded(
    scene: Scene,
    plan: Plan,
    host: HostExperts,
    queue: Any,
    copier: Any,
    *,
    worker: HostWorker | None = None,
    **options: Any,
) -> OffloadedExperts:
    return OffloadedExperts(
        plan,
        host,
        queue,
        copier,
        one_by_one(kernel()),
        ArrayForesight(LAYERS, plan.values, plan.predictions),
        worker=worker,
        chunk_bytes=100,
        **options,
    )
