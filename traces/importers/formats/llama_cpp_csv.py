"""The CSV ``layer,expert`` proposed for llama.cpp (``examples/moe-trace``): one row per expert use, no token column.

Rows are in the order in which the layers ran: in a forward pass by layer, within a layer by token, within a token the k
experts. A layer below the one before begins another pass. k is not in the file (``--top-k`` or the model gives it); a
pass has as many tokens as a layer's rows divided by k. In the last layer of a prompt, possibly only the last token was
computed.

A pass of several tokens is prefill, a pass of one token decode; ``ForwardPasses`` determines where sequences begin. The
heading may occur again (in concatenated files): it begins a sequence too. Ambiguous files are refused: a file of one
layer, rows of a layer that are not a multiple of k, passes with other layers than the first.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catalog import load_catalog
from catalog.errors import ForestageError
from traces.importers.assembly.builder import TraceBuilder
from traces.importers.assembly.complete_lines import complete_lines
from traces.importers.assembly.forward_passes import ForwardPasses
from traces.importers.assembly.row_format import LARGEST, LARGEST_ID
from traces.importers.assembly.row_trace import ROW_OPTIONS, label, model_of_layers, source_of
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.schema import DECODE, PREFILL
from traces.trace import RoutingTrace

NAME = "llama_cpp_csv"
HEADING = "layer,expert"
ROW = re.compile(r"[0-9]{1,10},[0-9]{1,10}")
CHUNK_LINES = 1 << 14

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pass:
    """A forward pass: its rows, and the line of its first row."""

    line: int
    layer: Integers
    expert: Integers


def sniff(path: Path, start: bytes) -> bool:
    """A text whose first line is exactly the format's heading."""
    del path
    return start.split(b"\n", 1)[0].rstrip(b"\r") == HEADING.encode()


def read(path: Path, options: ImportOptions, report: Report) -> RoutingTrace:
    """Import ``path``.

    Raises:
        ForestageError: naming the line where rows do not make whole tokens, or the option that is needed.
    """
    top_k = ids_a_token(options, path)
    builder: TraceBuilder | None = None
    layers = np.empty(0, np.int64)
    passes = ForwardPasses()
    ascending = True
    runs = decoded = 0
    for run in _passes(path, report):
        if run is None:
            passes.end()
            continue
        if builder is None:
            layers = np.unique(run.layer)
            if len(layers) < 2:
                raise ForestageError(f"{path}: only layer {layers[0]} is in it, so that passes cannot be told apart")
            builder = TraceBuilder(path, layers=len(layers), top_k=top_k)
        ids = _grid(path, run, layers, top_k)
        recorded = ids[(ids >= 0).all(axis=2)]
        ascending = ascending and bool((recorded[:, 1:] > recorded[:, :-1]).all())
        if passes.begins(len(ids), f"{path}: line {run.line}"):
            builder.end_sequence(*label(options, NAME))
        builder.append(ids, phase=PREFILL if len(ids) > 1 else DECODE, where=f"line {run.line}")
        runs += 1
        decoded += len(ids) == 1
    if builder is None:
        raise ForestageError(f"{path}: no rows after the heading")
    builder.end_sequence(*label(options, NAME))
    if runs > 1 and not decoded:
        report.warn(f"{path}: no pass of one token at top-k {top_k}; is that right (--top-k)?")
    model = model_of_layers(options, path, layers.tolist(), top_k, report)
    return builder.finish(model, report, source=source_of(NAME, path), ranked=top_k == 1 or not ascending)


def ids_a_token(options: ImportOptions, path: Path) -> int:
    """k, from the user or the catalogue.

    Raises:
        ForestageError: if neither gives it.
    """
    if options.top_k is not None:
        return options.top_k
    record = None if options.model is None else load_catalog().match_shape(options.model)
    if record is None:
        raise ForestageError(
            f"{path}: top-k: the file does not say how many experts a token uses; give --top-k, or name a model of the "
            "catalogue with --model"
        )
    return record.top_k


