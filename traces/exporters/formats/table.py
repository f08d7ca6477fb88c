"""A plain table with one row per token and layer: CSV, JSON Lines or Parquet.

Columns: ``sequence`` (from 0), ``position``, ``phase`` (``prefill``, ``decode``), ``layer`` (the model's index),
``ids`` (best first where ranked) and, where the trace has them, ``weights``, then ``token_hash``, ``domain`` and
``dataset``. ``ids`` and ``weights`` are lists, in CSV as ``[3, 8]``; ``--ids wide`` gives every choice a column of its
own (``ids_0``, ``ids_1``, …, ``weights_0``, …). Weights are written as the exact value of the trace's f16. An
unrecorded row has −1 in place of every id, and weights of 0.

Parquet carries the trace's metadata as JSON under the key ``forestage`` of the file's key-value metadata.
"""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from catalog.files import atomic_path
from catalog.progress import Progress
from traces.exporters.exporter import Exporter, ExportOptions, Source, lost_but, shape_options
from traces.exporters.rows import PHASE_NAMES, Rows, walk_rows
from traces.metadata import PARQUET_KEY
from traces.trace import RoutingTrace

NAME = "table"

UNRECORDED = -1
"""Stands in place of every id of an unrecorded row."""

LINE_BREAKS = frozenset("\r\n\0")

Columns = dict[str, list[Any]]
"""Column name → values of some rows, in the columns' order; a cell may be a list."""


def check(source: Source, path: Path, options: ExportOptions) -> None:
    """Refuse a trace without any recorded row: no table could show how many experts a token uses.

    Raises:
        ForestageError: naming the trace, or a label that CSV readers would take for several lines.
    """
    trace = source.trace
    if path.suffix == ".csv":
        broken = next((label for label in (*trace.domains, *trace.datasets) if set(label) & LINE_BREAKS), None)
        if broken is not None:
            raise ForestageError(
                f"{trace.origin}: the label {broken!r} has a line break, which many readers of CSV do not take; write "
                ".jsonl or .parquet"
            )
    if trace.metadata.has_unrecorded and not any(chunk.recorded().any() for chunk in trace.chunks()):
        raise ForestageError(f"{trace.origin}: no row was recorded; there is nothing to write")


def write(source: Source, path: Path, options: ExportOptions, progress: Progress) -> tuple[Path, ...]:
    """Write the format that the file name's ending selects."""
    trace, wide = source.trace, options.ids == "wide"
    open_table = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[path.suffix]
    with atomic_path(path) as temporary, open_table(temporary, trace, wide) as append:
        for rows in walk_rows(trace, progress):
            append(columns(trace, rows, wide=wide))
    return (path,)


def columns(trace: RoutingTrace, rows: Rows, *, wide: bool) -> Columns:
    """``rows`` as columns."""
    sequence = rows.sequence.tolist()
    values: Columns = {
        "sequence": sequence,
        "position": rows.position.tolist(),
        "phase": [PHASE_NAMES[phase] for phase in rows.phase.tolist()],
        "layer": rows.layer.tolist(),
    }
    ids = np.where(rows.recorded[:, None], rows.ids.astype(np.int32), UNRECORDED)
    values |= _cells("ids", ids, wide=wide)
    if rows.weights is not None:
        values |= _cells("weights", rows.weights.astype(np.float64), wide=wide)
    if rows.token_hash is not None:
        values["token_hash"] = rows.token_hash.tolist()
    values["domain"] = [trace.domains[number] for number in sequence]
    values["dataset"] = [trace.datasets[number] for number in sequence]
    return values


def column_names(trace: RoutingTrace, *, wide: bool) -> list[str]:
    """The columns of ``trace``, in order."""
    names = ["sequence", "position", "phase", "layer"]
    for field, present in (("ids", True), ("weights", trace.gate_weights is not None)):
        names += [f"{field}_{place}" for place in range(trace.top_k)] if wide else [field]
        if not present:
            del names[-(trace.top_k if wide else 1) :]
    return [*names, *(["token_hash"] if trace.token_hash is not None else []), "domain", "dataset"]


