"""Any table of routing or of loads, whose columns the user names: CSV, other separated text, JSON Lines or Parquet.

``--column role=name`` says which column plays which role (``traces.importers.assembly.table_columns``); a table with a
``count`` is one of expert loads. A source is a file or a folder; ``--files`` tells what each file of a folder is: a
sequence, a layer (the number in its name), or a rank. Ranks may share tokens: equal rows of two ranks count once.
"""

import re
from pathlib import Path

import numpy as np

from catalog.errors import ForestageError
from traces.expert_load import ExpertLoad
from traces.importers.assembly.expert_loads import build_load
from traces.importers.assembly.expert_map import read_expert_map
from traces.importers.assembly.multi_hot import MultiHot
from traces.importers.assembly.routing_rows import RoutingRows
from traces.importers.assembly.row_trace import ROW_OPTIONS, trace_of_rows
from traces.importers.assembly.stated import check_number
from traces.importers.assembly.table_columns import check_roles
from traces.importers.assembly.table_expert_loads import CountTable, dense, known_experts, warn_of_first_expert
from traces.importers.assembly.table_facts import table_facts
from traces.importers.assembly.table_routing import (
    Choices,
    PassPlaces,
    Sequences,
    TokenPlaces,
    add_choices,
    choices,
    passes,
)
from traces.importers.assembly.table_source import read_table, table_files
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions, option_name
from traces.importers.report import Report
from traces.schema import PHASES
from traces.trace import RoutingTrace

NAME = "table"
LOAD_ROLES = frozenset({"count", "expert", "layer", "step"})
OTHER_EXPERTS = "are the ranks' tokens of their own? Then import with --files sequence"


def sniff(path: Path, start: bytes) -> bool:
    """Never: only the user can tell which column plays which role."""
    del path, start
    return False


def read(path: Path, options: ImportOptions, report: Report) -> RoutingTrace | ExpertLoad:
    """Import ``path``, a file or a folder of tables.

    Raises:
        ForestageError: naming the file, line and column that is not as described above, or the option that is needed.
    """
    columns = _columns(path, options)
    files = _files(path, options, report)
    if "count" in columns:
        return _read_loads(path, files, columns, options, report)
    return _read_routing(path, files, columns, options, report)


def _columns(path: Path, options: ImportOptions) -> dict[str, str]:
    """Role → column, checked to describe exactly one kind of table."""
    if not options.columns:
        raise ForestageError(
            f"{path}: --format table needs the columns by name: --column layer=NAME --column ids=NAME --column "
            "token=NAME (or --column count=NAME, of loads)"
        )
    columns = dict(options.columns)
    check_roles(columns, str(path))
    by_layer = options.files == "layer"
    if by_layer and "layer" in columns:
        raise ForestageError(f"{path}: --column layer: the files are layers (--files layer); leave one of the two out")
    if "count" in columns:
        stray = sorted(set(columns) - LOAD_ROLES)
        if stray:
            raise ForestageError(
                f"{path}: --column {stray[0]}: a table of loads (count) has no use for it; leave it out"
            )
        if "layer" not in columns and not by_layer:
            raise ForestageError(f"{path}: --column layer: missing; a table of loads needs the layer of every row")
        if "step" in columns and options.files == "sequence":
            raise ForestageError(f"{path}: --column step: every file is a step (--files sequence); leave it out")
        return columns
    if "step" in columns:
        raise ForestageError(f"{path}: --column step: goes with count, in a table of loads")
    if ("ids" in columns) == ("expert" in columns):
        state = "both" if "ids" in columns else "neither"
        raise ForestageError(
            f"{path}: --column ids or --column expert: {state} given; name ids for lists of experts, expert for one a "
            "row, or count for loads"
        )
    if "token" in columns and "position" in columns:
        raise ForestageError(f"{path}: --column token and --column position say the same; leave one out")
    if "expert" in columns and not {"token", "position"} & set(columns):
        raise ForestageError(
            f"{path}: --column token: missing; rows of one expert each need the token (llama.cpp's layer,expert: "
            "--format llama_cpp_csv)"
        )
    if "expert" in columns and "layer" not in columns and not by_layer:
        raise ForestageError(f"{path}: --column layer: missing; rows of one expert each need the layer")
    if "phase" in columns and options.phase is not None:
        raise ForestageError(f"{path}: --phase: a column tells the phase; leave one of the two out")
    for role in ("domain", "dataset"):
        if role in columns and getattr(options, role) is not None:
            raise ForestageError(f"{path}: --{role}: a column tells it; leave one of the two out")
    return columns


