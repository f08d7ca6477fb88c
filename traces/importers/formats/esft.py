"""ESFT's expert logs: a folder of ``expert_weights_<l>.txt``, one file per model layer, or a folder of such folders.

A line is a sample (one forward pass, all of it prefill): the ids of all its tokens, tab-separated, two tabs, and as
many weights. Line n of every file is the same sample. The files do not state how many ids a token has: ``--top-k`` or
the model gives it. A sample becomes a sequence; its domain is the folder's name (the parent's, for the folders
``rank_<r>`` of a parallel run).
"""

import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catalog import load_catalog
from catalog.errors import ForestageError
from traces.importers.assembly.builder import TraceBuilder
from traces.importers.assembly.complete_lines import complete_lines
from traces.importers.assembly.folder_files import files_within
from traces.importers.assembly.models import recorded_model
from traces.importers.assembly.row_format import LARGEST_ID
from traces.importers.assembly.row_trace import ROW_OPTIONS, label, model_of_layers, source_of
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.schema import PREFILL
from traces.trace import RoutingTrace

NAME = "esft"
WRITTEN_FOR = "DeepSeek-V2-Lite"
"""The model whose experts ESFT's scripts log (deepseek-ai/ESFT, scripts/expert)."""

FILE_NAME = re.compile(r"expert_weights_([0-9]{1,9})\.txt(?:\.gz)?")
RANK_FOLDER = re.compile(r"rank_\d+")
IDS = re.compile(r"[0-9]{1,5}(?:\t[0-9]{1,5})*")

Sample = tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]
"""The ids ``[tokens · top_k]`` and weights of one sample in one layer."""


def sniff(path: Path, start: bytes) -> bool:
    """A folder that contains a layer's file, directly or in a subfolder."""
    del start
    return any(FILE_NAME.fullmatch(file.name) for file in files_within(path, "expert_weights_*"))


def read(path: Path, options: ImportOptions, report: Report) -> RoutingTrace:
    """Import the folder ``path``.

    Raises:
        ForestageError: naming the file, line and token that is not as described above, or the option that is needed.
    """
    folders = _folders(path)
    layers = tuple(folders[0][1])
    top_k = _top_k(options, path, layers, report)
    model = model_of_layers(options, path, layers, top_k, report, written_for=WRITTEN_FOR)
    builder = TraceBuilder(path, layers=len(layers), top_k=top_k, weights=True)
    for (folder, files), of_folder in report.apart(folders):
        if tuple(files) != layers:
            raise ForestageError(f"{folder}: has the layers {list(files)}, but {folders[0][0]} has {list(layers)}")
        domain = folder.parent.name if RANK_FOLDER.fullmatch(folder.name) else folder.name
        for number, samples in _samples(list(files.values()), of_folder):
            _append(builder, list(files.values()), number, samples, top_k)
            builder.end_sequence(*label(options, NAME, domain or None))
    return builder.finish(model, report, source=source_of(NAME, path))


def _folders(path: Path) -> list[tuple[Path, dict[int, Path]]]:
    """Folders with layer files, by name, each with the file of each layer, ascending."""
    found: dict[Path, dict[int, Path]] = {}
    for file in sorted(files_within(path, "expert_weights_*")):
        match = FILE_NAME.fullmatch(file.name)
        if match is None:
            continue
        files = found.setdefault(file.parent, {})
        layer = int(match[1])
        if layer in files:
            raise ForestageError(f"{file}: layer {layer} is also in {files[layer].name}; remove one of them")
        files[layer] = file
    if not found:
        raise ForestageError(f"{path}: holds no expert_weights_<layer>.txt")
    return [(folder, dict(sorted(files.items()))) for folder, files in sorted(found.items())]


def _top_k(options: ImportOptions, path: Path, layers: tuple[int, ...], report: Report) -> int:
    """Ids per token: from the option, the named model, or the only model with so many layers."""
    if options.top_k is not None:
        return options.top_k
    model = recorded_model(
        options,
        report,
        origin=str(path),
        layers=len(layers),
        top_k=None,
        used_layers=range(len(layers)),
        layer_map=layers if options.layers is None else None,
        written_for=WRITTEN_FOR,
    )
    record = load_catalog().match_shape(model.name)
    if record is None:
        raise ForestageError(f"{path}: top-k: the files do not say how many ids a token has; give --top-k")
    return record.top_k


def _samples(files: list[Path], report: Report) -> Iterator[tuple[int, list[Sample]]]:
    """Line number, and ids and weights by layer, of every sample."""
    silent = Report()
    readers = [complete_lines(file, report if file == files[0] else silent) for file in files]
    number = 0
    for lines in zip_longest(*readers):
        number += 1
        samples = []
        for file, line in zip(files, lines, strict=True):
            if line is None:
                raise ForestageError(f"{file}: ends before line {number}, which other layers have; was it cut off?")
            samples.append(_parse(f"{file}: line {number}", line[1]))
        yield number, samples
    if not number:
        raise ForestageError(f"{files[0]}: holds no sample")


def _parse(place: str, line: str) -> Sample:
    """Ids and weights of a line."""
    parts = line.split("\t\t")
    if len(parts) != 2 or not IDS.fullmatch(parts[0]):
        raise ForestageError(f"{place}: expected ids, two tabs and weights, all tab-separated; was the file cut off?")
    ids = np.array(parts[0].split("\t"), dtype=np.int32)
    if ids.max() > LARGEST_ID:
        raise ForestageError(f"{place}: id {ids.max()}; expected 0 to {LARGEST_ID}")
    try:
        weights = np.array(parts[1].split("\t"), dtype=np.float64)
    except ValueError as error:
        raise ForestageError(f"{place}: weights: {error}") from error
    if len(weights) != len(ids):
        raise ForestageError(f"{place}: {len(weights)} weights for {len(ids)} ids; was the file cut off?")
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(bad):
        raise ForestageError(f"{place}: weight {bad[0] + 1}: {weights[bad[0]]}; must be finite and not negative")
    return ids, weights


def _append(builder: TraceBuilder, files: list[Path], number: int, samples: list[Sample], top_k: int) -> None:
    """Add one sample."""
    count = len(samples[0][0])
    for file, (ids, _) in zip(files, samples, strict=True):
        place = f"{file}: line {number}"
        if len(ids) != count:
            raise ForestageError(f"{place}: {len(ids)} ids, but {files[0].name} has {count} there")
        if count % top_k:
            raise ForestageError(f"{place}: {count} ids, which is no multiple of the top-k {top_k}; see --top-k")
        rows = np.sort(ids.reshape(-1, top_k), axis=1)
        twice = np.flatnonzero((rows[:, 1:] == rows[:, :-1]).any(axis=1))
        if len(twice):
            token = int(twice[0])
            row = ids[token * top_k : (token + 1) * top_k].tolist()
            raise ForestageError(
                f"{place}: token {token}: {row}: an expert twice; is the top-k {top_k} right (--top-k)?"
            )
    ids = np.stack([ids.reshape(-1, top_k) for ids, _ in samples], axis=1)
    weights = np.stack([weights.reshape(-1, top_k) for _, weights in samples], axis=1)
    builder.append(ids, weights=weights, phase=PREFILL, where=f"line {number}")


IMPORTER = Importer(
    NAME,
    "ESFT expert logs: a folder of expert_weights_<layer>.txt",
    sniff,
    read,
    ROW_OPTIONS,
    folders=True,
    files=False,
)
