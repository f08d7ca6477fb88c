"""SGLang's responses with ``return_routed_experts``: JSON, an array, one response per line, or a stream's events.

The routing is int32 in base64, ``[tokens, layers, top_k]`` without its shape. It is in ``meta_info`` (of
``/generate``, or of a choice with ``return_meta_info``), or in ``sgl_ext`` (later ``sglext``) of each of the
``choices`` or, if there is only one choice, of the response. Source: SGLang's
``python/sglang/srt/state_capturer/routed_experts.py``, ``managers/tokenizer_manager.py`` and its documentation of the
OpenAI-compatible API; pull requests 12162 and 24851 (``routed_experts_start_len``), issue 20964 (prefill alone).

The rows are those of positions ``[start, prompt + completion − 1)``: the last generated token was never processed. If
nothing was generated, some versions leave out the prompt's last token nevertheless, others do not: the number of rows
shows it. ``start`` follows from the numbers of tokens (``usage`` or ``meta_info``), or is given as
``routed_experts_start_len``. A response also has the rows of tokens found in the prefix cache (``cached_tokens``), and
each of several choices has the prompt's rows: ``traces.importers.assembly.served_rows`` counts them once. The layers
and the top-k come from the model. The layers are all of the model's, with zeros in dense ones, or only its MoE layers,
whichever fits the length and the zeros.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog import load_catalog
from catalog.errors import ForestageError
from traces.importers.assembly.responses import (
    decoded_bytes,
    model_name,
    objects,
    refuse_other_server,
    short,
    whole_number,
)
from traces.importers.assembly.routed_ids import Pieces
from traces.importers.assembly.served_rows import Answer, ServedRows
from traces.importers.assembly.server_events import first_field, holds_responses, read_responses
from traces.importers.assembly.unrouted_answers import SGLANG_REMEDY
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.trace import RoutingTrace

FIELD = "routed_experts"
START = "routed_experts_start_len"
EXTENSIONS = ("sgl_ext", "sglext")

MARKS = (b'"sgl_ext"', b'"sglext"', b'"meta_info"')


@dataclass(frozen=True, eq=False)
class _Choice:
    """One choice: its ids as a flat array, and the stated position of its first row."""

    values: npt.NDArray[np.int32]
    start: int | None
    place: str


@dataclass(frozen=True, eq=False)
class _Group:
    """Choices whose numbers of tokens are stated together.

    Attributes:
        choices: the choices with routing, in order.
        texts: number of choices, with or without routing.
        prompt, completion, cached: numbers of tokens; ``prompt`` of one choice, the others of all together.
        field: the field that states them.
        place: for errors.
    """

    choices: list[_Choice]
    texts: int
    prompt: int
    completion: int
    cached: int | None
    field: str
    place: str


@dataclass
class _Told:
    """Counts for warnings: sequences without rows for some tokens, and choices without any row."""

    last_missing: int = 0
    prompt_short: int = 0
    unseen: int = 0
    unseen_tokens: int = 0
    inferred: int = 0
    unrouted: int = 0

    def tell(self, path: Path, report: Report) -> None:
        """Warn of all that was counted."""
        if self.last_missing:
            report.warn(
                f"{path}: the last token of {self.last_missing} sequences has no routing: it was generated, but never "
                "processed"
            )
        if self.prompt_short:
            report.warn(
                f"{path}: the last row of the prompt is missing in {self.prompt_short} sequences that generated "
                "nothing: the token was processed, but this version of SGLang does not return its row"
            )
        if self.unseen:
            report.warn(
                f"{path}: the first {self.unseen_tokens} tokens of {self.unseen} sequences have no rows"
                + (f" ({START})" if not self.inferred else "")
                + ": positions begin after them"
            )
        if self.inferred:
            report.warn(
                f"{path}: of {self.inferred} of these sequences no {START} says so, but the number of rows alone; had "
                "others than the first been lost, their positions would be wrong"
            )
        if self.unrouted:
            report.warn(f"{path}: {self.unrouted} choices have no {FIELD} (aborted, or not asked for): left out")


def sniff(path: Path, start: bytes) -> bool:
    """JSON or a stream's events with the routing's name and SGLang's fields before it; or a folder of such files."""
    if path.is_dir():
        return holds_responses(path, sniff)
    found = first_field(path, start, (*MARKS, b'"routed_experts"'))
    if found not in MARKS:
        return False
    return b'"routed_experts"' in start or first_field(path, start, (b'"routed_experts"',)) is not None


