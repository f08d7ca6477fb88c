"""Read servers' responses from a file: whole ones, or put together from the events of streams.

A file has JSON (one response, an array, or one after another), or the lines of a stream: ``data: {…}`` up to ``data:
[DONE]`` (server-sent events: WHATWG HTML, 9.2.6; comments and lines of other fields are ignored). An event has a new
part of each choice (``token_ids``: only new tokens) or all of it so far (SGLang's ``/generate``); ``usage`` is in the
last event or in each. Events are joined by the request's id, choices by their index. Chunks that were saved as JSON are
joined likewise. Lines of ``vllm run-batch`` have the response under ``response.body``. A folder of such files is one
recording.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalog.errors import ForestageError
from traces.importers.assembly.folder_files import in_number_order
from traces.importers.assembly.json_records import json_object, read_records
from traces.importers.assembly.responses import short
from traces.importers.assembly.routed_ids import Pieces
from traces.importers.assembly.text_file import open_text, starting_bytes
from traces.importers.report import Report

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

EVENT_FIELDS = ("event:", "id:", "retry:", ":")
"""Beginnings of lines of server-sent events without a response."""

RESPONSE_FIELDS = (b'"choices"', b'"meta_info"')

SCANNED_CHARACTERS = 1 << 28
"""Characters of a file of responses that are searched for the routing's field, which may come after long texts."""

READ_CHARACTERS = 1 << 20

SNIFFED_BYTES = 1 << 16

SNIFFED_FILES = 8
"""Files of a folder that are examined: some may hold requests, or answers without routing."""

MAX_LINE_CHARACTERS = 1 << 30
"""Most characters of an event, which may hold the routing of a whole request."""

ROUTED = "routed_experts"

MAX_ERROR_CHARACTERS = 160
"""Of what a server says of its error."""

LEFT_ALONE = frozenset({"delta", "text", "message", "logprobs"})
"""Fields of an event's choice that are not read."""


def is_event_stream(start: bytes) -> bool:
    """Whether a file that starts so holds server-sent events."""
    begun = start.removeprefix(BYTE_ORDER_MARK).lstrip()
    return begun.startswith((b"data:", *(name.encode() for name in EVENT_FIELDS)))


def is_json(start: bytes) -> bool:
    """Whether a file that starts so may hold JSON objects."""
    return start.removeprefix(BYTE_ORDER_MARK).lstrip()[:1] in (b"{", b"[")


def first_field(path: Path, start: bytes, names: tuple[bytes, ...]) -> bytes | None:
    """Which of ``names`` (in their quotes) comes first in a file of responses; ``None`` if it is not such a file.

    Beyond its first bytes, ``start``, a file is searched only if these name a field that every response has.
    """
    if not is_json(start) and not is_event_stream(start):
        return None
    found = _first(start, names)
    if found is not None or not any(name in start for name in RESPONSE_FIELDS):
        return found
    kept, read = b"", 0
    try:
        with open_text(path) as (text, _):
            while found is None and read < SCANNED_CHARACTERS and (more := text.read(READ_CHARACTERS)):
                read += len(more)
                piece = kept + more.encode()
                found = _first(piece, names)
                kept = piece[-max(map(len, names)) :]
    except ForestageError:  # damaged further on; its reader reports it
        return None
    return found


def _first(data: bytes, names: tuple[bytes, ...]) -> bytes | None:
    """Which of ``names`` comes first in ``data``."""
    places = {data.find(name): name for name in names if name in data}
    return places[min(places)] if places else None


def holds_responses(folder: Path, sniff: Callable[[Path, bytes], bool]) -> bool:
    """Whether ``sniff`` recognises one of the first files of a folder."""
    return any(sniff(file, starting_bytes(file, SNIFFED_BYTES)) for file in files_of(folder)[:SNIFFED_FILES])


