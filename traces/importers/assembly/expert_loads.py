"""Make expert loads from counts, for every format that has only these."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.expert_load import ExpertLoad, LoadMetadata
from traces.importers.assembly.models import recorded_model
from traces.importers.options import ImportOptions
from traces.importers.report import Report

LARGEST_COUNT = float(1 << 53)
"""Largest count: whole numbers up to it are exact in f64, and their sums are finite."""

LOADS_ONLY = "expert loads only: which experts a token chose is not in it, so it can be described but not simulated"


def _tell_silent_layers(counts: npt.NDArray[np.float64], layer_map: list[int], origin: Path, report: Report) -> None:
    """Warn of a layer of ``counts [steps, layers, experts]`` that counts nothing in a step in which others count.

    A token passes every MoE layer, so that a layer's experts may be idle, but not a layer: its counts are missing.
    """
    counted = counts.sum(axis=2) > 0
    silent = np.argwhere(~counted & (counted.sum(axis=1) > 0)[:, None])
    if len(silent):
        step, layer = (int(place) for place in silent[0])
        report.warn(
            f"{origin}: {len(silent)} times (step, layer) nothing was counted where other layers of the step count "
            f"(first: step {step} from 0 on, layer {layer_map[layer]}): every token passes every MoE layer, so counts "
            "are missing; they are taken as 0, and figures of that layer lack them: add the rows, or leave the step out"
        )


def build_load(
    counts: npt.NDArray[Any],
    origin: Path,
    options: ImportOptions,
    report: Report,
    *,
    source: str,
    layer_map: tuple[int, ...] | None = None,
    top_k: int | None = None,
    steps_ordered: bool = True,
    relative: bool = False,
) -> ExpertLoad:
    """Loads from ``counts [steps, layers, experts]``, with a warning that they are loads; empty layers are left out.

    Args:
        counts: numbers ≥ 0.
        origin: the file or folder.
        options: the user's options.
        report: takes the warnings.
        source: the program that wrote the file.
        layer_map: the model's index of each layer, if the file states it.
        top_k: experts that a token uses, if the file states it.
        steps_ordered: whether the steps are in the order in which they ran.
        relative: the numbers are meant to be no counts, which the reader tells.

    Raises:
        ForestageError: if a count is not within 0 … ``LARGEST_COUNT``, nothing was counted, or the model is not known.
    """
    if counts.dtype.kind not in "iuf" or counts.ndim != 3 or not counts.size:
        raise ForestageError(
            f"{origin}: counts: {counts.dtype} {list(counts.shape)}; expected numbers [steps, layers, experts]"
        )
    with np.errstate(over="ignore"):  # becomes inf, which is refused
        exact = counts.astype(np.float64)
    bad = np.argwhere(~((exact >= 0) & (exact <= LARGEST_COUNT)))
    if len(bad):
        step, layer, expert = (int(i) for i in bad[0])
        raise ForestageError(
            f"{origin}: step {step}, layer {layer}, expert {expert}: {exact[step, layer, expert]:g}; "
            f"expected a number from 0 to {LARGEST_COUNT:g}"
        )
    used = np.flatnonzero(exact.sum(axis=(0, 2)) > 0).tolist()
    if layer_map is not None:  # the file states indices: keep layers with counts
        exact, layer_map = exact[:, used], tuple(layer_map[layer] for layer in used)
        used = list(range(len(used)))
    model = recorded_model(
        options,
        report,
        origin=str(origin),
        layers=exact.shape[1],
        top_k=top_k,
        used_layers=used,
        experts=counts.shape[2],
        layer_map=layer_map,
    )
    kept = [(layer, index) for layer, index in zip(model.kept_layers, model.layer_map, strict=True) if layer in used]
    report.warn(f"{origin}: {LOADS_ONLY}")
    _tell_silent_layers(exact[:, [layer for layer, _ in kept]], [index for _, index in kept], origin, report)
    if not relative and np.any(exact != np.floor(exact)):
        report.warn(f"{origin}: counts are no whole numbers: shares, or estimates; their sums are of no tokens")
    return ExpertLoad(
        counts=exact[:, [layer for layer, _ in kept]],
        metadata=LoadMetadata.parse(
            {
                "model": model.name,
                "experts": model.experts,
                "top_k": top_k if top_k is not None else options.top_k,
                "layer_map": tuple(index for _, index in kept),
                "steps_ordered": steps_ordered,
                "source": f"{source}, from {origin.name}",
                "licence": "not stated",
            },
            origin=str(origin),
        ),
        origin=str(origin),
    )
