"""vLLM's responses with ``--enable-return-routed-experts``: JSON, an array, one response a line, or a stream's events.

Source: vLLM's ``vllm/entrypoints/openai/{chat_completion,completion}/protocol.py`` and
``vllm/entrypoints/scale_out/token_in_token_out/protocol.py``; pull requests 28284, 39568 (HTTP), 51906
(``routed_experts_prompt_start``) and 57966 (rows of cached prefixes left out). ``traces.importers.assembly.routed_ids``
reads the forms of the ids. Versions differ in which tokens have a row:

* one version gives ``prompt_routed_experts [prompt tokens, layers, top_k]`` and each of the ``choices``
  ``routed_experts [generated tokens, layers, top_k]``;
* later ones begin each choice's ``routed_experts`` with the prompt's rows: ``prompt + generated − 1`` tokens;
* in both, the prompt's first rows may be missing: because the request asked for it, or because they were found in the
  prefix cache (``usage.prompt_tokens_details.cached_tokens``). An object's ``start`` states the first position; else it
  follows from the numbers of tokens, and if they allow two readings, the response is refused.

The last generated token was never processed and has no row (or a row of zeros). If cached rows *are* given, they come
from an earlier request: ``traces.importers.assembly.served_rows`` counts them once, and likewise the prompt of several
choices. The layer axis differs between versions: all of the model's layers, with zeros in dense ones, or only its MoE
layers; the model decides or, if the catalogue does not know it, the layers that are not empty. A choice is a sequence;
rows of ``prompt_routed_experts`` belong to the first choice, other choices begin after the prompt. ``prompt_token_ids``
and ``token_ids``, if given, become the tokens' identity.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.importers.assembly.responses import model_name, objects, refuse_other_server, short, token_ids, whole_number
from traces.importers.assembly.routed_ids import RoutedIds, routed_ids
from traces.importers.assembly.served_rows import Answer, ServedRows
from traces.importers.assembly.server_events import first_field, holds_responses, read_responses
from traces.importers.assembly.unrouted_answers import VLLM_REMEDY
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.trace import RoutingTrace

PROMPT = "prompt_routed_experts"
CHOICE = "routed_experts"

ROUTING_FIELDS = (b'"prompt_routed_experts"', b'"routed_experts"')
SGLANG_FIELDS = (b'"sgl_ext"', b'"sglext"', b'"meta_info"')


@dataclass
class Told:
    """Counts of facts seen while reading, of which the user is warned.

    Attributes:
        last_missing: sequences whose last generated token has no row.
        prompt_short: sequences in which nothing was generated and the prompt's last token has no row.
        unrouted: choices that generated tokens but have no rows.
        unseen: sequences whose prompt lacks its first rows.
        unseen_tokens: rows that these lack, in all.
        inferred: those of them for which only the number of rows shows that the first rows are missing.
        alone: sequences without any row of the prompt.
        unstated: responses that do not state the length of their prompt.
        transferred: responses whose key-value cache another server filled.
    """

    last_missing: int = 0
    prompt_short: int = 0
    unrouted: int = 0
    unseen: int = 0
    unseen_tokens: int = 0
    inferred: int = 0
    alone: int = 0
    unstated: int = 0
    transferred: int = 0

    def tell(self, path: Path, report: Report) -> None:
        """Warn of all that was counted."""
        lines = {
            f"the last token of {self.last_missing} sequences has no routing: it was generated, but never processed": (
                self.last_missing
            ),
            f"the last row of {self.prompt_short} prompts is missing: it was processed, but not returned": (
                self.prompt_short
            ),
            f"{self.unrouted} choices have no {CHOICE}: what they generated is left out": self.unrouted,
            f"{self.unseen_tokens} cached tokens at the beginning of {self.unseen} sequences have no rows (found in "
            "the prefix cache, or left out as asked): positions begin after them": self.unseen,
            f"of {self.inferred} of these sequences nothing but the number of rows says so; had a server lost others "
            "than the first, their positions would be wrong": self.inferred,
            f"the prompts of {self.alone} sequences have no rows: positions begin after them": self.alone,
            f"{self.unstated} responses do not say how long their prompt is (usage): its rows are taken to be all": (
                self.unstated
            ),
            f"{self.transferred} responses have kv_transfer_params: where another server processed the prompt, vLLM "
            "returns rows for it that may be of other tokens": self.transferred,
        }
        for line, count in lines.items():
            if count:
                report.warn(f"{path}: {line}")


@dataclass(frozen=True, eq=False)
class _Response:
    """The facts that a response states for all of its choices.

    Attributes:
        choices: the choices.
        prompt: tokens of the prompt; ``None`` if not stated.
        prompt_ids: their vocabulary indices, if given.
        completion: tokens generated in all choices, if stated.
        cached: tokens of the prompt that were in the cache; ``None`` if not stated.
        place: for errors.
    """

    choices: list[dict[str, Any]]
    prompt: int | None
    prompt_ids: npt.NDArray[np.int64] | None
    completion: int | None
    cached: int | None
    place: str


@dataclass(frozen=True, eq=False)
class Choice:
    """The facts and rows of one choice.

    Attributes:
        before: separately given rows of the prompt, if they belong to this choice.
        has_prompt: whether the response gives the prompt's rows separately.
        rows: the choice's rows, without a row of zeros at the end.
        padded: whether there was such a row.
        prompt, prompt_ids: number and vocabulary indices of its prompt's tokens.
        generated, token_ids: the same of its generated tokens; ``None`` if not known.
        place: for errors.
        cached_field, start_field: the file's fields for the number of cached tokens and for the first row's position.
    """

    before: RoutedIds | None
    has_prompt: bool
    rows: RoutedIds | None
    padded: bool
    prompt: int | None
    prompt_ids: npt.NDArray[np.int64] | None
    generated: int | None
    token_ids: npt.NDArray[np.int64] | None
    place: str
    cached_field: str = "usage.prompt_tokens_details.cached_tokens"
    start_field: str = f"{CHOICE} as an object {{data, shape, start}}"

    @property
    def count(self) -> int:
        """Number of rows of the choice."""
        return 0 if self.rows is None else len(self.rows.ids)


def sniff(path: Path, start: bytes) -> bool:
    """JSON or a stream's events with these fields and none of SGLang's; or a folder of such files."""
    if path.is_dir():
        return holds_responses(path, sniff)
    found = first_field(path, start, (*ROUTING_FIELDS, *SGLANG_FIELDS))
    return found in ROUTING_FIELDS


def read(path: Path, options: ImportOptions, report: Report) -> RoutingTrace:
    """The routing of every choice of every response.

    Raises:
        ForestageError: if a response is not such an object, its numbers contradict each other, or the model is not
            known.
    """
    rows = ServedRows(path, options, dataset="vLLM")
    told = Told()
    name: str | None = None
    names: set[str | None] = set()
    for place, response in read_responses(path, sniff, report):
        refuse_other_server(response, "vLLM", place)
        stated = model_name(response, place)
        if names - {stated}:
            raise ForestageError(f"{place}: model: {short(stated)}, but {short(name)} before; import models one by one")
        name = stated
        names.add(name)
        for answer in _answers(response, place, told):
            rows.append(answer)
    if not rows.sequences:
        raise ForestageError(
            f"{path}: no response has routed experts; {VLLM_REMEDY}, and save its answers as they come, with "
            f"choices[].{CHOICE}"
        )
    told.tell(path, report)
    return rows.finish(report, source=f"vLLM, --enable-return-routed-experts, from {path.name}", name=name)


def _answers(fields: dict[str, Any], place: str, told: Told) -> list[Answer]:
    """The sequences of a response."""
    response = _response(fields, place)
    given = _choices(fields, response)
    if all(choice.generated is None and choice.count for choice in given) and not any(c.has_prompt for c in given):
        given = _with_lengths(given, response)
    told.transferred += isinstance(fields.get("kv_transfer_params"), dict)
    told.unstated += any(choice.prompt is None and choice.count for choice in given)
    _check_totals(given, response)
    answers = []
    for number, choice in enumerate(given):
        # If only one token was generated, it was never processed, so no row is missing.
        told.unrouted += not choice.count and not choice.padded and (choice.generated is None or choice.generated > 1)
        answer = placed(choice, response.cached, told, shared=number > 0)
        if answer is not None:
            answers.append(answer)
    return answers


def _response(fields: dict[str, Any], place: str) -> _Response:
    """The response's choices and numbers of tokens."""
    choices = objects(fields.get("choices"), "choices", place)
    prompt_ids = token_ids(fields.get("prompt_token_ids"), "prompt_token_ids", place)
    cached = None
    usage = fields.get("usage")
    if isinstance(usage, dict) and isinstance(details := usage.get("prompt_tokens_details"), dict):
        cached = _number(details, "cached_tokens", "usage.prompt_tokens_details", place)
    stated = {
        "prompt_token_ids": None if prompt_ids is None else len(prompt_ids),
        "usage.prompt_tokens": _usage(fields, "prompt_tokens", place),
    }
    known = {name: length for name, length in stated.items() if length is not None}
    if len(set(known.values())) > 1:
        raise ForestageError(f"{place}: the prompt's length differs: {', '.join(f'{n} {v}' for n, v in known.items())}")
    prompt = next(iter(known.values()), None)
    if prompt is None and isinstance(logprobs := fields.get("prompt_logprobs"), list):
        prompt = len(logprobs)  # one entry per token, the first null
    if prompt is not None and cached is not None and cached > prompt:
        raise ForestageError(
            f"{place}: usage.prompt_tokens_details.cached_tokens is {cached}, but the prompt has {prompt} tokens"
        )
    return _Response(choices, prompt, prompt_ids, _usage(fields, "completion_tokens", place), cached, place)