def _cells(field: str, values: npt.NDArray[Any], *, wide: bool) -> Columns:
    """``values [rows, top_k]`` as one column of lists, or as one column per choice."""
    if not wide:
        return {field: values.tolist()}
    return {f"{field}_{place}": column.tolist() for place, column in enumerate(values.T)}


Append = Callable[[Columns], None]


@contextmanager
def _csv(path: Path, trace: RoutingTrace, wide: bool) -> Iterator[Append]:
    """CSV with a header line; cells are quoted where necessary (RFC 4180, but lines end in a line feed)."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(column_names(trace, wide=wide))

        def append(values: Columns) -> None:
            cells = (_texts(column) for column in values.values())
            writer.writerows(zip(*cells, strict=True))

        yield append


def _texts(column: list[Any]) -> list[Any]:
    """CSV cells: lists as ``[3, 8]``."""
    return [json.dumps(cell) if isinstance(cell, list) else cell for cell in column]


@contextmanager
def _jsonl(path: Path, trace: RoutingTrace, wide: bool) -> Iterator[Append]:
    """JSON Lines: one object per line."""
    with path.open("w", encoding="utf-8") as file:

        def append(values: Columns) -> None:
            names = list(values)
            for cells in zip(*values.values(), strict=True):
                file.write(json.dumps(dict(zip(names, cells, strict=True)), ensure_ascii=False) + "\n")

        yield append


@contextmanager
def _parquet(path: Path, trace: RoutingTrace, wide: bool) -> Iterator[Append]:
    """Parquet with a row group per chunk; weights in single precision, which holds every f16."""
    # Imported here because it takes a quarter of a second, which no other format needs.
    import pyarrow
    import pyarrow.parquet

    number = pyarrow.int32()  # signed, for the −1 of unrecorded rows
    kinds: dict[str, Any] = {
        "sequence": pyarrow.int64(),
        "position": pyarrow.int32(),
        "phase": pyarrow.string(),
        "layer": pyarrow.int32(),
        "ids": number if wide else pyarrow.list_(number),
        "weights": pyarrow.float32() if wide else pyarrow.list_(pyarrow.float32()),
        "token_hash": pyarrow.uint32(),
        "domain": pyarrow.string(),
        "dataset": pyarrow.string(),
    }
    fields = [(name, kinds[name if name in kinds else name.split("_")[0]]) for name in column_names(trace, wide=wide)]
    facts = json.dumps(trace.metadata.model_dump(mode="json"), ensure_ascii=False)
    schema = pyarrow.schema(fields, metadata={PARQUET_KEY: facts})
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:

        def append(values: Columns) -> None:
            writer.write_table(pyarrow.table(values, schema=schema))

        yield append


def lost(source: Source, path: Path, options: ExportOptions) -> tuple[str, ...]:
    """For CSV and JSON Lines, the facts about the trace as a whole; for Parquet, only the batch."""
    kept = ("tokens", "gate_weights", "phase", "token_hash", "labels", "layer_map", "top_k")
    if path.suffix == ".parquet":
        return lost_but(
            source, *kept, "gate_weight_kind", "ranked", "model", "experts", "source", "licence", "synthetic"
        )
    return lost_but(source, *kept)


def reader(source: Source, path: Path, options: ExportOptions) -> tuple[str, ...]:
    """``table``, given each column, and the model's name and shape, which Parquet states itself."""
    trace, many = source.trace, "_*" if options.ids == "wide" else ""
    roles = {name: name for name in ("sequence", "position", "phase", "layer")} | {"ids": f"ids{many}"}
    roles |= {"weights": f"weights{many}"} if trace.gate_weights is not None else {}
    roles |= {"token_id": "token_hash"} if trace.token_hash is not None else {}
    roles |= {"domain": "domain", "dataset": "dataset"}
    columns = [word for role, name in roles.items() for word in ("--column", f"{role}={name}")]
    shape = () if path.suffix == ".parquet" else shape_options(source)
    return ("--format", NAME, *columns, *shape)


EXPORTER = Exporter(
    NAME,
    "a plain table, a row a token and layer (CSV, JSON Lines, Parquet)",
    (".csv", ".jsonl", ".parquet"),
    check,
    write,
    lost,
    uses=frozenset({"ids"}),
    reader=reader,
)
