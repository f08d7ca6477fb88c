"""Describe recorded expert loads, and how skewed they are.

``load_entropy`` and ``hottest_over_mean`` are defined in ``traces.statistics``; here they describe the loads summed
over steps. ``step_hottest_over_mean`` is the mean over steps of (the hottest expert's load / the mean load of that
step): what a balancer that reacts at every step would face. Each figure has a null: its value if as many tokens chose
their top-k experts independently and uniformly (``traces.statistics.expert_load_nulls``). The number of tokens is known
if all counts are whole and the recorded top-k divides their sum. Loads give no figure about single tokens.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from catalog.config import StrictModel
from catalog.files import bytes_at
from traces.expert_load import ExpertLoad, LoadMetadata
from traces.statistics.expert_load_nulls import uniform_hottest_over_mean, uniform_load_entropy

TOKEN_LEVEL_NOTE = (
    "loads only: which experts a token chose was not recorded, so nothing token by token (overlap, recall, caches) can "
    "be had from it"
)


class LayerLoad(StrictModel):
    """Skew of one layer, or the mean over layers.

    Attributes:
        load_entropy: from 0 (one expert takes all) to 1 (all equal); ``None`` with a single expert.
        hottest_over_mean: largest load divided by the mean.
        step_hottest_over_mean: the same for each step; mean over steps in which the layer had any load.
        idle_experts: experts without any load.
        uniform_load_entropy, uniform_hottest_over_mean, uniform_step_hottest_over_mean: the nulls; ``None`` if the
            number of tokens is not known.
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
        note: what loads cannot tell.
        steps, layers, experts: the shape.
        total: sum of all counts.
        file_bytes: size of the file.
        overall: means over layers.
        by_layer: each layer's figures, in the order of ``metadata.layer_map``.
        metadata: the recording's metadata.
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


def expert_load_statistics(load: ExpertLoad, path: Path) -> LoadStatistics:
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
    """Number of tokens behind ``counts [experts]``; ``None`` if not known."""
    if top_k is None or (counts != np.floor(counts)).any():
        return None
    tokens, rest = divmod(int(counts.sum()), top_k)
    return tokens if not rest and counts.max() <= tokens else None


def _layer(load: ExpertLoad, layer: int) -> LayerLoad:
    """The figures of one layer; at least one of its experts has a load."""
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
