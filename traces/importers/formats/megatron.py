"""Megatron-Core's router trace: ``router_trace_rank<r>.jsonl``, one file or a folder of the ranks' files.

A line is one router call: ``{"step", "stage": "pre_dispatch", "block", "layer", "rank", "num_tokens", "topk",
"top_indices": [[…], …]}``. The decoder's calls are imported; those of another block (multi-token prediction) are
skipped. Steps ascend in a file, and a step has every layer.

The lines name no request. A step of several tokens begins a sequence (its tokens are the prefill); the steps of one
token after it decode this sequence. If a router returned a map instead of indices, the ids of every row ascend: such a
trace is not ranked.

Ranks with the same layers have different tokens (data or expert parallelism), unless one repeats another call by call;
ranks without a common layer are the stages of one pipeline, which are put together step by step.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, ValidationError

from catalog.config import describe_validation_error
from catalog.errors import ForestageError
from traces.importers.assembly.builder import TraceBuilder
from traces.importers.assembly.row_format import LARGEST, LARGEST_ID
from traces.importers.assembly.row_trace import ROW_OPTIONS, label, model_of_layers, source_of
from traces.importers.assembly.text_file import read_lines
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.schema import DECODE, PREFILL
from traces.trace import RoutingTrace

NAME = "megatron"
DECODER = "decoder"
FILE_NAME = re.compile(r"router_trace_rank(\d+)\.jsonl(?:\.gz)?")

Whole = Annotated[int, Field(ge=0, le=LARGEST, strict=True)]
Id = Annotated[int, Field(ge=0, le=LARGEST_ID, strict=True)]


class RouterCall(BaseModel):
    """A line; other keys, which refer to other files, are ignored."""

    step: Whole
    stage: Literal["pre_dispatch"]
    block: str
    layer: Whole
    rank: Whole
    num_tokens: Annotated[int, Field(ge=1, le=LARGEST, strict=True)]
    topk: Annotated[int, Field(ge=1, le=LARGEST_ID, strict=True)]
    top_indices: list[list[Id]]


@dataclass(frozen=True, eq=False)
class Step:
    """The decoder's calls of one step of one rank.

    Attributes:
        number: the step's number.
        line: the line where it begins.
        calls: layer → ids ``[tokens, top_k]``.
    """

    number: int
    line: int
    calls: dict[int, npt.NDArray[np.uint16]]

    @property
    def tokens(self) -> int:
        """Number of tokens in the step."""
        return len(next(iter(self.calls.values())))

    def same_routing(self, other: "Step | None") -> bool:
        """Whether ``other`` has the same step number and the same ids in the same layers."""
        if other is None or (self.number, set(self.calls)) != (other.number, set(other.calls)):
            return False
        return all(np.array_equal(ids, other.calls[layer]) for layer, ids in self.calls.items())


def sniff(path: Path, start: bytes) -> bool:
    """A folder with a rank's file, a text whose first object has the format's keys, or a file with a rank's name."""
    if path.is_dir():
        return bool(_rank_files(path))
    named = FILE_NAME.fullmatch(path.name) is not None
    return named or (start.lstrip().startswith(b"{") and b'"top_indices"' in start and b'"num_tokens"' in start)


def read(path: Path, options: ImportOptions, report: Report) -> RoutingTrace:
    """Import a rank's file, or a folder of them.

    Raises:
        ForestageError: naming the file, line and field that is not as described above, ranks whose layers overlap
            without being the same, or the option that is needed.
    """
    files = _rank_files(path) if path.is_dir() else [path]
    if not files:
        raise ForestageError(f"{path}: holds no router_trace_rank<r>.jsonl")
    stages = _arrange(path, files, report)
    layers, first = _axis(stages)
    top_k = next(iter(first.calls.values())).shape[1]
    model = model_of_layers(options, path, layers, top_k, report)
    builder = TraceBuilder(path, layers=len(layers), top_k=top_k)
    ascending = True
    batched = skipped = 0
    for stage_files, of_stage in report.apart(stages):
        before: Step | None = None
        for step in _merged(stage_files, of_stage):
            ids = _grid(stage_files[0], step, layers, top_k)
            ascending = ascending and bool((ids[:, :, 1:] > ids[:, :, :-1]).all())
            if before is not None:
                batched += before.tokens > 1 and step.tokens > 1
                skipped += step.number > before.number + 1
            if step.tokens > 1:
                builder.end_sequence(*label(options, NAME))
            phase = PREFILL if step.tokens > 1 else DECODE
            builder.append(ids, phase=phase, where=f"line {step.line}")
            before = step
        builder.end_sequence(*label(options, NAME))
    if skipped:
        report.warn(f"{path}: step numbers are skipped {skipped} times; tokens may be missing there")
    if batched:
        report.warn(
            f"{path}: {batched} steps of several tokens follow another such; each is taken as a prompt of its own. "
            "Steps of a batch or of training are none: neighbouring tokens are then of different requests"
        )
    return builder.finish(model, report, source=source_of(NAME, path), ranked=top_k == 1 or not ascending)


def _rank_files(folder: Path) -> list[Path]:
    """The ranks' files of a folder, by rank."""
    found = [(match, file) for file in folder.iterdir() if (match := FILE_NAME.fullmatch(file.name))]
    return [file for _, file in sorted(found, key=lambda item: (int(item[0][1]), item[1].name))]