def _choices(fields: dict[str, Any], response: _Response) -> list[Choice]:
    """The choices, each with its own numbers, about which all fields that state them must agree."""
    before = routed_ids(fields.get(PROMPT), PROMPT, response.place)
    single = len(response.choices) == 1
    own_prompts = [
        token_ids(choice.get("prompt_token_ids"), "prompt_token_ids", f"{response.place}, choice {number}")
        for number, choice in enumerate(response.choices)
    ]
    prompt = response.prompt
    if all(ids is not None for ids in own_prompts):
        _check_prompts([ids for ids in own_prompts if ids is not None], response)
        prompt = None
    given = []
    for number, choice in enumerate(response.choices):
        place = f"{response.place}, choice {number}"
        rows = routed_ids(choice.get(CHOICE), CHOICE, place)
        own = routed_ids(choice.get(PROMPT), PROMPT, place)
        ids = own_prompts[number] if own_prompts[number] is not None else response.prompt_ids
        generated_ids = token_ids(choice.get("token_ids"), "token_ids", place)
        generated = response.completion if single else None
        if generated_ids is not None:
            if generated not in (None, len(generated_ids)):
                raise ForestageError(
                    f"{place}: token_ids: {len(generated_ids)}, but usage.completion_tokens is {generated}"
                )
            generated = len(generated_ids)
        padded = rows is not None and rows.ids.shape[2] > 1 and not rows.ids[-1].any()
        own_before = own if own is not None else before if not number else None
        given.append(
            Choice(
                before=own_before,
                has_prompt=before is not None or own is not None,
                rows=rows.without(1) if rows is not None and padded else rows,
                padded=padded,
                prompt=_prompt(prompt, ids, own_before if single or own is not None else before, response, place),
                prompt_ids=ids,
                generated=generated,
                token_ids=generated_ids,
                place=place,
            )
        )
    return given