def _files(path: Path, options: ImportOptions, report: Report) -> list[Path]:
    """The tables of a source, in order."""
    if not path.is_dir():
        if options.files is not None:
            raise ForestageError(
                f"{path}: --files: says what each file of a folder is, but this is a file; leave it out"
            )
        return [path]
    if options.files is None:
        raise ForestageError(
            f"{path}: a folder; say what each of its files is with --files sequence, --files layer or --files rank"
        )
    files, others = table_files(path)
    if not files:
        raise ForestageError(f"{path}: holds no table (.csv, .tsv, .txt, .log, .jsonl, .parquet)")
    if others:
        report.warn(
            f"{path}: {others[0].name}{f' and {len(others) - 1} more' if len(others) > 1 else ''} left out: no table"
        )
    return files


def _layer_of(file: Path) -> int:
    """The layer in a file's name: the number after ``layer``, or else the only number."""
    stem = file.name.split(".", 1)[0]
    named = re.findall(r"layer[_\- ]?([0-9]{1,6})(?![0-9])", stem, re.IGNORECASE)
    numbers = named or re.findall(r"(?<![0-9])[0-9]{1,6}(?![0-9])", stem)
    if len(numbers) != 1:
        raise ForestageError(f"{file}: which layer? Name files as layer_3.csv")
    return int(numbers[0])


def _layers_of(files: list[Path], options: ImportOptions) -> list[int | None]:
    """The layer of each file, if files are layers."""
    if options.files != "layer":
        return [None] * len(files)
    layers: dict[int, Path] = {}
    for file in files:
        layer = _layer_of(file)
        if layer in layers:
            raise ForestageError(f"{file}: layer {layer} is also in {layers[layer].name}; remove one of them")
        layers[layer] = file
    return list(layers)


# Routing


def _read_routing(
    path: Path, files: list[Path], columns: dict[str, str], options: ImportOptions, report: Report
) -> RoutingTrace:
    """The routing of all files."""
    by_rank = options.files == "rank"
    absolute = "position" in columns
    rows = RoutingRows(
        "position" if absolute else "token", whole=options.files == "layer", copies=OTHER_EXPERTS if by_rank else None
    )
    sequences, hot = Sequences(), MultiHot()
    firsts: dict[int, int] = {}
    facts = table_facts(files)
    if facts is not None:  # before the rows are read, which are compared with it
        check_number("--experts", options.experts, facts.experts, str(path))
        check_number("--top-k", options.top_k, facts.top_k, str(path))
    if facts is not None and options.expert_map is not None:
        raise ForestageError(f"{path}: --expert-map: the file is an exported trace, whose ids are mapped; leave it out")
    expert_map = None if options.expert_map is None else read_expert_map(options.expert_map, options.experts)
    restarts = counted = 0
    told = PHASES[options.phase or "prefill"]
    silent_phase = False
    numbered = list(zip(files, _layers_of(files, options), strict=True))
    for done, ((file, layer), of_file) in enumerate(report.apart(numbered)):
        rows.begin(file)
        parts = choices(read_table(file, columns, options.separator, of_file), layer, hot)
        key = done if options.files == "sequence" else None
        knows_tokens = bool({"token", "position", "sequence"} & set(columns)) or options.files in ("sequence", "layer")
        is_nested = "layer" not in columns and layer is None
        if knows_tokens or is_nested:
            places = TokenPlaces(
                sequences,
                file_key=key,
                one_sequence=options.files == "sequence" and "sequence" not in columns,
                absolute=absolute,
                firsts=firsts,
            )
            for part in parts:
                sequence, position = places.place(part)
                sequences.label(part, sequence)
                add_choices(rows, part, sequence, position, told if part.phase is None else part.phase)
                silent_phase |= part.phase is None and options.phase is None
            restarts = max(restarts, places.restarts - 1)
        else:
            runs = PassPlaces(sequences, key)
            for run in passes(parts):
                number, first, phase = runs.place(run)
                counts: dict[int, int] = {}
                for part in run.parts:
                    position = _position_in_pass(part, counts, first)
                    sequence = np.full(len(part), number)
                    sequences.label(part, sequence)
                    of_pass = told if phase is None or options.phase is not None else phase
                    add_choices(rows, part, sequence, position, of_pass if part.phase is None else part.phase)
                    silent_phase |= part.phase is None and phase is None and options.phase is None
            counted += runs.passes
    _tell(path, columns, sequences, restarts, counted, silent_phase, rows.unrecorded, report)
    labels = [(found.get("domain"), found.get("dataset")) for found in sequences.labels]
    experts = hot.experts
    if expert_map is not None:
        if experts not in (None, expert_map.physical):
            raise ForestageError(
                f"{path}: a 0 or 1 for each of {experts} experts, but the map has {expert_map.physical} physical ones"
            )
        experts = expert_map.experts
    return trace_of_rows(
        rows,
        labels,
        options,
        report,
        origin=path,
        format=NAME,
        experts=experts,
        ranked=hot.ranked,
        expert_map=expert_map,
        facts=facts,
    )


