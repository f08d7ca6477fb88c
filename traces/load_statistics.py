"""What recorded expert loads hold, and how skewed they are.

``load_entropy`` and ``hottest_over_mean`` are those of ``traces.statistics``, of the loads summed over steps.
``step_hottest_over_mean`` is the mean over steps of the hottest expert's load over the mean of that step: what a
balancer that reacts at every step would face. No figure about single tokens can be had from loads.
"""

from pathlib import Path

import numpy as np

from catalog.config import StrictModel
from traces.files import bytes_at
from traces.load import ExpertLoad, LoadMetadata

TOKEN_LEVEL_NOTE = (
    "loads only: which experts a token chose was not recorded, so nothing token by token (overlap, recall, caches) can "
    "be had from it"
)


class LayerLoad(StrictModel):
    """Skew of one layer, or the mean over layers.

    Attributes:
        load_entropy: 0 (one expert takes all) to 1 (all alike); ``None`` with a single expert.
        hottest_over_mean: largest load over the mean.
        step_hottest_over_mean: the same step by step, the mean over steps in which the layer had any load.
        idle_experts: experts without any load.
    """

    load_entropy: float | None
    hottest_over_mean: float
    step_hottest_over_mean: float
    idle_experts: float


class LoadStatistics(StrictModel):
    """Shape, provenance and skew of recorded loads.

    Attributes:
        kind: ``expert load``.
        note: what cannot be had from them.
        steps, layers, experts: the shape.
        total: sum of all counts.
        file_bytes: of the file.
        overall: means over layers.
        by_layer: in the order of ``metadata.layer_map``.
        metadata: as recorded.
    """

    kind: str = "expert load"
    note: str = TOKEN_LEVEL_NOTE
    steps: int
    layers: int
    experts: int
    total: float
    file_bytes: int
    overall: LayerLoad
    by_layer: tuple[LayerLoad, ...]
    metadata: LoadMetadata


def load_statistics(load: ExpertLoad, path: Path) -> LoadStatistics:
    """The statistics of ``load``, which was read from the file (or folder) ``path``."""
    layers = tuple(_layer(load, layer) for layer in range(load.layers))
    entropies = [layer.load_entropy for layer in layers if layer.load_entropy is not None]
    overall = LayerLoad(
        load_entropy=float(np.mean(entropies)) if entropies else None,
        hottest_over_mean=float(np.mean([layer.hottest_over_mean for layer in layers])),
        step_hottest_over_mean=float(np.mean([layer.step_hottest_over_mean for layer in layers])),
        idle_experts=float(np.mean([layer.idle_experts for layer in layers])),
    )
    return LoadStatistics(
        steps=load.steps,
        layers=load.layers,
        experts=load.experts,
        total=float(load.counts.sum()),
        file_bytes=bytes_at(path),
        overall=overall,
        by_layer=layers,
        metadata=load.metadata,
    )


def _layer(load: ExpertLoad, layer: int) -> LayerLoad:
    """The figures of one layer, some expert of which has a load."""
    steps = load.counts[:, layer]
    steps = steps[steps.sum(axis=1) > 0]
    total = steps.sum(axis=0)
    share = total[total > 0] / total.sum()
    entropy = -float(np.sum(share * np.log(share))) / float(np.log(load.experts)) if load.experts > 1 else None
    return LayerLoad(
        load_entropy=entropy,
        hottest_over_mean=float(total.max() / total.mean()),
        step_hottest_over_mean=float(np.mean(steps.max(axis=1) / steps.mean(axis=1))),
        idle_experts=float(np.count_nonzero(total == 0)),
    )