def _prompt(
    stated: int | None,
    ids: npt.NDArray[np.int64] | None,
    before: RoutedIds | None,
    response: _Response,
    place: str,
) -> int | None:
    """Length of a choice's prompt: as stated, else the number of the prompt's rows, if these are given separately."""
    length = stated if ids is None else len(ids)
    if before is None:
        return length
    start = before.start or 0
    if length is None:
        return start + len(before.ids)
    missing = length - len(before.ids)
    if missing < 0 or (before.start is not None and before.start != missing):
        raise ForestageError(
            f"{place}: the prompt's length differs: {PROMPT} {len(before.ids)}"
            + (f" from {before.start} on" if before.start is not None else "")
            + f", prompt tokens {length}"
        )
    if missing and len(response.choices) > 1 and ids is None:
        raise ForestageError(
            f"{place}: {PROMPT}: {len(before.ids)} rows of {length} prompt tokens, which may be those of several "
            "prompts; request prompt_token_ids (return_token_ids), or send prompts one by one"
        )
    return length


def _check_prompts(prompts: list[npt.NDArray[np.int64]], response: _Response) -> None:
    """Refuse a stated number of prompt tokens that is not the sum of the choices' own prompts."""
    total = response.prompt
    if total is None:
        return
    lengths = [len(ids) for ids in prompts]
    texts = [n for n in range(1, len(prompts) + 1) if len(prompts) % n == 0]
    if not any(
        sum(lengths[::n]) == total and all(np.array_equal(prompts[i], prompts[i - i % n]) for i in range(len(prompts)))
        for n in texts
    ):
        raise ForestageError(
            f"{response.place}: the choices' prompt_token_ids are {lengths} tokens, but usage.prompt_tokens is {total}"
        )


