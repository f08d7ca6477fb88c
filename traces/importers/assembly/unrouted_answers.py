"""Refuse servers' answers without routing, which the server was not told to record.

How to turn the recording on. vLLM: ``--enable-return-routed-experts``, for all requests (its documentation, *Routed
Experts Return*). SGLang: the flag of the same name, and ``return_routed_experts`` in each request (its documentation of
the OpenAI-compatible API, *Returning Routed Experts*).
"""

from pathlib import Path
from typing import Any

from catalog.errors import ForestageError
from traces.importers.assembly.server_events import (
    SNIFFED_BYTES,
    SNIFFED_FILES,
    files_of,
    is_event_stream,
    is_json,
    read_file,
)
from traces.importers.assembly.text_file import starting_bytes
from traces.importers.report import Report

VLLM_REMEDY = "start vLLM with --enable-return-routed-experts"

SGLANG_REMEDY = "start SGLang with --enable-return-routed-experts and request them with return_routed_experts"

CHOICE_FIELDS = (b'"finish_reason"', b'"usage"', b'"object"')
"""Fields beside or in a server's ``choices``; ``choices`` alone also occur in questionnaires."""


def refuse_unrouted(source: Path, start: bytes) -> None:
    """Refuse a source that consists of a server's answers; call it when no format has found routing in it.

    Args:
        source: a file or folder.
        start: the first bytes of a file, unzipped.

    Raises:
        ForestageError: telling how to make the server record; or, if a file is damaged, where.
    """
    if not source.is_dir():
        if _is_answer(start):
            _refuse(source, start, "")
        return
    for file in files_of(source)[:SNIFFED_FILES]:
        start = starting_bytes(file, SNIFFED_BYTES)
        if _is_answer(start):
            _refuse(file, start, "; if other files of the folder have them, import it with --format vllm_response")


def _is_answer(start: bytes) -> bool:
    """Whether a file that starts so holds a server's answers."""
    if not is_json(start) and not is_event_stream(start):
        return False
    is_choice = b'"choices"' in start and any(name in start for name in CHOICE_FIELDS)
    return is_choice or b'"meta_info"' in start or _is_error(start)


def _is_error(start: bytes) -> bool:
    """Whether a file that starts so begins with a server's error answer."""
    return b'"error"' in start and b'"message"' in start and b'"code"' in start


def _refuse(file: Path, start: bytes, elsewhere: str) -> None:
    """Refuse a file of answers, after reading it to its end so that damage is reported first."""
    answers = unfinished = 0
    report = Report()
    for _, answer in read_file(file, report):
        answers += 1
        unfinished += not _is_finished(answer)
    errors = "; ".join(line.removeprefix(f"{file}: ").removesuffix("; left out") for line in report.warnings)
    if not answers:
        raise ForestageError(f"{file}: {errors}, and there is no answer; was the request right?")
    if b'"meta_info"' in start:
        remedy, elsewhere = SGLANG_REMEDY, elsewhere.replace("vllm_response", "sglang_response")
    else:
        remedy = f"{VLLM_REMEDY}, or {SGLANG_REMEDY}"
    if unfinished and errors:
        raise ForestageError(
            f"{file}: {unfinished} of {answers} answers of a server were cut off before their end, where a stream has "
            f"its routing, and {errors}; mend what the server says and record again{elsewhere}"
        )
    cut = f"; {unfinished} of them were cut off before their end, where a stream has its routing" if unfinished else ""
    raise ForestageError(f"{file}: {answers} answers of a server, none with routed experts{cut}; {remedy}{elsewhere}")


def _is_finished(answer: dict[str, Any]) -> bool:
    """Whether an answer states why it ended, in its choices or as a text of SGLang's."""
    choices = answer.get("choices")
    parts = choices if isinstance(choices, list) else [answer.get("meta_info")]
    return all(isinstance(part, dict) and part.get("finish_reason") is not None for part in parts)
