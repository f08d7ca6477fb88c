"""SGLang's expert-distribution recorder of early 2025: one CSV of counts per rank, ``layer_id,expert_id,count``.

A dump writes ``expert_distribution_rank<r>_timestamp<seconds>.csv`` for every rank (``dump_record`` in SGLang's
``managers/expert_distribution.py`` up to April 2025); an expert that no token chose has no row; layer indices are
the model's. Ranks with different tokens are added up; a rank with the same counts as another saw the same tokens
(tensor parallelism) and is a copy. A folder may have several dumps; each is a step, since the recorder restarts after
each.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.expert_load import ExpertLoad
from traces.importers.assembly.expert_loads import build_load
from traces.importers.assembly.table_expert_loads import CountTable, dense, known_experts, warn_of_first_expert
from traces.importers.assembly.table_source import read_table
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report

NAME = "sglang_load_csv"
HEADING = b"layer_id,expert_id,count"
COLUMNS = {"layer": "layer_id", "expert": "expert_id", "count": "count"}
FILE_NAME = re.compile(
    r"expert_distribution_rank([0-9]{1,6})_(?:timestamp)?([0-9]{1,12}(?:\.[0-9]{1,12})?)\.csv(?:\.gz)?"
)

Counts = npt.NDArray[Any]


def sniff(path: Path, start: bytes) -> bool:
    """A text whose first line is exactly the format's heading, or a folder with a rank's file."""
    if path.is_dir():
        return any(FILE_NAME.fullmatch(file.name) for file in path.iterdir())
    return start.split(b"\n", 1)[0].rstrip(b"\r") == HEADING


def read(path: Path, options: ImportOptions, report: Report) -> ExpertLoad:
    """The loads of all ranks together, one step per dump.

    Raises:
        ForestageError: naming the file and line of an invalid count, if ranks have different numbers of dumps, or if
            the model or its experts are not known.
    """
    dumps = _dumps(path, report) if path.is_dir() else [[path]]
    steps: list[list[Counts]] = [[] for _ in dumps]
    copies = 0
    files = [(ranks, file) for ranks, dump in zip(steps, dumps, strict=True) for file in dump]
    for (ranks, file), of_file in report.apart(files):
        counts = _read_file(file, of_file)
        if any(np.array_equal(counts, other) for other in ranks):
            copies += 1
        else:
            ranks.append(counts)
    if copies:
        report.warn(f"{path}: {copies} files count the same as another rank's; they are taken as copies, not added up")
    every = np.concatenate([counts for ranks in steps for counts in ranks])
    layers = sorted(set(every["layer"].tolist()))
    experts = known_experts(options, layers, int(every["expert"].max()), path)
    warn_of_first_expert(every, experts, path, report)
    total = np.zeros((len(steps), len(layers), experts))
    for step, ranks in enumerate(steps):
        for counts in ranks:
            made, own = dense(counts, experts, path)
            total[step, np.searchsorted(layers, own)] += made[0]
    return build_load(
        total, path, options, report, source="SGLang expert-distribution recorder, CSV", layer_map=tuple(layers)
    )


def _read_file(file: Path, report: Report) -> Counts:
    """The counts of one rank's dump, by layer and expert."""
    table = CountTable()
    table.add(read_table(file, COLUMNS, ",", report))
    counts = table.arrays()
    fractions = np.flatnonzero(counts["count"] != np.floor(counts["count"]))
    if len(fractions):
        row = counts[fractions[0]]
        raise ForestageError(f"{file}: line {row['line']}: count: {row['count']:g}; expected a whole number")
    counts["line"] = 0  # so that ranks compare equal whatever the lines
    return counts


def _dumps(folder: Path, report: Report) -> list[list[Path]]:
    """The files of each dump, by rank; a rank's first file belongs to the first dump, and so on."""
    ranks: dict[int, list[tuple[float, Path]]] = {}
    for file in folder.iterdir():
        match = FILE_NAME.fullmatch(file.name)
        if match is not None:
            ranks.setdefault(int(match[1]), []).append((float(match[2]), file))
    if not ranks:
        raise ForestageError(f"{folder}: holds no expert_distribution_rank<r>_timestamp<seconds>.csv")
    absent = sorted(set(range(max(ranks) + 1)) - set(ranks))
    if absent:
        report.warn(f"{folder}: no file of rank {absent[0]}: the tokens that only it counted are left out")
    ordered = [[file for _, file in sorted(files)] for _, files in sorted(ranks.items())]
    lengths = {len(files) for files in ordered}
    if len(lengths) > 1:
        raise ForestageError(
            f"{folder}: ranks have from {min(lengths)} to {max(lengths)} files each, so that dumps cannot be told "
            "apart; put the files of each dump into a folder of its own"
        )
    dumps = [list(files) for files in zip(*ordered, strict=True)]
    if len(dumps) > 1:
        report.warn(f"{folder}: every rank has {len(dumps)} files; each is taken as a dump, and a step, of its own")
    return dumps


IMPORTER = Importer(
    NAME,
    "SGLang's recorder of early 2025, CSV layer_id,expert_id,count, or the folder of all ranks (loads only)",
    sniff,
    read,
    uses=frozenset({"model", "experts", "top_k", "layers"}),
    folders=True,
)