def _with_lengths(given: list[Choice], response: _Response) -> list[Choice]:
    """The choices with their numbers of generated tokens, if only the sum is stated and one reading of rows fits."""
    total, prompts = response.completion, [choice.prompt for choice in given]
    readings: dict[tuple[int, ...], None] = {}
    if total is not None and None not in prompts:
        starts = {choice.rows.start for choice in given if choice.rows is not None} - {None}
        for start in starts or {0, response.cached or 0, *(p for p in prompts if p is not None)}:
            for last in (0, 1):
                lengths = tuple(
                    choice.count - ((prompt or 0) - min(start or 0, prompt or 0)) + 1 - last
                    for choice, prompt in zip(given, prompts, strict=True)
                )
                if min(lengths) >= 1 and sum(lengths) == total:
                    readings[lengths] = None
    if len(readings) != 1:
        counts = [choice.count for choice in given]
        raise ForestageError(
            f"{response.place}: {CHOICE}: {counts} rows "
            + ("fit several readings of" if readings else "do not fit")
            + f" usage.prompt_tokens {response.prompt} and usage.completion_tokens {total}"
            + (" of one prompt" if len(given) > 1 else "")
            + "; request token_ids (return_token_ids)"
            + (", or usage (of a stream: stream_options include_usage)" if response.prompt is None else "")
            + ", or send prompts one by one"
        )
    lengths = next(iter(readings))
    return [_replaced(choice, length) for choice, length in zip(given, lengths, strict=True)]


def _replaced(choice: Choice, generated: int) -> Choice:
    """The choice with the number of tokens that it generated."""
    return Choice(**{**vars(choice), "generated": generated})


