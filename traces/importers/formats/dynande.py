"""DynaNDE's dense CSV: ``layer_id,token_id,expert_0,…,expert_<N-1>``, a file, or a folder with one file per layer.

A row is one token's choice in one layer: the score of each selected expert, 0 for the others (or 1 and 0, which are not
weights). Scores give the rank order; the number of columns gives the number of experts.

Published folders have one file per layer, all with ``layer_id`` 0; the layer is the number after ``layer`` in the
file's name, or else in its folder's. Files named ``…_stats.csv`` are left out. No column gives a token's sequence: all
tokens are taken as one sequence, in the order of ``token_id``. No column gives the phase: it is prefill unless the user
says otherwise.
"""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.importers.assembly.complete_lines import complete_lines
from traces.importers.assembly.number_table import number_table
from traces.importers.assembly.routing_rows import RoutingRows
from traces.importers.assembly.row_format import LARGEST, LARGEST_ID
from traces.importers.assembly.row_trace import ROW_OPTIONS, trace_of_rows
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.schema import PHASES
from traces.trace import RoutingTrace

NAME = "dynande"
HEADING = "layer_id,token_id,expert_0"
LAYER_NAME = re.compile(r"layer_?(\d{1,9})", re.IGNORECASE)
CHUNK_LINES = 1024

Table = npt.NDArray[np.float64]


def sniff(path: Path, start: bytes) -> bool:
    """A text with the format's heading, or a folder with such a file for a layer."""
    if not path.is_dir():
        return start.startswith(HEADING.encode())
    first = next((file for file in _csv_files(path) if _named_layer(file) is not None), None)
    return first is not None and first.is_file() and _starts_with_heading(first)


def read(path: Path, options: ImportOptions, report: Report) -> RoutingTrace:
    """Import ``path``, a file or a folder.

    Raises:
        ForestageError: naming the file, line and column that is not as described above, or the option that is needed.
    """
    files = _layer_files(path) if path.is_dir() else {None: path}
    rows = RoutingRows("token_id", whole=True)
    phase = PHASES[options.phase or "prefill"]
    tables = _Tables()
    for (layer, file), of_file in report.apart(list(files.items())):
        rows.begin(file)
        for first_line, table in tables.read(file, of_file):
            _add(rows, tables, file, first_line, table, layer, phase)
    report.warn(f"{path}: the format tells no sequences; all tokens are one, in order of token_id")
    if options.phase is None:
        report.warn(f"{path}: the format tells no phases; all tokens count as prefill (--phase decode)")
    ranked = rows.ids is not None and rows.ids.row_shape == (1,) if tables.is_mask else None
    return trace_of_rows(
        rows, [(None, None)], options, report, origin=path, format=NAME, experts=tables.experts, ranked=ranked
    )


class _Tables:
    """Facts that all files share.

    Attributes:
        experts: number of expert columns, the same in every file.
        is_mask: whether every value is 0 or 1; ``None`` before the first.
    """

    def __init__(self) -> None:
        self.experts = 0
        self.is_mask: bool | None = None

    def read(self, file: Path, report: Report) -> Iterator[tuple[int, Table]]:
        """The rows of ``file`` in pieces, each with the line of its first row."""
        lines = complete_lines(file, report)
        names = next(lines, (1, ""))[1].split(",")
        experts = len(names) - 2
        if experts < 1 or names != ["layer_id", "token_id", *(f"expert_{number}" for number in range(experts))]:
            raise ForestageError(
                f"{file}: line 1: expected the heading layer_id,token_id,expert_0,expert_1,…"
                + ("; name the experts from 0 on" if "expert_1" in names and "expert_0" not in names else "")
            )
        if self.experts and experts != self.experts:
            raise ForestageError(f"{file}: line 1: {experts} experts; the file before has {self.experts}")
        if experts > LARGEST_ID + 1:
            raise ForestageError(f"{file}: line 1: {experts} experts; at most {LARGEST_ID + 1} can be told apart")
        self.experts = experts
        while piece := list(islice(lines, CHUNK_LINES)):
            table = _parse(file, piece, names)
            values = table[:, 2:]
            if self.is_mask is None:
                self.is_mask = bool(((values == 0) | (values == 1)).all())
            stray = (
                np.flatnonzero(((values != 0) & (values != 1)).any(axis=1)) if self.is_mask else np.empty(0, np.int64)
            )
            if len(stray):
                raise ForestageError(
                    f"{file}: line {piece[stray[0]][0]}: scores, but the rows before hold only 0 and 1"
                )
            yield piece[0][0], table


