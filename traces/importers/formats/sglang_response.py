"""SGLang's responses with ``return_routed_experts``: JSON, an array, or a response a line.

Each of the ``choices`` has ``sgl_ext.routed_experts`` (of ``/generate``: ``meta_info.routed_experts``): int32 in
base64, ``[tokens, layers, top_k]``, without its shape, for the positions ``[start, length − 1)``: the last token was
never processed. The layers and the top-k come from the model; ``start`` follows from the numbers of tokens (``usage``,
or ``meta_info``), or is given as ``routed_experts_start_len``. Layers are all of the model's, dense ones zero, or its
MoE layers alone: what fits the length.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog import load_catalog
from catalog.errors import ForestageError
from traces.importers.assembly.builder import TraceBuilder
from traces.importers.assembly.json_records import read_records
from traces.importers.assembly.models import recorded_model
from traces.importers.assembly.responses import decoded_bytes, model_name, objects, short, whole_number
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.trace import DECODE, PREFILL, RoutingTrace

FIELD = "routed_experts"
START = "routed_experts_start_len"


@dataclass(frozen=True, eq=False)
class _Choice:
    """One choice: its ids in a row, and the numbers of tokens (of all choices together where there are several)."""

    values: npt.NDArray[np.int32]
    prompt: int
    completion: int
    start: int | None
    place: str


def sniff(path: Path, start: bytes) -> bool:
    """JSON that names SGLang's extension beside the field."""
    named = b'"sgl_ext"' in start or b'"meta_info"' in start
    return start.lstrip()[:1] in (b"{", b"[") and named and f'"{FIELD}"'.encode() in start


def read(path: Path, options: ImportOptions, report: Report) -> RoutingTrace:
    """The routing of every choice of every response.

    Raises:
        ForestageError: if a response is no such object, the bytes fit no shape of the model, or the model is not known.
    """
    builder: TraceBuilder | None = None
    name: str | None = None
    shape: tuple[int, int] | None = None
    sequences = 0
    for number, response in read_records(path, report):
        place = f"{path}: response {number}"
        stated = model_name(response, place)
        if number > 1 and stated != name:
            raise ForestageError(f"{place}: model: {short(stated)}, but {short(name)} before; import models one by one")
        name = stated
        choices = _choices(response, place)
        shape = shape or _shape(path, options, name, choices)
        builder = builder or TraceBuilder(path, layers=shape[0], top_k=shape[1])
        start = _start(choices, shape)
        for choice in choices:
            ids = choice.values.reshape(-1, *shape)
            position = start + np.arange(len(ids))
            builder.append(
                ids,
                position=position,
                phase=np.where(position < choice.prompt, PREFILL, DECODE),
                where=choice.place.removeprefix(f"{path}: "),
            )
            sequences += builder.is_open
            builder.end_sequence(options.domain or "unlabelled", options.dataset or "SGLang")
    if builder is None or not builder.tokens:
        raise ForestageError(f"{path}: no response has routed experts; request them with return_routed_experts")
    report.warn(
        f"{path}: the last token of {sequences} sequences has no routing: it was generated, but never processed"
    )
    model = recorded_model(
        options,
        origin=str(path),
        layers=builder.layers,
        top_k=builder.top_k,
        used_layers=builder.used_layers(),
        name=name,
    )
    return builder.finish(model, report, source=f"SGLang, return_routed_experts, from {path.name}", ranked=False)


def _choices(response: dict[str, Any], place: str) -> list[_Choice]:
    """The choices of a response with their numbers of tokens."""
    if "meta_info" in response and "choices" not in response:
        meta = response["meta_info"]
        if not isinstance(meta, dict):
            raise ForestageError(f"{place}: meta_info: {short(meta)}; expected an object")
        return [_choice(meta, meta, "meta_info", place)]
    usage = response.get("usage")
    if not isinstance(usage, dict):
        raise ForestageError(f"{place}: usage: missing; the numbers of tokens tell which positions the routing is of")
    choices = []
    for number, choice in enumerate(objects(response.get("choices"), "choices", place)):
        where = f"{place}, choice {number}"
        extension = choice.get("sgl_ext")
        if not isinstance(extension, dict):
            raise ForestageError(f"{where}: sgl_ext: missing; request the routing with return_routed_experts")
        choices.append(_choice(extension, usage, "usage", where))
    return choices