def _check_totals(given: list[Choice], response: _Response) -> None:
    """Refuse rows after a separately given prompt that contradict the number of generated tokens."""
    total = response.completion
    if total is None:
        return
    known = [choice.generated for choice in given if choice.generated is not None]
    if len(known) == len(given) and sum(known) != total:
        raise ForestageError(
            f"{response.place}: the choices generated {sum(known)} tokens, but usage.completion_tokens is {total}"
        )
    rows = sum(choice.count for choice in given)
    if all(choice.has_prompt and choice.count for choice in given) and not total - len(given) <= rows <= total:
        raise ForestageError(
            f"{response.place}: {CHOICE}: {rows} rows for {total} generated tokens (usage.completion_tokens)"
        )


def placed(choice: Choice, in_cache: int | None, told: Told, *, shared: bool) -> Answer | None:
    """A choice's rows with their positions; ``None`` if there are none.

    Args:
        choice: the choice.
        in_cache: tokens of the prompt that were in the cache, if known.
        told: counts what is missing.
        shared: whether an earlier choice may have the same prompt.
    """
    if choice.before is None and choice.rows is None:
        return None
    cached = in_cache or 0
    prompt = choice.prompt if choice.prompt is not None else _unstated_prompt(choice)
    if choice.has_prompt:
        first, last = _after_prompt(choice, prompt)
    else:
        first, last = _whole(choice, prompt, cached)
    parts = [part for part in (choice.before, choice.rows) if part is not None]
    if len({part.ids.shape[1:] for part in parts if len(part.ids)}) > 1:
        raise ForestageError(
            f"{choice.place}: {CHOICE}: {list(parts[1].ids.shape[1:])} layers and ids, but "
            f"{list(parts[0].ids.shape[1:])} in {PROMPT}"
        )
    parts = [part for part in parts if len(part.ids)]
    if not parts:
        return None
    ids = np.concatenate([part.ids for part in parts])
    narrowest = min(parts, key=lambda part: part.largest)
    _tell(choice, prompt, first, len(ids), last, told, shared=shared)
    stated = parts[0].start is not None or first == cached or choice.before is not None
    told.inferred += 0 < first < prompt and not stated
    tokens = None
    if choice.prompt_ids is not None and choice.token_ids is not None:
        tokens = np.concatenate([choice.prompt_ids, choice.token_ids])[first : first + len(ids)]
        if len(tokens) != len(ids):
            raise ForestageError(f"{choice.place}: {len(ids)} rows, but token ids for {len(tokens)} of them")
    from_cache = max(0, min(cached, prompt) - first)
    repeated = max(from_cache, prompt - first if shared else 0)
    return Answer(
        ids=ids,
        first=first,
        prompt=prompt,
        repeated=repeated,
        cached=from_cache,
        tokens=tokens,
        place=choice.place,
        counted=in_cache is not None,
        largest=narrowest.largest,
        dtype=narrowest.dtype,
    )


def _unstated_prompt(choice: Choice) -> int:
    """Length of a prompt that is not stated: the rows before the generated tokens, from the first position on."""
    start = choice.rows.start if choice.rows is not None else None
    if choice.generated is None or choice.generated < 1:
        raise ForestageError(
            f"{choice.place}: usage: missing, as is {PROMPT}; nothing tells where the prompt ends (a stream has it "
            "with stream_options.include_usage)"
        )
    prompt = (start or 0) + choice.count - (choice.generated - 1)
    if prompt < 1 or (start is None and choice.count < choice.generated):
        raise ForestageError(
            f"{choice.place}: {CHOICE}: {choice.count} rows for {choice.generated} generated tokens, and no usage that "
            "states the prompt's length"
        )
    return prompt


def _after_prompt(choice: Choice, prompt: int) -> tuple[int, bool]:
    """First position of rows after a separately given prompt, and whether the last generated token has a row."""
    if choice.rows is not None and choice.rows.start not in (None, prompt):
        raise ForestageError(f"{choice.place}: {CHOICE}.start: {choice.rows.start}; the prompt has {prompt} tokens")
    last = False
    if choice.generated is not None and choice.count:
        last = choice.count == choice.generated and not choice.padded
        if choice.count != choice.generated - (not last):
            raise ForestageError(
                f"{choice.place}: {CHOICE}: {choice.count} rows for {choice.generated} generated tokens"
            )
    elif choice.generated is None:
        last = not choice.padded
    return (prompt if choice.before is None else prompt - len(choice.before.ids)), last


