"""Tables from files: CSV and other separated text, JSON Lines and Parquet, a batch of rows at a time.

A text's heading is the first of its lines that has every named column, so that a title or comments may stand above it;
it may begin with ``#``. Below it, empty lines and lines that begin with ``#`` are left out. The last line must be
ended, as a number that was cut off would else pass for a whole one.
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from catalog.json_text import parse_json
from traces.importers.assembly.cells import WHOLE, Cells, Place
from traces.importers.assembly.complete_lines import complete_lines
from traces.importers.assembly.table_columns import by_number, numbered, resolve
from traces.importers.assembly.text_file import read_lines, starting_bytes
from traces.importers.report import Report

PARQUET_MAGIC = b"PAR1"
SUFFIX = re.compile(r"\.(?:csv|tsv|txt|log|dat|jsonl|ndjson|json|parquet|pq)(?:\.gz)?$")
"""Of files that may be tables."""

BATCH_ROWS = 1 << 13
NAME_OF_COLUMN = r"[A-Za-z_][\w ./-]{0,40}"
"""What a line that may be a heading consists of."""

HEAD_LINES = 64
"""So many lines are looked through for the heading."""

SEPARATORS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar", " ": "space"}
"""Tried in this order, where the user names none; a space stands for any number of them."""

SPELT = {**{name: character for character, name in SEPARATORS.items()}, "\\t": "\t"}
"""Separators as they may be typed, beside the character itself."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Some rows of a table.

    Attributes:
        origin: the file.
        row_name: what ``numbers`` count: lines or rows.
        numbers: i64 ``[rows]``, where each row stands.
        cells: role → its columns.
        names: role → how its columns are called, for errors.
        columns: role → the name of each of its columns.
    """

    origin: Path
    row_name: str
    numbers: npt.NDArray[np.int64]
    cells: Mapping[str, Sequence[Cells]]
    names: Mapping[str, str]
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.numbers)

    def place(self, role: str) -> Place:
        """Names a row's cell in an error."""
        return lambda row: f"{self.origin}: {self.row_name} {self.numbers[row]}: {self.names[role]}"

    def row(self, row: int) -> str:
        """Names a row in an error."""
        return f"{self.origin}: {self.row_name} {self.numbers[row]}"


def read_table(path: Path, columns: Mapping[str, str], separator: str | None, report: Report) -> Iterator[Batch]:
    """The rows of ``path``, of the columns that play a role; progress in bytes, or rows of a Parquet file.

    Args:
        path: a file.
        columns: role → column, as ``traces.importers.assembly.table_columns.resolve`` has it.
        separator: between the columns of a text; ``None``: the one by which some line has them all.
        report: takes the warnings.

    Raises:
        ForestageError: naming the file, and line or row, of what is no such table.
    """
    start = starting_bytes(path, 1 << 12)
    if not start:
        raise ForestageError(f"{path}: empty file")
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(PARQUET_MAGIC) or text.startswith(b"{"):
        if separator is not None:
            raise ForestageError(f"{path}: --separator: the file is no separated text; leave it out")
        yield from _parquet(path, columns, report) if start.startswith(PARQUET_MAGIC) else _json(path, columns, report)
        return
    if text.startswith(b"[{"):
        raise ForestageError(f"{path}: a JSON array; write one object a line (JSON Lines: jq -c '.[]')")
    yield from _text(path, columns, separator, report)


def columns_of(path: Path, start: bytes) -> list[str] | None:
    """The columns that a file seems to have, for a hint; ``None`` where it is no table that can be read.

    Args:
        path: a file.
        start: its first bytes, unzipped.
    """
    if start.startswith(PARQUET_MAGIC):
        try:
            import pyarrow.parquet as pq

            return list(pq.read_schema(path).names)
        except Exception:  # damaged: no hint
            return None
    try:
        lines = start.decode("utf-8-sig", errors="strict" if len(start) < 4096 else "ignore").splitlines()
    except UnicodeDecodeError:
        return None
    if "\0" in "".join(lines):
        return None
    for line in (line.strip() for line in lines[:HEAD_LINES]):
        if line.startswith("{"):
            try:
                value = parse_json(line)
            except (ValueError, RecursionError):
                return None
            return list(value) if isinstance(value, dict) else None
        for separator in SEPARATORS:
            cells = _heading_cells(line, separator)
            numbers = any(re.fullmatch(r"-?[0-9.]+", cell) for cell in cells)
            named = len(cells) > 1 and all(re.fullmatch(NAME_OF_COLUMN, cell) for cell in cells)
            if named and not numbers and (separator != " " or any("_" in cell for cell in cells)):
                return cells
    return None