def read_responses(
    path: Path, sniff: Callable[[Path, bytes], bool], report: Report
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The responses of a file, or of a folder's files that ``sniff`` recognises, each with its place for errors.

    Raises:
        ForestageError: as ``read_file``.
    """
    if not path.is_dir():
        yield from ((f"{path}: response {number}", response) for number, response in read_file(path, report))
        return
    files = files_of(path)
    known = [file for file in files if sniff(file, starting_bytes(file, SNIFFED_BYTES))]
    for file, of_file in report.apart(known):
        yield from ((f"{file}: response {number}", response) for number, response in read_file(file, of_file))
    if len(known) < len(files):
        report.warn(f"{path}: {len(files) - len(known)} files are no such responses, or have no routing; left out")


def files_of(folder: Path) -> list[Path]:
    """The files of a folder, sorted by the numbers in their names."""
    return in_number_order(file for file in folder.iterdir() if file.is_file())


def read_file(path: Path, report: Report) -> Iterator[tuple[int, dict[str, Any]]]:
    """The responses in a file, plain or gzipped, numbered from 1; a warning counts error answers, which are left out.

    Raises:
        ForestageError: if the file cannot be read, is in none of the forms above, or is cut off.
    """
    number = errors = 0
    first_error = ""
    streams = _Streams(path)
    for place, record, is_event in _records(path, report):
        if record is None:
            finished = streams.end_connection()
        else:
            response = _unwrapped(record)
            if _is_error(response):
                errors += 1
                first_error = first_error or _error_text(response)
                continue
            _refuse_shared_indices(response, place)
            finished = [response]
            if is_event or _is_chunk(response):
                streams.add(response, place)
                continue
        for response in finished:
            number += 1
            _check_usage(response, f"{path}: response {number}")
            yield number, response
    for response in streams.end():
        number += 1
        _check_usage(response, f"{path}: response {number}")
        yield number, response
    if errors:
        report.warn(f"{path}: {errors} answers are errors of the server (first: {first_error}); left out")


def _records(path: Path, report: Report) -> Iterator[tuple[str, dict[str, Any] | None, bool]]:
    """Place, JSON object, and whether it is an event of a stream; no object at the end of a stream."""
    with open_text(path) as (text, _):
        start = text.read(1 << 10).encode()
    if is_event_stream(start):
        yield from ((place, record, True) for place, record in _events(path, report))
    else:
        yield from ((f"{path}: object {number}", record, False) for number, record in read_records(path, report))


def _events(path: Path, report: Report) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """The objects of server-sent events, and ``None`` for each ``[DONE]``."""
    with open_text(path) as (text, raw):
        number = 0
        total = path.stat().st_size
        while line := text.readline(MAX_LINE_CHARACTERS):
            number += 1
            place = f"{path}: line {number}"
            if len(line) == MAX_LINE_CHARACTERS:
                raise ForestageError(f"{place}: longer than {MAX_LINE_CHARACTERS} characters")
            line = line.strip()
            if not line or line.startswith(EVENT_FIELDS):
                if "{" in line:  # else a damaged event would be skipped silently
                    raise ForestageError(f"{place}: {short(line)}; holds an object, but is no data of an event")
                continue
            value = line.removeprefix("data:").strip()
            if value == "[DONE]":
                yield place, None
                continue
            if value == line and not line.startswith("{"):
                raise ForestageError(f"{place}: {short(line)}; expected an event of a stream (data: …)")
            if value:
                yield place, json_object(value, place)
            report.progress(raw.tell(), total)
        report.progress(total, total)


def _unwrapped(record: dict[str, Any]) -> dict[str, Any]:
    """The response in a line of ``vllm run-batch``; anything else unchanged."""
    inner = record.get("response")
    if "choices" in record or "meta_info" in record or not isinstance(inner, dict):
        return record
    body = inner.get("body", inner)
    return body if isinstance(body, dict) else record


def _is_error(response: dict[str, Any]) -> bool:
    """Whether a server's answer is an error."""
    if "choices" in response or "meta_info" in response:
        return False
    return response.get("error") is not None or response.get("object") == "error"


def _error_text(response: dict[str, Any]) -> str:
    """What a server says of its error, on one line of bounded length."""
    error = response.get("error")
    holder = error if isinstance(error, dict) else response
    text = " ".join(str(holder.get("message", error)).split())
    return text if len(text) <= MAX_ERROR_CHARACTERS else text[: MAX_ERROR_CHARACTERS - 3] + "..."


def _refuse_shared_indices(response: dict[str, Any], place: str) -> None:
    """Refuse two choices of one number, of which nothing tells whose tokens are whose."""
    choices = response.get("choices")
    indices = (
        [choice.get("index") for choice in choices or () if isinstance(choice, dict)]
        if isinstance(choices, list)
        else []
    )
    numbers = [index for index in indices if type(index) is int]
    if len(set(numbers)) < len(numbers):
        again = next(index for place, index in enumerate(numbers) if index in numbers[:place])
        raise ForestageError(f"{place}: choices: two have the index {again}; are they parts of two responses?")


def _check_usage(response: dict[str, Any], place: str) -> None:
    """Refuse numbers of tokens that do not add up."""
    usage = response.get("usage")
    if not isinstance(usage, dict):
        return
    prompt, completion, total = (usage.get(f"{name}_tokens") for name in ("prompt", "completion", "total"))
    if type(prompt) is type(completion) is type(total) is int and prompt + completion != total:
        raise ForestageError(
            f"{place}: usage.total_tokens is {total}, but prompt_tokens {prompt} and completion_tokens {completion} "
            f"are {prompt + completion}; was the response edited, or put together from two?"
        )


def _is_chunk(response: dict[str, Any]) -> bool:
    """Whether a JSON object is an event of a stream, by its ``object`` or its choices."""
    kind, choices = response.get("object"), response.get("choices")
    if isinstance(kind, str) and kind.endswith(".chunk"):
        return True
    return isinstance(choices, list) and any(isinstance(choice, dict) and "delta" in choice for choice in choices)


@dataclass
class _Answer:
    """The content of the events of one request so far."""

    fields: dict[str, Any] = field(default_factory=dict)
    choices: dict[int, dict[str, Any]] = field(default_factory=dict)

    def response(self) -> dict[str, Any]:
        """The response as if the server had not streamed."""
        choices = [_settled(choice) for _, choice in sorted(self.choices.items())]
        return {**_settled(self.fields), **({"choices": choices} if choices else {})}


class _Streams:
    """The unfinished requests of a file of events."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: dict[Any, _Answer] = {}

    def add(self, event: dict[str, Any], place: str) -> None:
        """Add an event to its request."""
        answer = self._open.setdefault(_request(event, place), _Answer())
        stated, before = event.get("model"), answer.fields.get("model")
        if None not in (stated, before) and stated != before:
            raise ForestageError(
                f"{place}: model: {short(stated)}, but {short(before)} in earlier events of the same request"
            )
        choices = event.get("choices")
        if choices is not None and not isinstance(choices, list):
            raise ForestageError(f"{place}: choices: {short(choices)}; expected a list")
        _merge(answer.fields, {name: value for name, value in event.items() if name != "choices"}, place)
        for choice in choices or ():
            index = choice.get("index", 0) if isinstance(choice, dict) else None
            if type(index) is not int or index < 0:
                raise ForestageError(f"{place}: choices: {short(choice)}; expected an object with its index")
            _merge(answer.choices.setdefault(index, {}), choice, place)

    def end_connection(self) -> list[dict[str, Any]]:
        """The request that a ``[DONE]`` finishes, if exactly one is open (of several it is not known which)."""
        return self.end() if len(self._open) == 1 else []

    def end(self) -> list[dict[str, Any]]:
        """All requests, in the order in which they began."""
        finished = [answer.response() for answer in self._open.values()]
        self._open.clear()
        return finished


def _request(event: dict[str, Any], place: str) -> tuple[Any, ...]:
    """The key of an event's request: its id and, for a request with several texts (SGLang), the index."""
    meta = event.get("meta_info")
    names = [event.get("id"), event.get("request_id"), meta.get("id") if isinstance(meta, dict) else None]
    if "choices" not in event:
        names.append(event.get("index"))
    if any(isinstance(name, dict | list) for name in names):
        raise ForestageError(f"{place}: id: {short(names)}; expected a text")
    return tuple(names)


def _merge(into: dict[str, Any], event: dict[str, Any], place: str) -> None:
    """Merge an event's fields: tokens are appended, routing is collected, other fields keep their last value."""
    for name, value in event.items():
        if value is None or name in LEFT_ALONE:
            continue
        if name == "token_ids":
            if not isinstance(value, list):
                raise ForestageError(f"{place}: token_ids: {short(value)}; expected a list")
            into.setdefault(name, []).extend(value)
        elif name == ROUTED:
            into[name] = Pieces((*getattr(into.get(name), "values", ()), value))
        elif isinstance(value, dict) and ROUTED in value:
            held = into.setdefault(name, {})
            if not isinstance(held, dict):
                raise ForestageError(f"{place}: {name}: {short(value)}; expected {short(held)}, as before")
            _merge(held, value, place)
        elif isinstance(value, dict) and isinstance(into.get(name), dict):
            into[name] = {**into[name], **{key: part for key, part in value.items() if part is not None}}
        else:
            into[name] = value


def _settled(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields, with the routing of a single event in the form in which it came."""
    settled = {}
    for name, value in fields.items():
        if isinstance(value, Pieces) and len(value.values) == 1:
            value = value.values[0]
        settled[name] = _settled(value) if isinstance(value, dict) and name != ROUTED else value
    return settled
