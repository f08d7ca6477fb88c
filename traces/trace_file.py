"""The parts of a trace's safetensors file beside the tensors: the header document, label tables and checksums.

The header's ``__metadata__`` has ``format``, ``version``, ``trace`` (a JSON document: ``metadata``, ``domain_labels``,
``dataset_labels``), in version 2 ``batch`` (see ``batch_file``) and, optionally, ``checksums`` (JSON: tensor name,
``trace`` or ``batch`` → CRC-32 in hexadecimal). A sequence's label is the entry of the table that ``domain_index`` or
``dataset_index`` names.
"""

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.metadata import TraceMetadata
from traces.safetensors_file import TensorFile, crc32
from traces.schema import ARRAYS, LABELS, TraceFields

FORMAT = "forestage-trace"
VERSION = "1"

BATCH_VERSION = "2"
"""Version of a file with a batch schedule (see ``batch_file``)."""

BATCH = "batch"
"""Name of the schedule's header entry."""

BATCH_TENSORS = ("batch_step_offsets", "batch_clock", "batch_token", "batch_slot", "batch_arrival")


def parse(path: Path, file: TensorFile) -> dict[str, Any]:
    """The fields of the trace in ``file`` (``path`` in errors); shapes and contents are not checked.

    Raises:
        ForestageError: if the header or the tensors' names are not a trace's.
    """
    header = _parse_header(path, file)
    fields: dict[str, Any] = {name: file.tensors.get(name) for name in ARRAYS}
    fields |= {field: _labels(path, kind, file, header) for kind, field in LABELS.items()}
    return {**fields, "metadata": TraceMetadata.parse(header["metadata"], origin=f"{path}: metadata")}


def compose(trace: TraceFields) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """The tensors and the header's metadata of the file that holds ``trace``."""
    tensors = {name: getattr(trace, name) for name in ARRAYS}
    tensors = {name: array for name, array in tensors.items() if array is not None}
    tables: dict[str, list[str]] = {}
    for kind, field in LABELS.items():
        labels = getattr(trace, field)
        table = {label: index for index, label in enumerate(dict.fromkeys(labels))}
        tensors[f"{kind}_index"] = np.fromiter((table[label] for label in labels), "<u4", count=len(labels))
        tables[kind] = list(table)
    return tensors, describe_tensors(trace.metadata, tables, {name: crc32(array) for name, array in tensors.items()})


def describe_tensors(
    metadata: TraceMetadata, tables: Mapping[str, list[str]], checksums: Mapping[str, int]
) -> dict[str, str]:
    """The header's ``__metadata__``.

    Args:
        metadata: metadata of the trace.
        tables: kind of label → its labels, by index.
        checksums: tensor → CRC-32, in the order of ``compose``.
    """
    header: dict[str, Any] = {"metadata": metadata.model_dump(mode="json", exclude_none=True)}
    header |= {f"{kind}_labels": table for kind, table in tables.items()}
    text = json.dumps(header, ensure_ascii=False)
    stated = {name: f"{value:08x}" for name, value in checksums.items()}
    stated["trace"] = f"{zlib.crc32(text.encode()):08x}"
    return {"format": FORMAT, "version": VERSION, "trace": text, "checksums": json.dumps(stated)}


def add_batch(header: dict[str, str], tensors: Mapping[str, npt.NDArray[Any]], text: str) -> dict[str, str]:
    """A trace's ``__metadata__`` with the schedule's ``tensors`` and document ``text`` added."""
    stated = json.loads(header["checksums"]) | {name: f"{crc32(array):08x}" for name, array in tensors.items()}
    stated[BATCH] = f"{zlib.crc32(text.encode()):08x}"
    return {**header, "version": BATCH_VERSION, BATCH: text, "checksums": json.dumps(stated)}


