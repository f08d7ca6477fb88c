"""Prompts for a capture, from a file that people write."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field

from catalog.config import StrictModel
from catalog.errors import ForestageError

JSON_LINES = (".jsonl", ".ndjson")


class CapturePrompt(StrictModel):
    """One prompt.

    Attributes:
        prompt: the text, as it goes to the tokenizer; special tokens named in it are taken as such.
        domain: label of the sequence.
        dataset: what splits stratify by; the domain where ``None``.
    """

    prompt: str = Field(min_length=1)
    domain: str
    dataset: str | None = None


def read_prompts(path: Path, *, domain: str) -> list[CapturePrompt]:
    """The prompts of ``path``: JSON objects, a line each, where its name ends in .jsonl, else a prompt a line.

    Empty lines are passed over; ``domain`` labels prompts that name none.

    Raises:
        ForestageError: naming the file and the line, if it cannot be read or holds no prompt.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ForestageError(f"{path}: cannot read the prompts ({reason})") from error
    as_json = path.suffix.lower() in JSON_LINES
    prompts = [
        _parse(line, f"{path}: line {number}", domain) if as_json else CapturePrompt(prompt=line, domain=domain)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not prompts:
        raise ForestageError(f"{path}: holds no prompt; write one a line")
    return prompts


def _parse(line: str, origin: str, domain: str) -> CapturePrompt:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ForestageError(f"{origin}: not valid JSON ({error}); write one object a line") from error
    if not isinstance(values, dict):
        raise ForestageError(f'{origin}: must be an object such as {{"prompt": "…", "domain": "…"}}')
    return CapturePrompt.parse({"domain": domain, **values}, origin=origin)
