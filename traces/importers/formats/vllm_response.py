"""vLLM's responses with ``--enable-return-routed-experts``: JSON, an array, or a response a line.

A response has ``prompt_routed_experts [prompt tokens, layers, top_k]`` and each of its ``choices`` ``routed_experts
[generated tokens, layers, top_k]``, as nested lists or as a NumPy file (int16 or any other width) in base64. Later
versions leave the first out and give the prompt's rows at the start of ``routed_experts``; which of the two it is, the
``usage`` tells. The last generated token was never processed and has no row (or one of zeros).

Versions differ on the layer axis: all of the model's layers, dense ones zero, or its MoE layers alone; the model tells,
or where it is not in the catalogue, the layers that hold anything. A choice is a sequence; the prompt's rows belong to
the first choice, further ones begin after the prompt. ``prompt_token_ids`` and ``token_ids``, where given, become the
tokens' identity.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.importers.assembly.builder import TraceBuilder
from traces.importers.assembly.json_records import read_records
from traces.importers.assembly.models import recorded_model
from traces.importers.assembly.responses import (
    decoded_array,
    model_name,
    nested_ids,
    objects,
    short,
    token_ids,
    whole_number,
)
from traces.importers.assembly.values import token_identity
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.trace import DECODE, PREFILL, RoutingTrace

PROMPT = "prompt_routed_experts"
CHOICE = "routed_experts"


@dataclass(frozen=True, eq=False)
class _Sequence:
    """Consecutive tokens: ids ``[tokens, layers, top_k]``, the first position, the prompt's length, token ids."""

    ids: npt.NDArray[np.int64]
    first: int
    prompt: int
    tokens: npt.NDArray[np.int64] | None
    place: str


def sniff(path: Path, start: bytes) -> bool:
    """JSON that names the fields (a long text may come before the choice's)."""
    fields = (f'"{PROMPT}"'.encode() in start, f'"{CHOICE}"'.encode() in start)
    return (
        start.lstrip()[:1] in (b"{", b"[") and any(fields) and b'"sgl_ext"' not in start and b'"meta_info"' not in start
    )


def read(path: Path, options: ImportOptions, report: Report) -> RoutingTrace:
    """The routing of every choice of every response.

    Raises:
        ForestageError: if a response is no such object, its numbers contradict each other, or the model is not known.
    """
    builder: TraceBuilder | None = None
    name: str | None = None
    last_missing = unrouted = 0
    for number, response in read_records(path, report):
        place = f"{path}: response {number}"
        stated = model_name(response, place)
        if number > 1 and stated != name:
            raise ForestageError(f"{place}: model: {short(stated)}, but {short(name)} before; import models one by one")
        name = stated
        sequences, missing, without = _sequences(response, place)
        last_missing += missing
        unrouted += without
        for sequence in sequences:
            if builder is None:
                _, layers, top_k = sequence.ids.shape
                builder = TraceBuilder(path, layers=layers, top_k=top_k, hashes=sequence.tokens is not None)
            position = sequence.first + np.arange(len(sequence.ids))
            builder.append(
                sequence.ids,
                position=position,
                phase=np.where(position < sequence.prompt, PREFILL, DECODE),
                token_hash=None if sequence.tokens is None else token_identity(sequence.tokens, sequence.place),
                where=sequence.place.removeprefix(f"{path}: "),
            )
            builder.end_sequence(options.domain or "unlabelled", options.dataset or "vLLM")
    if builder is None:
        raise ForestageError(f"{path}: no response has routed experts; start vLLM with --enable-return-routed-experts")
    if last_missing:
        report.warn(
            f"{path}: the last token of {last_missing} sequences has no routing: it was generated, but never processed"
        )
    if unrouted:
        report.warn(f"{path}: {unrouted} choices have no {CHOICE}: what they generated is left out")
    model = recorded_model(
        options,
        origin=str(path),
        layers=builder.layers,
        top_k=builder.top_k,
        used_layers=builder.used_layers(),
        name=name,
    )
    return builder.finish(model, report, source=f"vLLM, --enable-return-routed-experts, from {path.name}", ranked=False)