def _passes(path: Path, report: Report) -> Iterator[Pass | None]:
    """The forward passes in order; ``None`` where the heading occurs again."""
    lines = complete_lines(path, report)
    heading = next(lines, (1, ""))[1]
    if heading != HEADING:
        raise ForestageError(f"{path}: line 1: {heading[:40]!r}; expected the heading '{HEADING}'")
    pieces: list[Pass] = []
    while chunk := list(islice(lines, CHUNK_LINES)):
        for part in _split_at_headings(chunk):
            if part is None:
                yield from _joined(pieces)
                pieces = []
                yield None
                continue
            rows = _parse(path, part)
            before = pieces[-1].layer[-1] if pieces else rows.layer[0]
            cuts = np.flatnonzero(np.diff(rows.layer, prepend=before) < 0)
            for first, last in zip([0, *cuts], [*cuts, len(rows.layer)], strict=True):
                if first in cuts:
                    yield from _joined(pieces)
                    pieces = []
                if last > first:
                    pieces.append(Pass(rows.line + int(first), rows.layer[first:last], rows.expert[first:last]))
    yield from _joined(pieces)


def _split_at_headings(chunk: list[tuple[int, str]]) -> Iterator[list[tuple[int, str]] | None]:
    """The lines between headings; ``None`` for a heading."""
    part: list[tuple[int, str]] = []
    for line in chunk:
        if line[1] != HEADING:
            part.append(line)
            continue
        if part:
            yield part
        part = []
        yield None
    if part:
        yield part


def _parse(path: Path, lines: list[tuple[int, str]]) -> Pass:
    """Rows as numbers."""
    for number, text in lines:
        if not ROW.fullmatch(text):
            raise ForestageError(f"{path}: line {number}: {text[:40]!r}; expected two whole numbers, {HEADING}")
    table = np.array(",".join(text for _, text in lines).split(","), dtype=np.int64).reshape(-1, 2)
    bad = np.argwhere(table > np.array([LARGEST, LARGEST_ID]))
    if len(bad):
        row, column = (int(place) for place in bad[0])
        raise ForestageError(
            f"{path}: line {lines[row][0]}: {HEADING.split(',')[column]}: {table[row, column]}; expected at most "
            f"{(LARGEST, LARGEST_ID)[column]}"
        )
    return Pass(lines[0][0], table[:, 0], table[:, 1])


def _joined(pieces: list[Pass]) -> Iterator[Pass]:
    """Pieces of one pass put together, if there are any."""
    if pieces:
        layer, expert = (np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("layer", "expert"))
        yield Pass(pieces[0].line, layer, expert)


def _grid(path: Path, run: Pass, layers: Integers, top_k: int) -> Integers:
    """A pass's ids ``[tokens, layers, top_k]``; −1 where the last layer computed only the last token."""
    found, starts, rows = np.unique(run.layer, return_index=True, return_counts=True)
    if not np.array_equal(found, layers):
        odd = sorted(set(found.tolist()) ^ set(layers.tolist()))[0]
        state = "lacks" if odd in layers else "has"
        raise ForestageError(
            f"{path}: line {run.line}: the pass that begins here {state} layer {odd}, unlike the first; is the file "
            "cut off, or are rows missing?"
        )
    most = int(rows[:-1].max())
    tokens = most // top_k
    if most % top_k:
        layer = int(np.argmax(rows[:-1]))
        raise ForestageError(
            f"{path}: line {run.line + int(starts[layer])}: {most} rows of layer {layers[layer]}, no multiple of the "
            f"{top_k} experts of a token; is the top-k right (--top-k), or is the file cut off?"
        )
    wanted = np.full(len(layers), tokens * top_k)
    if rows[-1] == top_k:
        wanted[-1] = top_k
    bad = np.flatnonzero(rows != wanted)
    if len(bad):
        layer = int(bad[0])
        raise ForestageError(
            f"{path}: line {run.line + int(starts[layer])}: {rows[layer]} rows of layer {layers[layer]}; expected "
            f"{tokens} tokens of {top_k} (see --top-k), as in the pass's other layers; is the file cut off?"
        )
    ids = np.full((tokens, len(layers), top_k), -1, dtype=np.int64)
    for layer, (start, count) in enumerate(zip(starts.tolist(), rows.tolist(), strict=True)):
        part = run.expert[start : start + count].reshape(-1, top_k)
        ordered = np.sort(part, axis=1)
        twice = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
        if len(twice):
            token = int(twice[0])
            raise ForestageError(
                f"{path}: line {run.line + start + token * top_k}: experts {part[token].tolist()} of one token, one of "
                f"them twice; is the top-k {top_k} right (--top-k)?"
            )
        ids[tokens - len(part) :, layer] = part
    return ids


IMPORTER = Importer(NAME, "llama.cpp's proposed moe-trace CSV (layer,expert)", sniff, read, ROW_OPTIONS)