def _position_in_pass(part: Choices, counts: dict[int, int], first: int) -> np.ndarray:
    """Position ``[rows]`` of a pass's choices: their index within their layer."""
    position = np.empty(len(part), dtype=np.int64)
    for row, layer in enumerate(part.layer.tolist()):
        position[row] = first + counts.get(layer, 0)
        counts[layer] = counts.get(layer, 0) + 1
    return position


def _tell(
    path: Path,
    columns: dict[str, str],
    sequences: Sequences,
    restarts: int,
    counted: int,
    silent_phase: bool,
    unrecorded: int,
    report: Report,
) -> None:
    """Warn of facts inferred from the order of the rows, and of facts that no column states."""
    if restarts > 0:
        report.warn(
            f"{path}: {columns.get('token', columns.get('position'))}: the numbers begin anew {restarts} times; each "
            "time a sequence begins (--column sequence= where a column tells)"
        )
    if counted:
        report.warn(
            f"{path}: no column tells tokens: layers begin anew {counted} times, and each time is taken as a forward "
            f"pass, in the order of the rows ({len(sequences.numbers)} sequences)"
        )
    if unrecorded:
        report.warn(f"{path}: {unrecorded} rows (token, layer) hold only -1; they count as not recorded")
    if silent_phase:
        report.warn(f"{path}: the table tells no phases; tokens count as prefill (--phase decode, or --column phase=)")


# Expert loads


def _read_loads(
    path: Path, files: list[Path], columns: dict[str, str], options: ImportOptions, report: Report
) -> ExpertLoad:
    """The loads of all files, which are separate steps or layers, or ranks that are added up."""
    for name in ("domain", "dataset", "phase", "expert_map"):
        if getattr(options, name) is not None:
            raise ForestageError(f"{path}: {option_name(name)}: a table of loads has no use for it; leave it out")
    is_listed = "expert" not in columns
    tables = [CountTable()]
    numbered = list(zip(files, _layers_of(files, options), strict=True))
    for done, ((file, layer), of_file) in enumerate(report.apart(numbered)):
        if options.files == "rank" and done:
            tables.append(CountTable())
        step = done if options.files == "sequence" else None
        tables[-1].add(read_table(file, columns, options.separator, of_file), layer=layer, step=step)
    counts = [table.arrays() for table in tables]
    kept = [
        one for index, one in enumerate(counts) if not any(np.array_equal(_bare(one), _bare(x)) for x in counts[:index])
    ]
    if len(kept) < len(counts):
        report.warn(f"{path}: {len(counts) - len(kept)} ranks counted the same as another; they are taken as copies")
    every = np.concatenate(kept)
    layers = sorted(set(every["layer"].tolist()))
    if is_listed:
        widths = {table.width for table in tables}
        if len(widths) != 1:
            raise ForestageError(
                f"{path}: the files have lists of {sorted(w or 0 for w in widths)} counts; expected one length"
            )
        experts = int(widths.pop() or 0)
    else:
        experts = known_experts(options, layers, int(every["expert"].max()), path)
        warn_of_first_expert(every, experts, path, report)
    steps = np.unique(every["step"])
    total = np.zeros((len(steps), len(layers), experts))
    if len(kept) == 1:
        total, _ = dense(kept[0], experts, path)
    else:
        dense(every[:1], experts, path)
        place = np.searchsorted(steps, every["step"]), np.searchsorted(layers, every["layer"]), every["expert"]
        np.add.at(total, place, every["count"])
    return build_load(
        total, path, options, report, source="table", layer_map=None if _counted(layers) else tuple(layers)
    )


def _counted(layers: list[int]) -> bool:
    """Whether layers run from 0 without a gap, so that they may number only a model's MoE layers."""
    return layers == list(range(len(layers)))


def _bare(counts: np.ndarray) -> np.ndarray:
    """Counts without their line numbers."""
    return counts[["step", "layer", "expert", "count"]]


IMPORTER = Importer(
    NAME,
    "any CSV, TSV, JSON Lines or Parquet table, its columns named by --column (routing, or loads)",
    sniff,
    read,
    ROW_OPTIONS | {"phase", "expert_map", "columns", "separator", "files"},
    folders=True,
)
