"""Prompts for a capture, from a file that people write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from catalog.config import StrictModel
from catalog.errors import ForestageError

JSON_LINES = (".jsonl", ".ndjson")

Label = Annotated[str, Field(min_length=0)]
"""A text that UTF-8 can hold: pydantic looks into a text only where its length is bounded."""


class CapturePrompt(StrictModel):
    """One prompt.

    Attributes:
        prompt: the text, as it goes to the tokenizer; special tokens named in it are taken as such.
        domain: label of the sequence.
        dataset: what splits stratify by; the domain where ``None``.
    """

    prompt: str = Field(min_length=1)
    domain: Label
    dataset: Label | None = None


def read_prompts(path: Path, *, domain: str) -> list[CapturePrompt]:
    """The prompts of ``path``: JSON objects, a line each, where its name ends in .jsonl, else a prompt a line.

    Empty lines are passed over; ``domain`` labels prompts that name none.

    Raises:
        ForestageError: naming the file and the line, if it cannot be read or holds no prompt.
    """
    try:
        # Lines end at line feeds alone (a text may hold other separators); utf-8-sig passes over a byte order mark.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ForestageError(f"{path}: cannot read the prompts ({reason})") from error
    as_json = path.suffix.lower() in JSON_LINES
    prompts = [
        CapturePrompt.parse(
            {"domain": domain, **(_object(line, f"{path}: line {number}") if as_json else {"prompt": line})},
            origin=f"{path}: line {number}",
        )
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not prompts:
        raise ForestageError(f"{path}: holds no prompt; write one a line")
    return prompts


def _object(line: str, origin: str) -> dict[str, Any]:
    """The JSON object in ``line``."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ForestageError(f"{origin}: not valid JSON ({error}); write one object a line") from error
    if not isinstance(values, dict):
        raise ForestageError(f'{origin}: must be an object such as {{"prompt": "…", "domain": "…"}}')
    return values