def check_checksums(path: Path, file: TensorFile) -> None:
    """Compare the CRC-32 of every tensor and of the header document with the stated ones, if there are any.

    Raises:
        ForestageError: naming the first tensor that differs.
    """
    if "checksums" not in file.metadata:
        return
    try:
        stated = json.loads(file.metadata["checksums"])
    except (ValueError, RecursionError) as error:
        raise ForestageError(f"{path}: header: 'checksums' is not valid JSON ({error})") from error
    documents = [name for name in ("trace", BATCH) if name in file.metadata]
    if not isinstance(stated, dict) or set(stated) != {*file.tensors, *documents}:
        raise ForestageError(f"{path}: header: 'checksums' must name every tensor and 'trace', once")
    actual: Iterable[tuple[str, int]] = (
        *((name, zlib.crc32(file.metadata[name].encode())) for name in documents),
        *((name, crc32(array)) for name, array in file.tensors.items()),
    )
    for name, value in actual:
        if stated[name] != f"{value:08x}":
            raise ForestageError(f"{path}: {name}: damaged (its checksum differs); fetch or import the trace again")


def _parse_header(path: Path, file: TensorFile) -> dict[str, Any]:
    """The JSON document of the header's ``trace`` entry, with its keys and the tensors' names checked."""
    stated = file.metadata.get("format"), file.metadata.get("version")
    if stated[0] != FORMAT:
        raise ForestageError(f"{path}: header: a safetensors file, but no trace (its format is {stated[0]!r})")
    if stated[1] not in (VERSION, BATCH_VERSION):
        raise ForestageError(
            f"{path}: header: trace format version {stated[1]!r}; this program reads {VERSION} and {BATCH_VERSION}"
        )
    batched = stated[1] == BATCH_VERSION
    if batched and BATCH not in file.metadata:
        raise ForestageError(f"{path}: header: version {BATCH_VERSION}, but no entry {BATCH!r} in __metadata__")
    # A damaged name must not look like an absent optional entry: then its checksums would not be compared.
    for name in sorted(set(file.metadata) - {"format", "version", "trace", "checksums", *([BATCH] if batched else [])}):
        raise ForestageError(f"{path}: header: unknown entry {name!r} in __metadata__")
    try:
        header = json.loads(file.metadata.get("trace", ""))
    except (ValueError, RecursionError) as error:
        raise ForestageError(f"{path}: header: 'trace' is not valid JSON ({error})") from error
    expected = {"metadata", "domain_labels", "dataset_labels"}
    if not isinstance(header, dict) or set(header) != expected:
        raise ForestageError(f"{path}: header: 'trace' must hold exactly {', '.join(sorted(expected))}")
    if not isinstance(header["metadata"], dict):
        raise ForestageError(f"{path}: metadata: must be a JSON object")
    known = {*ARRAYS, *(f"{kind}_index" for kind in LABELS), *(BATCH_TENSORS if batched else ())}
    required = known - {"gate_weights", "token_hash"}
    for name in sorted(required - set(file.tensors)):
        raise ForestageError(f"{path}: {name}: missing tensor")
    for name in sorted(set(file.tensors) - known):
        raise ForestageError(f"{path}: {name}: unknown tensor; a trace holds {', '.join(sorted(known))}")
    return header


def _labels(path: Path, kind: str, file: TensorFile, header: dict[str, Any]) -> tuple[str, ...]:
    """The label of each sequence, from an index array and the header's table of labels."""
    index, table = file.tensors[f"{kind}_index"], header[f"{kind}_labels"]
    if index.dtype != np.uint32 or index.ndim != 1:
        raise ForestageError(f"{path}: {kind}_index: must be U32 [sequences]")
    if not isinstance(table, list) or not all(isinstance(label, str) for label in table):
        raise ForestageError(f"{path}: {kind}_labels: must be a list of strings")
    beyond = np.flatnonzero(index >= len(table))
    if len(beyond):
        row = int(beyond[0])
        raise ForestageError(f"{path}: {kind}_index[{row}]: {index[row]}, but there are {len(table)} labels")
    return tuple(table[i] for i in index.tolist())
