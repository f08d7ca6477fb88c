"""Count how many tokens chose each expert."""

import numpy as np
import numpy.typing as npt

from catalog import load_catalog
from catalog.errors import ForestageError
from catalog.progress import Progress
from traces.expert_load import ExpertLoad
from traces.exporters.exporter import Source
from traces.trace import RoutingTrace

LARGEST_EXACT = float(1 << 53)


def expert_counts(source: Source, progress: Progress) -> npt.NDArray[np.float64]:
    """Counts ``[steps, layers, experts]``: those of the loads, or of a trace as one step of all its tokens.

    Raises:
        ForestageError: if a layer of a trace has no recorded row.
    """
    recording = source.recording
    return recording.counts if isinstance(recording, ExpertLoad) else trace_counts(recording, progress)[None]


def trace_counts(trace: RoutingTrace, progress: Progress) -> npt.NDArray[np.float64]:
    """Tokens of ``trace`` that chose each expert, f64 ``[layers, experts]``; unrecorded rows count nothing.

    Raises:
        ForestageError: if a layer has no recorded row.
    """
    counts = np.zeros((trace.layers, trace.experts), np.int64)
    done = 0
    for chunk in trace.chunks():
        recorded = chunk.recorded()
        for layer in range(trace.layers):
            ids = chunk.expert_ids[recorded[:, layer], layer].reshape(-1)
            counts[layer] += np.bincount(ids, minlength=trace.experts)
        done += chunk.tokens
        progress(done, trace.tokens)
    empty = np.flatnonzero(counts.sum(axis=1) == 0)
    if len(empty):
        raise ForestageError(
            f"{trace.origin}: layer {trace.metadata.layer_map[empty[0]]} has no recorded row, so no load; give a trace "
            "without that layer"
        )
    return counts.astype(np.float64)


def plain_numbers(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.int64] | npt.NDArray[np.float64]:
    """Counts as integers if all are whole; else unchanged (estimates)."""
    whole = np.all(counts == np.floor(counts)) and np.all(counts <= LARGEST_EXACT)
    return counts.astype(np.int64) if whole else counts


def whole_model(source: Source, model_layers: int | None) -> int:
    """Number of transformer layers of the source's model; all its layers with experts must be recorded.

    Args:
        source: the recording to export.
        model_layers: the number that the user gave, if any.

    Raises:
        ForestageError: if the number is not known, or the recording lacks a layer with experts.
    """
    meta = source.recording.metadata
    record = load_catalog().match_model(meta.model)
    layers = model_layers if model_layers is not None else None if record is None else record.layers
    if layers is None:
        raise ForestageError(
            f"{source.recording.origin}: the catalogue does not know how many layers {meta.model} has, dense ones "
            "included; say so with --model-layers"
        )
    if meta.layer_map[-1] >= layers:
        raise ForestageError(
            f"--model-layers: layer {meta.layer_map[-1]} is recorded, so {meta.model} has more than {layers}"
        )
    if record is not None and model_layers is None:
        lacking = sorted(set(record.layer_map) - set(meta.layer_map))
        if lacking:
            raise ForestageError(
                f"{source.recording.origin}: layer {lacking[0]} of {record.name} has experts and is not recorded; its "
                "load would read as none"
            )
    return layers