# Separated text


def _text(path: Path, columns: Mapping[str, str], separator: str | None, report: Report) -> Iterator[Batch]:
    """The rows of a separated text."""
    separator = SPELT.get(separator or "", separator)
    if separator is not None and (len(separator) != 1 or separator.isalnum() or separator in '"\r\n#.-_[]'):
        raise ForestageError(
            f"{path}: --separator {separator!r}: expected one character, or one of {', '.join(SEPARATORS.values())}"
        )
    lines = complete_lines(path, report)
    head = list(islice(lines, HEAD_LINES))
    found, heading, below = _find_heading(path, head, columns, separator)
    places = resolve(columns, heading, f"{path}: line {below}" if below else str(path))
    names = {role: heading[where[0]] if len(where) == 1 else columns[role] for role, where in places.items()}
    comments = _Comments()
    records = _records(path, chain(head[below:], lines), found, len(heading), comments)
    any_row = False
    while piece := list(islice(records, BATCH_ROWS)):
        any_row = True
        cells = list(zip(*(row for _, row in piece), strict=True))
        yield Batch(
            path,
            "line",
            np.array([number for number, _ in piece], dtype=np.int64),
            {role: [list(cells[place]) for place in where] for role, where in places.items()},
            names,
            {role: [heading[place] for place in where] for role, where in places.items()},
        )
    if not any_row:
        raise ForestageError(f"{path}: no rows after the heading")
    if comments.count:
        report.warn(f"{path}: {comments.count} lines below the heading begin with #; they are taken as comments")


def _find_heading(
    path: Path, head: list[tuple[int, str]], columns: Mapping[str, str], separator: str | None
) -> tuple[str, list[str], int]:
    """The separator, the columns' names, and the number of lines down to the heading (0 where there is none)."""
    candidates = [separator] if separator is not None else list(SEPARATORS)
    if by_number(columns):
        return _without_heading(path, head, columns, candidates, separator is not None)
    best: tuple[int, bool, int, ForestageError] | None = None
    for candidate in candidates:
        for number, line in head:
            heading = _heading_cells(line, candidate)
            if len(heading) < 2 and len(columns) > 1:
                continue
            try:
                resolve(columns, heading, f"{path}: line {number}")
            except ForestageError as error:
                known = sum(name in heading for name in columns.values())
                named = len(heading) > 1 and all(re.fullmatch(NAME_OF_COLUMN, name) for name in heading)
                if best is None or (known, named, len(heading)) > best[:3]:
                    best = (known, named, len(heading), error)
                continue
            _check_above(path, head[: number - 1], candidate, len(heading))
            return candidate, heading, number
    if best is not None and (best[0] or best[1]):
        raise best[3]
    wanted = ", ".join(columns.values())
    raise ForestageError(
        f"{path}: none of the first {len(head)} lines is a heading with {wanted}; name columns by their place (#1 is "
        "the first) where there is no heading, and the separator with --separator"
    )


def _check_above(path: Path, above: list[tuple[int, str]], separator: str, width: int) -> None:
    """Refuse rows that stand above the heading: of another file, put before this one."""
    for number, line in above:
        cells = _heading_cells(line, separator)
        if len(cells) == width and re.fullmatch(WHOLE, cells[0]):
            raise ForestageError(f"{path}: line {number}: a row above the heading; import it as a file of its own")


