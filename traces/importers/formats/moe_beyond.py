"""MoE-Beyond's CSV of activated experts: ``Layer ID,Batch Number,Token,Activated Expert IDs``, a file or a folder.

A row is one token's choice in one layer, as a list: ``1,0,Ġthey,"[8, 30, 34, 55, 62, 59]"``; other columns are ignored.
Rows are ordered by layer, within a layer by batch number, and then by token; no column gives the tokens' positions, so
they are counted. A layer below the one before begins another prompt. Each file, prompt and batch number is a sequence,
all of it prefill (the recorder runs a prompt in one forward pass). The ids are in the gate's order, which is not
sorted. The CRC-32 of the token's text, as the tokeniser spells it, becomes its identity.
"""

import csv
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from catalog.errors import ForestageError
from catalog.json_text import parse_json
from traces.importers.assembly.routing_rows import RoutingRows
from traces.importers.assembly.row_format import LARGEST, LARGEST_ID
from traces.importers.assembly.row_trace import ROW_OPTIONS, trace_of_rows
from traces.importers.assembly.text_file import open_text
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.trace import RoutingTrace

NAME = "moe_beyond"
COLUMNS = ("Layer ID", "Batch Number", "Token", "Activated Expert IDs")
HEADING = ",".join(COLUMNS).encode()
WHOLE = re.compile(r"[0-9]{1,10}")


def sniff(path: Path, start: bytes) -> bool:
    """A text with the format's heading, or a folder with such a file."""
    if not path.is_dir():
        return start.startswith(HEADING)
    first = next(iter(sorted(path.glob("*.csv"))), None)
    return first is not None and first.is_file() and _starts_with_heading(first)


def read(path: Path, options: ImportOptions, report: Report) -> RoutingTrace:
    """Import ``path``: a file, or every ``.csv`` of a folder, in the order of the numbers in their names.

    Raises:
        ForestageError: naming the file, line and column that is not as described above, or the option that is needed.
    """
    files = sorted(path.glob("*.csv"), key=_natural) if path.is_dir() else [path]
    if not files:
        raise ForestageError(f"{path}: holds no .csv file")
    rows = RoutingRows("token", whole=True)
    sequences = 0
    for file, of_file in report.apart(files):
        rows.begin(file)
        sequences = _read_file(file, rows, sequences, of_file)
    return trace_of_rows(rows, [(None, None)] * sequences, options, report, origin=path, format=NAME, ranked=False)


@dataclass
class _Prompt:
    """Counts of rows since the layers last started again.

    Attributes:
        line: the line where the prompt begins.
        numbers: batch number → sequence.
        counts: (layer, batch number) → rows so far.
    """

    line: int
    numbers: dict[int, int] = field(default_factory=dict)
    counts: dict[tuple[int, int], int] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Number of tokens in the longest sequence."""
        return max(self.counts.values())


def _read_file(file: Path, rows: RoutingRows, sequences: int, report: Report) -> int:
    """Add the rows of ``file``; returns the number of sequences so far."""
    prompt: _Prompt | None = None
    prompts = 0
    longest = 0
    last_layer = -1
    for line, layer, batch, token, ids in _parse(file, report):
        if prompt is None or layer < last_layer:
            prompt = _Prompt(line)
            prompts += 1
        last_layer = layer
        if batch not in prompt.numbers:
            prompt.numbers[batch] = sequences
            sequences += 1
        position = prompt.counts.get((layer, batch), 0)
        prompt.counts[layer, batch] = position + 1
        longest = max(longest, position + 1)
        rows.add(
            line,
            sequence=prompt.numbers[batch],
            position=position,
            layer=layer,
            ids=ids,
            token=zlib.crc32(token.encode("utf-8", "surrogatepass")),
        )
    if prompt is None:
        raise ForestageError(f"{file}: no rows after the heading")
    if prompts > 1 and longest == 1:
        raise ForestageError(
            f"{file}: line {prompt.line}: the layers begin anew at every token; rows must stand by layer, or {prompts} "
            "prompts of one token each be in files of their own"
        )
    return sequences


def _parse(file: Path, report: Report) -> Iterator[tuple[int, int, int, str, list[int]]]:
    """Line, layer, batch number, token and ids of every row; a token may contain commas, quotes and line ends."""
    with open_text(file) as (text, raw):
        total = file.stat().st_size
        reader = csv.reader(text, strict=True)
        try:
            heading = next(reader, [])
            if tuple(heading[: len(COLUMNS)]) != COLUMNS:
                raise ForestageError(f"{file}: line 1: expected the heading '{','.join(COLUMNS)}'")
            for count, row in enumerate(reader):
                line = reader.line_num
                if count % 4096 == 0:
                    report.progress(raw.tell(), total)
                if len(row) != len(heading):
                    raise ForestageError(
                        f"{file}: line {line}: {len(row)} fields, but the heading names {len(heading)}"
                    )
                layer, batch = (_whole(value, name, file, line) for value, name in zip(row, COLUMNS[:2], strict=False))
                yield line, layer, batch, row[2], _ids(row[3], file, line)
            report.progress(total, total)
        except csv.Error as error:
            raise ForestageError(f"{file}: line {reader.line_num}: not CSV ({error}); is the file cut off?") from error


def _whole(text: str, name: str, file: Path, line: int) -> int:
    """A whole number ≥ 0."""
    if not WHOLE.fullmatch(text) or int(text) > LARGEST:
        raise ForestageError(f"{file}: line {line}: {name}: {text[:40]!r}; expected a whole number from 0 to {LARGEST}")
    return int(text)


def _ids(text: str, file: Path, line: int) -> list[int]:
    """A list such as ``[8, 26]``."""
    try:
        ids = parse_json(text)
    except (ValueError, RecursionError):
        ids = None
    if (
        not isinstance(ids, list)
        or not ids
        or not all(type(value) is int and 0 <= value <= LARGEST_ID for value in ids)
    ):
        raise ForestageError(
            f"{file}: line {line}: {COLUMNS[3]}: {text[:60]!r}; expected a list of whole numbers from 0 to {LARGEST_ID}"
        )
    return ids


def _starts_with_heading(file: Path) -> bool:
    """Whether a file begins with the format's heading."""
    with file.open("rb") as stream:
        return stream.read(len(HEADING)) == HEADING


def _natural(file: Path) -> tuple[list[int], str]:
    """Sort key by the numbers in a name, so that prompt_9 comes before prompt_10."""
    return [int(number) for number in re.findall(r"\d{1,18}", file.name)], file.name


IMPORTER = Importer(
    NAME, "MoE-Beyond CSV of activated experts, or a folder of them", sniff, read, ROW_OPTIONS, folders=True
)