def _arrange(origin: Path, files: Sequence[Path], report: Report) -> list[list[Path]]:
    """Files that belong together: a pipeline's stages in one list, ranks with different tokens in several."""
    silent = Report()
    firsts = [next(_steps(file, silent), None) for file in files]
    for file, first in zip(files, firsts, strict=True):
        if first is None:
            raise ForestageError(f"{file}: no call of the decoder's routers in it")
    layers = [set(first.calls) for first in firsts if first is not None]
    if all(part == layers[0] for part in layers):
        kept: list[tuple[Path, Step | None]] = []
        for file, first in zip(files, firsts, strict=True):
            twin = next((other for other, step in kept if first and first.same_routing(step)), None)
            if twin is not None and _same_files(twin, file):
                report.warn(f"{file}: repeats {twin.name} call for call (a replica); left out")
            else:
                kept.append((file, first))
        if len(kept) > 1:
            report.warn(f"{origin}: {len(kept)} ranks with the same layers are taken to hold tokens of their own")
        return [[file] for file, _ in kept]
    if len(set.union(*layers)) != sum(len(part) for part in layers):
        raise ForestageError(
            f"{origin}: ranks hold different layers, but share some; pipeline stages that count their layers anew "
            "cannot be put together: import one rank's file"
        )
    report.warn(f"{origin}: {len(files)} ranks without a common layer are taken as the stages of one pipeline")
    return [list(files)]


def _same_files(one: Path, other: Path) -> bool:
    """Whether two ranks' files hold the same routing in every step."""
    silent = Report()
    pairs = zip_longest(_steps(one, silent), _steps(other, silent))
    return all(step is not None and step.same_routing(twin) for step, twin in pairs)


def _axis(stages: Sequence[Sequence[Path]]) -> tuple[tuple[int, ...], Step]:
    """The layers, ascending, and the first step, of all stages together."""
    silent = Report()
    firsts = [next(_steps(file, silent)) for file in stages[0]]
    return tuple(sorted(layer for step in firsts for layer in step.calls)), firsts[0]


def _merged(files: Sequence[Path], report: Report) -> Iterator[Step]:
    """The steps of one rank, or of a pipeline's stages put together."""
    if len(files) == 1:
        yield from _steps(files[0], report)
        return
    silent = Report()
    readers = [_steps(files[0], report), *(_steps(file, silent) for file in files[1:])]
    for parts in zip_longest(*readers):
        first = parts[0]
        for file, part in zip(files, parts, strict=True):
            if first is None or part is None or (part.number, part.tokens) != (first.number, first.tokens):
                known = first or next(step for step in parts if step is not None)
                raise ForestageError(
                    f"{file}: lacks step {known.number} of {known.tokens} tokens, which another stage has; import one "
                    "rank's file"
                )
        assert first is not None
        calls = {layer: ids for part in parts if part is not None for layer, ids in part.calls.items()}
        yield Step(first.number, first.line, calls)


def _grid(file: Path, step: Step, layers: Sequence[int], top_k: int) -> npt.NDArray[np.int32]:
    """A step's ids ``[tokens, layers, top_k]``."""
    place = f"{file}: line {step.line}: step {step.number}"
    missing = [layer for layer in layers if layer not in step.calls]
    if missing:
        raise ForestageError(f"{place}: lacks layer {missing[0]}; if the file was cut off, remove that step's lines")
    if len(step.calls) != len(layers):
        stray = min(set(step.calls) - set(layers))
        raise ForestageError(f"{place}: layer {stray} is not in the first step; a step has every layer")
    for layer, ids in step.calls.items():
        if ids.shape[1] != top_k:
            raise ForestageError(f"{place}: layer {layer}: top-{ids.shape[1]}; the first step has top-{top_k}")
    return np.stack([step.calls[layer] for layer in layers], axis=1).astype(np.int32)


def _steps(file: Path, report: Report) -> Iterator[Step]:
    """The decoder's steps of one file, in order."""
    step: Step | None = None
    rank: int | None = None
    others = 0
    for number, line in read_lines(file, report):
        if not line.strip():
            continue
        call = _parse(file, number, line)
        place = f"{file}: line {number}"
        if rank is not None and call.rank != rank:
            raise ForestageError(f"{place}: rank: {call.rank}, but the lines before are of rank {rank}")
        rank = call.rank
        if call.block != DECODER:
            others += 1
            continue
        if step is not None and call.step < step.number:
            raise ForestageError(f"{place}: step: {call.step} after {step.number}; steps must ascend")
        if step is None or call.step > step.number:
            if step is not None:
                yield step
            step = Step(call.step, number, {})
        if call.layer in step.calls:
            raise ForestageError(f"{place}: step {call.step}, layer {call.layer}: came before; a layer is called once")
        if step.calls and step.tokens != call.num_tokens:
            raise ForestageError(
                f"{place}: num_tokens: {call.num_tokens}, but the step's other calls have {step.tokens}"
            )
        step.calls[call.layer] = np.array(call.top_indices, dtype=np.uint16)
    if others:
        report.warn(f"{file}: {others} calls outside the decoder (multi-token prediction) left out")
    if step is not None:
        yield step


def _parse(file: Path, number: int, line: str) -> RouterCall:
    """A line, with its counts checked."""
    place = f"{file}: line {number}"
    try:
        call = RouterCall.model_validate_json(line)
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            raise ForestageError(f"{place}: not valid JSON; is the file cut off?") from error
        raise ForestageError(f"{place}: {describe_validation_error(RouterCall, error)}") from error
    if len(call.top_indices) != call.num_tokens:
        raise ForestageError(f"{place}: top_indices: {len(call.top_indices)} rows, but num_tokens is {call.num_tokens}")
    for row, ids in enumerate(call.top_indices):
        if len(ids) != call.topk:
            raise ForestageError(f"{place}: top_indices.{row}: {len(ids)} ids, but topk is {call.topk}")
    return call


IMPORTER = Importer(
    NAME, "Megatron-Core router_trace_rank<r>.jsonl, or the folder of all ranks", sniff, read, ROW_OPTIONS, folders=True
)