def _without_heading(
    path: Path, head: list[tuple[int, str]], columns: Mapping[str, str], candidates: list[str], is_given: bool
) -> tuple[str, list[str], int]:
    """As ``_find_heading``, of columns named by their places."""
    told = {role: numbered(name) or (0,) for role, name in columns.items()}
    last = max(place for places in told.values() for place in places) + 1
    rows = [(number, line) for number, line in head if line.strip() and not line.lstrip().startswith("#")]
    if not rows:
        raise ForestageError(f"{path}: no rows in the first {len(head)} lines")
    fitting = [
        candidate
        for candidate in candidates
        if len({len(_split(line, candidate)) for _, line in rows[1:] or rows}) == 1
        and len(_split(rows[-1][1], candidate)) >= max(last, min(2, len(told)))
    ]
    if len(fitting) > 1 and " " in fitting:  # spaces within the cells of another separator
        fitting.remove(" ")
    if len(fitting) != 1:
        named = " or ".join(SEPARATORS[candidate] for candidate in fitting if candidate in SEPARATORS)
        state = (
            f"its columns may be separated by {named}" if named else f"no separator gives {last} columns in every line"
        )
        remedy = "name the right one with --separator" if not is_given or named else "is --separator right?"
        raise ForestageError(f"{path}: {state}; {remedy}")
    first = _split(rows[0][1], fitting[0])
    whole = {role: places[0] for role, places in told.items() if role in ("layer", "token", "position", "expert")}
    is_row = [place < len(first) and re.fullmatch(WHOLE, first[place].strip()) is not None for place in whole.values()]
    width = len(_split(rows[-1][1], fitting[0]))
    if whole and not any(is_row):
        names = first if len(first) == width else [f"#{place + 1}" for place in range(width)]
        return fitting[0], names, rows[0][0]
    return fitting[0], [f"#{place + 1}" for place in range(width)], 0


def _heading_cells(line: str, separator: str) -> list[str]:
    """A line as the names of columns."""
    bare = re.sub(r"^\s*#+\s*", "", line)
    return [cell.strip().strip('"').strip() for cell in _split(bare, separator)]


def _split(line: str, separator: str) -> list[str]:
    """A line's cells."""
    if separator == " ":
        return line.split()
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return line.split(separator)


def _records(
    path: Path, lines: Iterator[tuple[int, str]], separator: str, width: int, comments: "_Comments"
) -> Iterator[tuple[int, list[str]]]:
    """The rows below the heading: the line each begins in, and its cells."""
    if separator == " ":
        for number, line in lines:
            cells = line.split()
            if cells and cells[0].startswith("#"):
                comments.count += 1
            elif cells:
                yield number, _of_width(path, number, cells, width)
        return
    at = _Lines(lines)
    reader = csv.reader(at, delimiter=separator, strict=True, skipinitialspace=True)
    while True:
        at.begin()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ForestageError(f"{path}: line {at.number}: not readable ({error}); is the file cut off?") from error
        if not cells or (len(cells) == 1 and not cells[0].strip()):
            continue
        if cells[0].lstrip().startswith("#"):
            comments.count += 1
            continue
        if len(cells) != width and at.taken == 1 and "[" in at.last and '"' not in at.last:
            cells = re.split(rf"{re.escape(separator)}(?![^\[\]]*\])", at.last)
        yield at.first, _of_width(path, at.first, cells, width)


@dataclass
class _Comments:
    """How many lines below the heading were left out."""

    count: int = 0


class _Lines:
    """Lines as the CSV reader takes them, and which it took for a row."""

    def __init__(self, lines: Iterator[tuple[int, str]]) -> None:
        self._lines = lines
        self.number = self.first = self.taken = 0
        self.last = ""

    def begin(self) -> None:
        """What is taken from here on is of the next row."""
        self.taken = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        self.number, self.last = next(self._lines)
        self.taken += 1
        if self.taken == 1:
            self.first = self.number
        return self.last + "\n"


def _of_width(path: Path, number: int, cells: list[str], width: int) -> list[str]:
    """A row of as many cells as there are columns."""
    if len(cells) == width:
        return cells
    raise ForestageError(f"{path}: line {number}: {len(cells)} cells, but the table has {width} columns")


# JSON Lines