def _sequences(response: dict[str, Any], place: str) -> tuple[list[_Sequence], int, int]:
    """The sequences of a response, how many lack their last token, and how many choices all of their tokens."""
    choices = objects(response.get("choices"), "choices", place)
    prompt_ids = token_ids(response.get("prompt_token_ids"), "prompt_token_ids", place)
    prompt = _ids(response.get(PROMPT), PROMPT, place)
    prompt_tokens = _prompt_tokens(response, prompt, prompt_ids, place)
    completion = _usage(response, "completion_tokens", place) if len(choices) == 1 else None
    sequences, missing, unrouted = [], 0, 0
    for number, choice in enumerate(choices):
        where = f"{place}, choice {number}"
        generated = _ids(choice.get(CHOICE), CHOICE, where)
        chosen_ids = token_ids(choice.get("token_ids"), "token_ids", where)
        length = completion if chosen_ids is None else len(chosen_ids)
        if completion not in (None, length):
            raise ForestageError(f"{where}: token_ids: {length}, but usage.completion_tokens is {completion}")
        rows, first, lacks = _rows(prompt if not number else None, generated, prompt, prompt_tokens, length, where)
        missing += lacks
        # A single generated token was never processed: nothing of it is missing.
        unrouted += (generated is None or not len(generated)) and (length is None or length > 1)
        if not len(rows):
            continue
        known = None
        if prompt_ids is not None and chosen_ids is not None:
            known = np.concatenate([prompt_ids, chosen_ids])[first : first + len(rows)]
            if len(known) != len(rows):
                raise ForestageError(f"{where}: {len(rows)} rows, but token ids for {len(known)} of them")
        sequences.append(_Sequence(rows, first, prompt_tokens, known, where))
    return sequences, missing, unrouted


def _rows(
    own_prompt: npt.NDArray[np.int64] | None,
    generated: npt.NDArray[np.int64] | None,
    prompt: npt.NDArray[np.int64] | None,
    prompt_tokens: int,
    length: int | None,
    place: str,
) -> tuple[npt.NDArray[np.int64], int, bool]:
    """A choice's rows, the position of the first, and whether its last token has none.

    Args:
        own_prompt: the prompt's rows, for the choice that they are given to.
        generated: the choice's rows.
        prompt: the prompt's rows, where the response has them apart.
        prompt_tokens: length of the prompt.
        length: tokens generated, where known.
        place: for errors.
    """
    first = prompt_tokens
    if generated is None:
        generated = np.zeros((0, 0, 0), np.int64)
    elif prompt is None and length is not None:
        whole = len(generated) - prompt_tokens in (length, length - 1)
        alone = len(generated) in (length, length - 1)
        if whole and alone:
            raise ForestageError(
                f"{place}: {CHOICE}: {len(generated)} rows may begin with the prompt or after it; {PROMPT} would tell"
            )
        first = 0 if whole else prompt_tokens
    processed = first + len(generated) - prompt_tokens
    if length is not None and len(generated) and processed not in (length, length - 1):
        raise ForestageError(f"{place}: {CHOICE}: {len(generated)} rows for {length} generated tokens")
    # What was never processed may still have a row, of zeros in every layer.
    empty = len(generated) > 0 and generated.shape[2] > 1 and not generated[-1].any()
    has_rows = len(generated) > 0 or own_prompt is not None
    lacks = bool(empty or (length is not None and has_rows and processed == length - 1))
    generated = generated[:-1] if empty else generated
    if own_prompt is None:
        return generated, first, lacks
    if len(generated) and own_prompt.shape[1:] != generated.shape[1:]:
        raise ForestageError(
            f"{place}: {CHOICE}: {list(generated.shape[1:])} layers and ids, but {list(own_prompt.shape[1:])} in "
            f"{PROMPT}"
        )
    return np.concatenate([own_prompt, generated]) if len(generated) else own_prompt, 0, lacks


def _prompt_tokens(
    response: dict[str, Any], prompt: npt.NDArray[np.int64] | None, ids: npt.NDArray[np.int64] | None, place: str
) -> int:
    """The prompt's length, on which everything that states it must agree."""
    stated = {
        PROMPT: None if prompt is None else len(prompt),
        "prompt_token_ids": None if ids is None else len(ids),
        "usage.prompt_tokens": _usage(response, "prompt_tokens", place),
    }
    known = {name: length for name, length in stated.items() if length is not None}
    if not known:
        raise ForestageError(f"{place}: usage: missing, as is {PROMPT}; nothing tells where the prompt ends")
    if len(set(known.values())) > 1:
        raise ForestageError(f"{place}: the prompt's length differs: {', '.join(f'{n} {v}' for n, v in known.items())}")
    return next(iter(known.values()))


def _usage(response: dict[str, Any], field: str, place: str) -> int | None:
    """A number of ``usage``, where there is one."""
    usage = response.get("usage")
    if usage is None:
        return None
    if not isinstance(usage, dict):
        raise ForestageError(f"{place}: usage: {short(usage)}; expected an object")
    return None if usage.get(field) is None else whole_number(usage[field], f"usage.{field}", place)


def _ids(value: Any, field: str, place: str) -> npt.NDArray[np.int64] | None:
    """The ids of a field, ``None`` where it is missing, null or empty."""
    if value is None:
        return None
    ids = decoded_array(value, field, place) if isinstance(value, str) else nested_ids(value, field, place)
    return ids if len(ids) else None


IMPORTER = Importer(
    "vllm_response",
    "vLLM's responses with --enable-return-routed-experts, JSON or JSON Lines",
    sniff,
    read,
    uses=frozenset({"model", "experts", "top_k", "layers", "domain", "dataset"}),
)
