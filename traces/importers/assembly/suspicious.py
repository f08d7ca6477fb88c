"""Signs that a recording is not what it seems, the same for every format."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from catalog import load_catalog
from traces.importers.report import Report
from traces.trace import RoutingTrace

CONSTANT_ROWS = 8
"""So many equal rows one after another are no text's routing: a layer or sequence shorter than this is not judged."""


def warn_of_trace(trace: RoutingTrace, report: Report) -> None:
    """Warn of layers and sequences whose recorded rows are all the same: dummy runs, as servers do to warm up.

    Reads the trace once, in chunks.
    """
    layers = _constant_layers(trace)
    if layers:
        named = _named([trace.metadata.layer_map[layer] for layer in layers])
        report.warn(
            f"{trace.origin}: constant rows: every token of layer {named} has the same experts; was it a dummy run?"
        )
    if len(layers) < trace.layers:
        sequences = [index for index in range(trace.sequences) if _is_constant(trace, index)]
        if sequences:
            report.warn(
                f"{trace.origin}: constant rows: all tokens of {len(sequences)} of {trace.sequences} sequences (first: "
                f"sequence {sequences[0]}) have the same experts; were they dummy runs?"
            )


def warn_of_layers(trace: RoutingTrace, report: Report) -> None:
    """Warn of MoE layers that the catalogue's model has and the recording lacks: a file, rank or end is missing."""
    record = load_catalog().match_shape(trace.metadata.model)
    absent = sorted(set(record.layer_map) - set(trace.metadata.layer_map)) if record is not None else []
    if record is not None and absent:
        report.warn(
            f"{trace.origin}: {len(absent)} of the {record.moe_layers} MoE layers of {record.name} are not in it "
            f"({_named(absent)}); was it cut off, or is a file missing?"
        )


def _named(layers: Sequence[int]) -> str:
    """Some layers by number."""
    return ", ".join(map(str, layers[:4])) + (f" and {len(layers) - 4} more" if len(layers) > 4 else "")


def _constant_layers(trace: RoutingTrace) -> list[int]:
    """Layers with at least ``CONSTANT_ROWS`` recorded rows, all of them the same."""
    first = np.full((trace.layers, trace.top_k), trace.unrecorded_id, dtype=trace.expert_ids.dtype)
    rows = np.zeros(trace.layers, dtype=np.int64)
    same = np.ones(trace.layers, dtype=np.bool_)
    for part in trace.chunks():
        recorded = part.recorded()
        for layer in np.flatnonzero(same):
            ids = part.expert_ids[recorded[:, layer], layer]
            if not len(ids):
                continue
            if not rows[layer]:
                first[layer] = ids[0]
            rows[layer] += len(ids)
            same[layer] = bool((ids == first[layer]).all())
        if not same.any():
            break
    return [int(layer) for layer in np.flatnonzero(same & (rows >= CONSTANT_ROWS))]


def _is_constant(trace: RoutingTrace, index: int) -> bool:
    """Whether all tokens of a sequence of at least ``CONSTANT_ROWS`` have the same rows."""
    tokens = trace.sequence_slice(index)
    if tokens.stop - tokens.start < CONSTANT_ROWS:
        return False
    ids: npt.NDArray[np.unsignedinteger] = trace.expert_ids[tokens.start : tokens.start + CONSTANT_ROWS]
    if not (ids == ids[0]).all() or (ids[0] == trace.unrecorded_id).all():
        return False
    return bool((trace.expert_ids[tokens] == ids[0]).all())
