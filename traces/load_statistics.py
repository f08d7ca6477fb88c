"""What recorded expert loads hold, and how skewed they are.

``load_entropy`` and ``hottest_over_mean`` are those of ``traces.statistics``, of the loads summed over steps.
``step_hottest_over_mean`` is the mean over steps of the hottest expert's load over the mean of that step: what a
balancer that reacts at every step would face. Beside each stands its null, of as many tokens that choose top-k experts
independently and uniformly (``traces.statistics.load_nulls``), where the tokens are known: counts are whole, and top-k
is recorded and divides their sum. No figure about single tokens can be had from loads.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from catalog.config import StrictModel
from traces.files import bytes_at
from traces.load import ExpertLoad, LoadMetadata
from traces.statistics.load_nulls import uniform_hottest_over_mean, uniform_load_entropy

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
        uniform_load_entropy, uniform_hottest_over_mean, uniform_step_hottest_over_mean: the nulls; ``None`` where it is
            not known of how many tokens the counts are.
    """

    load_entropy: float | None
    hottest_over_mean: float
    step_hottest_over_mean: float
    idle_experts: float
    uniform_load_entropy: float | None
    uniform_hottest_over_mean: float | None
    uniform_step_hottest_over_mean: float | None


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
    overall = LayerLoad.model_validate({name: _mean(layers, name) for name in LayerLoad.model_fields})
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


def _mean(layers: tuple[LayerLoad, ...], name: str) -> float | None:
    """The mean of a figure over the layers that have it; ``None`` without one."""
    values = [value for layer in layers if (value := getattr(layer, name)) is not None]
    return float(np.mean(values)) if values else None


def _tokens(counts: npt.NDArray[np.float64], top_k: int | None) -> int | None:
    """Tokens whose choices ``counts [experts]`` are; ``None`` where that is not known."""
    if top_k is None or (counts != np.floor(counts)).any():
        return None
    tokens, rest = divmod(int(counts.sum()), top_k)
    return tokens if not rest and counts.max() <= tokens else None


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
        **_nulls(load, steps),
    )


def _nulls(load: ExpertLoad, steps: npt.NDArray[np.float64]) -> dict[str, float | None]:
    """The nulls of a layer whose loads are ``steps [steps, experts]``, none of them empty."""
    experts, top_k = load.experts, load.metadata.top_k
    of_step = [_tokens(counts, top_k) for counts in steps]
    if top_k is None or any(tokens is None for tokens in of_step):
        return dict.fromkeys(
            ("uniform_load_entropy", "uniform_hottest_over_mean", "uniform_step_hottest_over_mean"), None
        )
    tokens = [count for count in of_step if count is not None]
    return {
        "uniform_load_entropy": uniform_load_entropy(sum(tokens), experts, top_k),
        "uniform_hottest_over_mean": uniform_hottest_over_mean(sum(tokens), experts, top_k),
        "uniform_step_hottest_over_mean": float(
            np.mean([uniform_hottest_over_mean(count, experts, top_k) for count in tokens])
        ),
    }
