"""JSON Lines with one line per token and layer, as request loggers write them: ``jsonl_routes``, request variant.

A line: ``type`` (``"route"``), ``req_id`` (the sequence's number, from 0), ``token_idx`` (the position), ``layer``,
``topk_ids`` and, where the trace has weights, ``topk_weights``. A row that was not recorded has no line. A reader
notices it only if its token has other lines, and cannot notice a missing token at a sequence's end.
"""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from catalog.files import atomic_path
from catalog.progress import Progress
from traces.exporters.exporter import Exporter, ExportOptions, Source, lost_but, shape_options
from traces.exporters.rows import walk_rows
from traces.trace import RoutingTrace

NAME = "jsonl_routes"


def check(source: Source, path: Path, options: ExportOptions) -> None:
    """Refuse rows whose absence a reader would not notice.

    Raises:
        ForestageError: naming the token.
    """
    trace = source.trace
    if not trace.metadata.has_unrecorded:
        return
    first = 0
    seen = np.zeros(trace.layers, np.bool_)
    for chunk in trace.chunks():
        recorded = chunk.recorded()
        seen |= recorded.any(axis=0)
        bare = np.logical_not(recorded.any(axis=1))
        _refuse(trace, first, bare, "has no recorded row")
        ends = np.zeros(chunk.tokens, np.bool_)
        inside = trace.sequence_offsets[
            (trace.sequence_offsets > first) & (trace.sequence_offsets <= first + chunk.tokens)
        ]
        ends[inside - 1 - first] = True
        _refuse(trace, first, ends & ~recorded.all(axis=1), "ends its sequence and lacks a layer")
        first += chunk.tokens
    if not seen.all():
        layer = trace.metadata.layer_map[int(np.argmin(seen))]
        raise ForestageError(f"{trace.origin}: layer {layer} has no recorded row, which {NAME} cannot say; use table")


def _refuse(trace: RoutingTrace, first: int, tokens: npt.NDArray[np.bool_], why: str) -> None:
    """Raise if any of ``tokens`` is set."""
    if tokens.any():
        raise ForestageError(
            f"{trace.origin}: token {first + int(tokens.argmax())} {why}, which the format {NAME} cannot say; use "
            "--format table"
        )


def write(source: Source, path: Path, options: ExportOptions, progress: Progress) -> tuple[Path, ...]:
    """Write one line per recorded row."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for rows in walk_rows(source.trace, progress):
            weights = None if rows.weights is None else rows.weights.astype(np.float64).tolist()
            ids, layers = rows.ids.tolist(), rows.layer.tolist()
            sequences, positions = rows.sequence.tolist(), rows.position.tolist()
            for row in np.flatnonzero(rows.recorded).tolist():
                line = {
                    "type": "route",
                    "req_id": sequences[row],
                    "token_idx": positions[row],
                    "layer": layers[row],
                    "topk_ids": ids[row],
                }
                if weights is not None:
                    line["topk_weights"] = weights[row]
                file.write(json.dumps(line) + "\n")
    return (path,)


def lost(source: Source, path: Path, options: ExportOptions) -> tuple[str, ...]:
    """All facts but sequences, positions, layers, ids and weights."""
    return lost_but(source, "tokens", "gate_weights", "layer_map", "top_k")


def reader(source: Source, path: Path, options: ExportOptions) -> tuple[str, ...]:
    """``jsonl_routes``, given the model's name and shape."""
    return ("--format", NAME, *shape_options(source))


EXPORTER = Exporter(
    NAME, "JSON Lines, a line a token and layer (req_id)", (".jsonl",), check, write, lost, reader=reader
)