def _parse(file: Path, piece: list[tuple[int, str]], names: list[str]) -> Table:
    """Lines as numbers ``[lines, names]``, checked."""
    table = number_table(file, [text for _, text in piece], names, piece[0][0])
    bad = np.argwhere(~(np.isfinite(table) & (table >= 0)))
    if not len(bad):
        bad = np.argwhere((table[:, :2] != np.floor(table[:, :2])) | (table[:, :2] > LARGEST))
    if len(bad):
        row, column = (int(place) for place in bad[0])
        kind = f"a whole number from 0 to {LARGEST}" if column < 2 else "a number ≥ 0"
        raise ForestageError(f"{file}: line {piece[row][0]}: {names[column]}: {table[row, column]:g}; expected {kind}")
    return table


def _add(
    rows: RoutingRows, tables: _Tables, file: Path, first_line: int, table: Table, layer: int | None, phase: int
) -> None:
    """Add the selected experts of every row, best first; ``layer`` overrides the column if a file has one layer."""
    scores = table[:, 2:]
    chosen = (scores != 0).sum(axis=1)
    top_k = rows.ids.row_shape[0] if rows.ids is not None else int(chosen[0])
    bad = np.flatnonzero(chosen != top_k)
    if len(bad):
        raise ForestageError(
            f"{file}: line {first_line + int(bad[0])}: {chosen[bad[0]]} experts are not 0; the rows before have "
            f"{top_k} (a score may be rounded to 0)"
        )
    if not 0 < top_k < max(tables.experts, 2):
        state = "no expert is" if not top_k else "every expert is"
        raise ForestageError(f"{file}: line {first_line}: {state} selected; expected 0 where an expert is not")
    layers = table[:, 0].astype(np.int64)
    if layer is not None:
        strange = np.flatnonzero((layers != 0) & (layers != layer))
        if len(strange):
            raise ForestageError(
                f"{file}: line {first_line + int(strange[0])}: layer_id: {layers[strange[0]]}, but the file is named "
                f"layer {layer}; import the file alone"
            )
        layers = np.full(len(table), layer)
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    rows.add_block(
        np.arange(first_line, first_line + len(table)),
        sequence=0,
        position=table[:, 1].astype(np.int64),
        layer=layers,
        ids=ids,
        weights=None if tables.is_mask else np.take_along_axis(scores, ids, axis=1),
        phase=phase,
    )


def _csv_files(folder: Path) -> list[Path]:
    """The CSV files of a folder and its subfolders, without statistics."""
    found = [*folder.glob("*.csv"), *folder.glob("*/*.csv")]
    return sorted(file for file in found if not file.name.endswith("_stats.csv"))


def _named_layer(file: Path) -> int | None:
    """The layer in a file's name, or else in its folder's."""
    match = LAYER_NAME.search(file.name) or LAYER_NAME.search(file.parent.name)
    return None if match is None else int(match[1])


def _layer_files(folder: Path) -> dict[int | None, Path]:
    """The file of each layer of a folder, ascending."""
    files: dict[int, Path] = {}
    for file in _csv_files(folder):
        layer = _named_layer(file)
        if layer is None:
            raise ForestageError(
                f"{file}: neither the file nor its folder is named by a layer (layer_3); name the file"
            )
        if layer in files:
            raise ForestageError(f"{file}: layer {layer} is also in {files[layer]}; name the folder of one batch")
        files[layer] = file
    if not files:
        raise ForestageError(f"{folder}: holds no .csv file of a layer")
    return dict(sorted(files.items()))


def _starts_with_heading(file: Path) -> bool:
    """Whether a file begins with the format's heading."""
    with file.open("rb") as stream:
        return stream.read(len(HEADING)) == HEADING.encode()


IMPORTER = Importer(
    NAME,
    "DynaNDE dense CSV (layer_id,token_id,expert_0,...), or a folder of one file a layer",
    sniff,
    read,
    ROW_OPTIONS | {"phase"},
    folders=True,
)