def read(path: Path, options: ImportOptions, report: Report) -> RoutingTrace:
    """The routing of every choice of every response.

    Raises:
        ForestageError: if a response is not such an object, the bytes fit no shape of the model, or the model is not
            known.
    """
    rows = ServedRows(path, options, dataset="SGLang")
    told = _Told()
    name: str | None = None
    shape: tuple[int, int] | None = None
    names: set[str | None] = set()
    for place, response in read_responses(path, sniff, report):
        refuse_other_server(response, "SGLang", place)
        stated = model_name(response, place)
        if names - {stated}:
            raise ForestageError(f"{place}: model: {short(stated)}, but {short(name)} before; import models one by one")
        name = stated
        names.add(name)
        shared = False
        for group in _groups(response, place):
            told.unrouted += group.texts - len(group.choices)
            if not group.choices:
                continue
            shape = shape or _shape(path, options, name, group)
            for answer in _answers(group, shape, told, shared=shared):
                rows.append(answer)
                shared = True
    if not rows.sequences:
        raise ForestageError(f"{path}: no response has routed experts; {SGLANG_REMEDY}")
    told.tell(path, report)
    return rows.finish(report, source=f"SGLang, return_routed_experts, from {path.name}", name=name)


def _groups(response: dict[str, Any], place: str) -> list[_Group]:
    """The choices of a response, grouped with their numbers of tokens."""
    if "meta_info" in response and "choices" not in response:
        return [_own_group(response["meta_info"], place)]
    choices = objects(response.get("choices"), "choices", place)
    if all(isinstance(choice.get("meta_info"), dict) and FIELD in choice["meta_info"] for choice in choices):
        return [_own_group(choice["meta_info"], f"{place}, choice {number}") for number, choice in enumerate(choices)]
    given = []
    for number, choice in enumerate(choices):
        where = f"{place}, choice {number}"
        holder = _extension(choice, where)
        if holder is None and len(choices) == 1:
            holder = _extension(response, place)
        made = _choice(holder, where)
        if made is not None:
            given.append(made)
    if not given:
        return [_unrouted(len(choices), place)]
    usage = response.get("usage")
    if not isinstance(usage, dict):
        raise ForestageError(
            f"{place}: usage: missing; the numbers of tokens tell which positions the routing is of (a stream has it "
            "with stream_options.include_usage)"
        )
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return [
        _Group(
            given,
            len(choices),
            whole_number(usage.get("prompt_tokens"), "usage.prompt_tokens", place),
            whole_number(usage.get("completion_tokens"), "usage.completion_tokens", place),
            None if cached is None else whole_number(cached, "usage.prompt_tokens_details.cached_tokens", place),
            "usage",
            place,
        )
    ]


def _own_group(meta: Any, place: str) -> _Group:
    """The group of one text that states its own numbers."""
    if not isinstance(meta, dict):
        raise ForestageError(f"{place}: meta_info: {short(meta)}; expected an object")
    made = _choice(meta, place)
    if made is None:
        return _unrouted(1, place)
    cached = meta.get("cached_tokens")
    return _Group(
        [made],
        1,
        whole_number(meta.get("prompt_tokens"), "meta_info.prompt_tokens", place),
        whole_number(meta.get("completion_tokens"), "meta_info.completion_tokens", place),
        None if cached is None else whole_number(cached, "meta_info.cached_tokens", place),
        "meta_info",
        place,
    )


def _unrouted(texts: int, place: str) -> _Group:
    """The group of texts without routing, whose numbers of tokens do not matter."""
    return _Group([], texts, 0, 0, None, "", place)


def _extension(holder: dict[str, Any], place: str) -> dict[str, Any] | None:
    """SGLang's extension of a choice or response, if there is one."""
    for name in EXTENSIONS:
        extension = holder.get(name)
        if extension is not None:
            if not isinstance(extension, dict):
                raise ForestageError(f"{place}: {name}: {short(extension)}; expected an object")
            return extension
    return None


def _choice(holder: dict[str, Any] | None, place: str) -> _Choice | None:
    """The choice whose routing ``holder`` has; ``None`` if it has none."""
    value = None if holder is None else holder.get(FIELD)
    if holder is None or value is None:
        return None
    values = _int32(value, place)
    start = holder.get(START)
    return _Choice(values, None if start is None else whole_number(start, START, place), place)


def _int32(value: Any, place: str) -> npt.NDArray[np.int32]:
    """The numbers of a base64 text, or of the texts of a stream's events."""
    if isinstance(value, Pieces):
        parts = [_int32(part, place) for part in value.values]
        longer = all(
            len(after) >= len(before) and np.array_equal(after[: len(before)], before)
            for before, after in pairwise(parts)
        )
        return parts[-1] if longer else np.concatenate(parts)
    if not isinstance(value, str):
        raise ForestageError(f"{place}: {FIELD}: {short(value)}; expected base64 of int32")
    data = decoded_bytes(value, FIELD, place)
    if len(data) % 4:
        raise ForestageError(f"{place}: {FIELD}: {len(data)} bytes are no int32; was the response cut off?")
    return np.frombuffer(data, "<i4")


