"""Expert-fingerprint JSON of gpt-oss: one object per sequence, in a file or a folder of ``…_examples.json``.

``router_data[t]["token_<position>"]["layer_<l>"] = {"selected_experts": […], "selected_probs": […]}``; each item ``t``
is a forward pass: decode if it has one token, prefill if it has several. Optional: ``dataset``, ``category`` (the
domain), and ``full_text``, the text of every token of the context, whose CRC-32 becomes the token's identity. A file
has one object or an array of them.
"""

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from catalog.config import describe_validation_error
from catalog.errors import ForestageError
from traces.importers.assembly.folder_files import files_within
from traces.importers.assembly.json_records import read_records
from traces.importers.assembly.routing_rows import RoutingRows
from traces.importers.assembly.row_format import LARGEST, LARGEST_ID, NO_TOKEN
from traces.importers.assembly.row_trace import ROW_OPTIONS, trace_of_rows
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.schema import DECODE, PREFILL
from traces.trace import RoutingTrace

NAME = "gpt_oss_fingerprint"

Id = Annotated[int, Field(ge=0, le=LARGEST_ID, strict=True)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]


class Selection(BaseModel):
    """One token's choice in one layer; other keys (all scores) are ignored."""

    selected_experts: list[Id] = Field(min_length=1)
    selected_probs: list[Weight] | None = None


class FingerprintRecord(BaseModel):
    """A sequence; other keys are ignored."""

    router_data: list[dict[str, dict[str, Selection]]]
    full_text: list[str] | str | None = None
    dataset: str | None = None
    category: str | None = None


def sniff(path: Path, start: bytes) -> bool:
    """A JSON text with the format's keys near its beginning, or a folder with a file named ``…_examples.json``."""
    if path.is_dir():
        return next(files_within(path, "*_examples.json"), None) is not None
    if not start.lstrip().startswith((b"{", b"[")):
        return False
    return b'"router_data"' in start or (b'"full_text"' in start and b'"generated_only"' in start)


def read(path: Path, options: ImportOptions, report: Report) -> RoutingTrace:
    """Import ``path``, a file or a folder.

    Raises:
        ForestageError: naming the file, item and field that is not as described above, or the option that is needed.
    """
    rows = RoutingRows("position", line_name="router_data item", whole=True)
    labels: list[tuple[str | None, str | None]] = []
    for origin, record in _records(path, report):
        rows.begin(origin)
        _add(rows, len(labels), origin, record)
        labels.append((record.category, record.dataset))
    return trace_of_rows(rows, labels, options, report, origin=path, format=NAME, written_for="gpt-oss")


def _records(path: Path, report: Report) -> Iterator[tuple[str, FingerprintRecord]]:
    """The sequences of a file, or of a folder's files in the order of their names, each with its name for errors."""
    if not path.is_dir():
        for number, value in read_records(path, report):
            origin = str(path) if number == 1 else f"{path}: record {number}"
            try:
                yield origin, FingerprintRecord.model_validate(value)
            except ValidationError as error:
                raise ForestageError(f"{origin}: {describe_validation_error(FingerprintRecord, error)}") from error
        return
    files = sorted(files_within(path, "*_examples.json"))
    if not files:
        raise ForestageError(f"{path}: holds no file named ..._examples.json; name a file")
    for file, of_file in report.apart(files):
        yield from _records(file, of_file)


def _add(rows: RoutingRows, sequence: int, origin: str, record: FingerprintRecord) -> None:
    """The rows of one sequence."""
    texts = record.full_text if isinstance(record.full_text, list) else None
    if not record.router_data:
        raise ForestageError(f"{origin}: router_data: is empty")
    for item, tokens in enumerate(record.router_data):
        phase = DECODE if len(tokens) == 1 else PREFILL
        for token_key, layers in tokens.items():
            place = f"{origin}: router_data.{item}.{token_key}"
            position = _number(token_key, "token", place)
            if texts is not None and position >= len(texts):
                raise ForestageError(f"{place}: full_text has {len(texts)} tokens, so there is no position {position}")
            identity = NO_TOKEN if texts is None else _identity(texts[position])
            for layer_key, selection in layers.items():
                rows.add(
                    item,
                    sequence=sequence,
                    position=position,
                    layer=_number(layer_key, "layer", f"{place}.{layer_key}"),
                    ids=selection.selected_experts,
                    weights=selection.selected_probs,
                    phase=phase,
                    token=identity,
                )


def _number(key: str, name: str, place: str) -> int:
    """The number in a key such as ``token_17``."""
    match = re.fullmatch(rf"{name}_([0-9]{{1,10}})", key)
    if match is None or int(match[1]) > LARGEST:
        raise ForestageError(f"{place}: expected {name}_<number>, from 0 to {LARGEST}")
    return int(match[1])


def _identity(text: str) -> int:
    """CRC-32 of a token's text."""
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


IMPORTER = Importer(
    NAME,
    "gpt-oss expert-fingerprint JSON (router_data), or a folder of ..._examples.json",
    sniff,
    read,
    ROW_OPTIONS,
    folders=True,
)