def _json(path: Path, columns: Mapping[str, str], report: Report) -> Iterator[Batch]:
    """The rows of a file of JSON objects, one a line."""
    names: dict[str, list[str]] | None = None
    numbers: list[int] = []
    rows: list[dict[str, Any]] = []
    others = 0
    for number, line in read_lines(path, report):
        bare = line.strip()
        if not bare:
            continue
        value = _object(path, number, bare)
        if names is None:
            if not _has_any(columns, value):
                others += 1
                continue
            heading = list(value)
            places = resolve(columns, heading, f"{path}: line {number}")
            names = {role: [heading[place] for place in where] for role, where in places.items()}
        wanted = [name for several in names.values() for name in several]
        missing = [name for name in wanted if name not in value]
        if len(missing) == len(set(wanted)):
            others += 1
            continue
        if missing:
            raise ForestageError(f"{path}: line {number}: has no '{missing[0]}', but others of the named columns")
        numbers.append(number)
        rows.append(value)
        if len(rows) == BATCH_ROWS:
            yield _json_batch(path, numbers, rows, names)
            numbers, rows = [], []
    if rows and names is not None:
        yield _json_batch(path, numbers, rows, names)
    if names is None:
        raise ForestageError(f"{path}: no line has any of {', '.join(columns.values())}")
    if others:
        report.warn(f"{path}: {others} lines have none of the named columns; left out")


def _json_batch(path: Path, numbers: list[int], rows: list[dict[str, Any]], names: dict[str, list[str]]) -> Batch:
    """Objects as a batch."""
    return Batch(
        path,
        "line",
        np.array(numbers, dtype=np.int64),
        {role: [[row[name] for row in rows] for name in several] for role, several in names.items()},
        {role: several[0] if len(several) == 1 else f"{several[0]}…{several[-1]}" for role, several in names.items()},
        names,
    )


def _has_any(columns: Mapping[str, str], value: Mapping[str, Any]) -> bool:
    """Whether an object has one of the columns that are named as they are."""
    exact = [name for name in columns.values() if not re.search(r"[*,#]|\.\.", name)]
    return any(name in value for name in exact) or not exact


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    """A line as a JSON object without a key twice."""
    try:
        value = parse_json(line)
    except (ValueError, RecursionError) as error:
        raise ForestageError(f"{path}: line {number}: not valid JSON ({error}); is the file cut off?") from error
    if not isinstance(value, dict):
        raise ForestageError(f"{path}: line {number}: a JSON {type(value).__name__}; expected an object")
    return value


# Parquet


def _parquet(path: Path, columns: Mapping[str, str], report: Report) -> Iterator[Batch]:
    """The rows of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, buffer_size=1 << 20) as file:
            heading = list(file.schema_arrow.names)
            places = resolve(columns, heading, str(path))
            wanted = sorted({heading[place] for where in places.values() for place in where})
            twice = next((name for name in wanted if heading.count(name) > 1), None)
            if twice is not None:
                raise ForestageError(f"{path}: several columns are called '{twice}'; rename them")
            total, done = file.metadata.num_rows, 0
            if not total:
                raise ForestageError(f"{path}: the table has no rows")
            for part in file.iter_batches(BATCH_ROWS, columns=wanted, use_threads=False):
                if not part.num_rows:
                    continue
                yield Batch(
                    path,
                    "row",
                    np.arange(done, done + part.num_rows),
                    {role: [part.column(heading[p]) for p in where] for role, where in places.items()},
                    {role: heading[w[0]] if len(w) == 1 else columns[role] for role, w in places.items()},
                    {role: [heading[place] for place in where] for role, where in places.items()},
                )
                done += part.num_rows
                report.progress(done, total)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ForestageError(f"{path}: damaged or no Parquet file ({reason}); fetch it again") from error
    if done != total:
        raise ForestageError(f"{path}: holds {done} rows, but says {total}; fetch it again")


# Folders


def table_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files of a folder that may be tables, by the numbers in their names, and those that are left out."""
    found = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith((".", "_"))]
    tables = [path for path in found if SUFFIX.search(path.name.lower())]
    return sorted(tables, key=natural), sorted(path for path in found if path not in tables)


def natural(path: Path) -> tuple[list[int], str]:
    """Order by the numbers in a name, so that part_9 comes before part_10."""
    return [int(number) for number in re.findall(r"\d{1,18}", path.name)], path.name