def _shape(path: Path, options: ImportOptions, name: str | None, group: _Group) -> tuple[int, int]:
    """Layers and top-k of the rows: the only candidate that fits the first response's length and empty layers."""
    called = options.model or name
    record = None if called is None else load_catalog().match_shape(called)
    dense: tuple[int, ...] = ()
    if record is not None:
        top_k = options.top_k or record.top_k
        axes = {len(options.layers)} if options.layers is not None else {record.layers, record.moe_layers}
        dense = tuple(sorted(set(range(record.layers)) - set(record.layer_map)))
    elif options.layers is not None and options.top_k is not None:
        top_k, axes = options.top_k, {len(options.layers)}
    else:
        raise ForestageError(
            f"{path}: the routing comes without its shape, and the catalogue does not know {called or 'the model'}: "
            "name a known one with --model, or any with --layers, --top-k and --experts beside it"
        )
    fitting = [(layers, top_k) for layers in sorted(axes) if _start_of(group, (layers, top_k)) is not None]
    if len(fitting) > 1 and record is not None:
        fitting = [shape for shape in fitting if _has_its_dense_layers(group, shape, record.layers, dense)]
    if len(fitting) != 1:
        sizes = " or ".join(f"{layers} layers" for layers in sorted(axes))
        raise ForestageError(
            f"{group.choices[0].place}: {FIELD}: {len(group.choices[0].values)} ids "
            + ("fit both" if fitting else "fit no start with")
            + f" {sizes} of top-{top_k} and the numbers of tokens{_numbers(group)}; see --model, --layers and --top-k"
        )
    return fitting[0]


def _has_its_dense_layers(group: _Group, shape: tuple[int, int], layers: int, dense: tuple[int, ...]) -> bool:
    """Whether rows of a shape are empty in exactly the dense layers, if these are among its layers, else nowhere."""
    ids = np.concatenate([choice.values.reshape(-1, *shape) for choice in group.choices])
    empty = (ids <= 0).all(axis=(0, 2))
    expected = np.zeros(shape[0], np.bool_)
    if shape[0] == layers:
        expected[list(dense)] = True
    return bool(np.array_equal(empty, expected))


def _numbers(group: _Group) -> str:
    """The stated numbers of tokens, for an error."""
    starts = {choice.start for choice in group.choices} - {None}
    stated = f", {START} {min(s for s in starts if s is not None)}" if starts else ""
    several = f" of {group.texts} choices" if group.texts > 1 else ""
    return f" ({group.field}: prompt_tokens {group.prompt}, completion_tokens {group.completion}{several}{stated})" + (
        "; send prompts one by one" if group.texts > 1 else ""
    )


def _answers(group: _Group, shape: tuple[int, int], told: _Told, *, shared: bool) -> list[Answer]:
    """The sequences of a group; ``shared``: an earlier one may have the same prompt."""
    found = _start_of(group, shape)
    if found is None:
        raise ForestageError(
            f"{group.choices[0].place}: {FIELD}: {len(group.choices[0].values)} ids do not fit {shape[0]} layers of "
            f"top-{shape[1]} and the numbers of tokens{_numbers(group)}"
        )
    start, short_by_one = found
    if (group.cached or 0) > group.prompt * group.texts:
        raise ForestageError(
            f"{group.place}: {group.field}: cached_tokens is {group.cached}, but prompt_tokens {group.prompt}"
        )
    cached = max(0, (group.cached or 0) - start) if group.texts == 1 else 0
    answers = []
    for number, choice in enumerate(group.choices):
        ids = choice.values.reshape(-1, *shape)
        repeats = group.prompt - start if shared or number else 0
        counted = group.cached is not None
        answers.append(Answer(ids, start, group.prompt, max(cached, repeats), cached, None, choice.place, counted))
        if len(ids):
            told.prompt_short += short_by_one
            told.unseen += start > 0
            told.unseen_tokens += start
            told.inferred += start > 0 and choice.start is None
            told.last_missing += len(ids) >= group.prompt - start and not (
                group.completion == 0 or (short_by_one and group.texts == 1)
            )
    return answers


def _start_of(group: _Group, shape: tuple[int, int]) -> tuple[int, bool] | None:
    """The first position of the choices' rows, and whether the prompt's last row is missing; ``None`` if nothing fits.

    Only the sum of the completions' lengths is known, so their rows are counted together; a start that is not stated
    can be inferred only if there is one choice.
    """
    row = shape[0] * shape[1]
    if any(len(choice.values) % row for choice in group.choices):
        return None
    stated = {choice.start for choice in group.choices} - {None}
    counts = [len(choice.values) // row for choice in group.choices]
    if len(stated) > 1 or len(counts) != group.texts:
        return None
    rows, texts = sum(counts), group.texts
    if group.completion == 0:
        for start in stated or {0}:
            for missing in (0, 1):
                if start is not None and all(count == group.prompt - start - missing for count in counts):
                    return start, bool(missing)
        return None
    beyond = texts * (group.prompt - 1) + group.completion - rows
    if beyond < 0 or beyond % texts:
        return None
    start = beyond // texts
    # A request may begin anywhere in its prompt, but not after it.
    if start > group.prompt or not stated <= {start} or min(counts) < group.prompt - 1 - start:
        return None
    return (start, False) if stated or texts == 1 or start == 0 else None


IMPORTER = Importer(
    "sglang_response",
    "SGLang's responses with return_routed_experts: JSON, JSON Lines, a stream's events, or a folder",
    sniff,
    read,
    uses=frozenset({"model", "experts", "top_k", "layers", "domain", "dataset"}),
    folders=True,
)