def _choice(holder: dict[str, Any], counts: dict[str, Any], field: str, place: str) -> _Choice:
    """The choice whose routing ``holder`` has and whose tokens ``counts``, found under ``field``."""
    value = holder.get(FIELD)
    if not isinstance(value, str):
        raise ForestageError(f"{place}: {FIELD}: {short(value)}; expected base64 of int32")
    data = decoded_bytes(value, FIELD, place)
    if len(data) % 4:
        raise ForestageError(f"{place}: {FIELD}: {len(data)} bytes are no int32; was the response cut off?")
    start = holder.get(START)
    return _Choice(
        np.frombuffer(data, "<i4"),
        whole_number(counts.get("prompt_tokens"), f"{field}.prompt_tokens", place),
        whole_number(counts.get("completion_tokens"), f"{field}.completion_tokens", place),
        None if start is None else whole_number(start, START, place),
        place,
    )


def _shape(path: Path, options: ImportOptions, name: str | None, choices: list[_Choice]) -> tuple[int, int]:
    """Layers and top-k of the rows: the one candidate that the first response's length fits."""
    called = options.model or name
    record = None if called is None else load_catalog().match_model(called)
    if record is not None:
        top_k = options.top_k or record.top_k
        axes = {len(options.layers)} if options.layers is not None else {record.layers, record.moe_layers}
    elif options.layers is not None and options.top_k is not None:
        top_k, axes = options.top_k, {len(options.layers)}
    else:
        raise ForestageError(
            f"{path}: the routing comes without its shape, and the catalogue does not know {called or 'the model'}: "
            "name it with --model, or import it with --layers, --top-k and --experts"
        )
    fitting = [(layers, top_k) for layers in sorted(axes) if _start_of(choices, (layers, top_k)) is not None]
    if len(fitting) != 1:
        sizes = " or ".join(f"{layers} layers" for layers in sorted(axes))
        raise ForestageError(
            f"{choices[0].place}: {FIELD}: {len(choices[0].values)} ids "
            + ("fit both" if fitting else "fit no start with")
            + f" {sizes} of top-{top_k} and the numbers of tokens; see --model, --layers and --top-k"
        )
    return fitting[0]


def _start(choices: list[_Choice], shape: tuple[int, int]) -> int:
    """The first position that the choices' rows are of."""
    start = _start_of(choices, shape)
    if start is None:
        raise ForestageError(
            f"{choices[0].place}: {FIELD}: {len(choices[0].values)} ids do not fit {shape[0]} layers of top-{shape[1]} "
            f"and {choices[0].prompt} + {choices[0].completion} tokens"
        )
    return start


def _start_of(choices: list[_Choice], shape: tuple[int, int]) -> int | None:
    """``start`` in ``[start, length − 1)``, the same for all choices, as their numbers of tokens have it; or ``None``.

    The completions' lengths are known together alone, so their rows are counted together.
    """
    row = shape[0] * shape[1]
    if any(len(choice.values) % row for choice in choices):
        return None
    rows = sum(len(choice.values) // row for choice in choices)
    first = choices[0]
    beyond = len(choices) * (first.prompt - 1) + first.completion - rows
    if beyond < 0 or beyond % len(choices):
        return None
    start = beyond // len(choices)
    # A request may begin anywhere in its prompt, not beyond.
    stated = {choice.start for choice in choices} - {None}
    return start if start <= first.prompt and stated <= {start} else None


IMPORTER = Importer(
    "sglang_response",
    "SGLang's responses with return_routed_experts, JSON or JSON Lines",
    sniff,
    read,
    uses=frozenset({"model", "experts", "top_k", "layers", "domain", "dataset"}),
)