def _whole(choice: Choice, prompt: int, cached: int) -> tuple[int, bool]:
    """First position of rows that may begin with the prompt, and whether the last generated token has a row."""
    assert choice.rows is not None
    generated = choice.generated
    if generated is None:
        raise ForestageError(
            f"{choice.place}: usage: no completion_tokens, and no token_ids; nothing tells whether {CHOICE} begins "
            "with the prompt"
        )
    # Versions that return what was processed have rows up to the second-to-last token.
    start = prompt + generated - 1 - choice.count
    stated = choice.rows.start
    readings = {
        (first, last)
        for first in ({stated} if stated is not None else {0, prompt, start})
        for last in ((False,) if choice.padded else (False, True))
        if 0 <= first <= prompt and choice.count == prompt - first + generated - 1 + last
    }
    if cached and (cached, False) in readings:
        return cached, False
    if len(readings) > 1:
        raise ForestageError(_two_readings(choice, sorted(readings)))
    if not readings:
        where = f" from {stated} on" if stated is not None else ""
        least = max(0, generated - 1) + (0 if stated is None else max(0, prompt - stated))
        most = least + 1 if stated is not None else prompt + generated
        raise ForestageError(
            f"{choice.place}: {CHOICE}: {choice.count} rows{where} for {generated} generated tokens after a prompt of "
            f"{prompt}; expected {least} {'or' if most == least + 1 else 'to'} {most}: rows were lost or are another "
            "response's, and nothing tells which; leave the response out, or record it again"
        )
    return next(iter(readings))


def _two_readings(choice: Choice, readings: list[tuple[int, bool]]) -> str:
    """The error for rows that fit two first positions, and how to make the file unambiguous."""
    several = " or ".join(
        f"the positions from {first} on" + (", the last generated token's among them" if last else "")
        for first, last in readings
    )
    cached = next((first for first, last in readings if first and not last), None)
    remedy = f"{choice.cached_field} {cached}, if so many tokens were in the server's cache, or " if cached else ""
    return (
        f"{choice.place}: {CHOICE}: {choice.count} rows may be of {several}; say which in the file: {remedy}"
        f"{choice.start_field} with the first position"
    )


def _tell(choice: Choice, prompt: int, first: int, rows: int, last: bool, told: Told, *, shared: bool) -> None:
    """Note what the rows of a choice lack."""
    generated = choice.generated
    if generated == 0:
        told.prompt_short += first + rows == prompt - 1
    elif choice.padded or (generated is not None and not last and first + rows == prompt + generated - 1):
        told.last_missing += 1
    if first == prompt and not (shared and choice.has_prompt):
        told.alone += 1
    elif 0 < first < prompt:
        told.unseen += 1
        told.unseen_tokens += first


def _usage(response: dict[str, Any], field: str, place: str) -> int | None:
    """A number in ``usage``, if there is one."""
    usage = response.get("usage")
    if usage is None:
        return None
    if not isinstance(usage, dict):
        raise ForestageError(f"{place}: usage: {short(usage)}; expected an object")
    return _number(usage, field, "usage", place)


def _number(holder: dict[str, Any], field: str, name: str, place: str) -> int | None:
    """A whole number in an object, if it has it."""
    return None if holder.get(field) is None else whole_number(holder[field], f"{name}.{field}", place)


IMPORTER = Importer(
    "vllm_response",
    "vLLM's responses with --enable-return-routed-experts: JSON, JSON Lines, a stream's events, or a folder",
    sniff,
    read,
    uses=frozenset({"model", "experts", "top_k", "layers", "domain", "dataset"}),
    folders=True,
)
