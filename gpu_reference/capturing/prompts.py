"""Read prompts for a capture from a file that a user wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from catalog.config import StrictModel
from catalog.errors import ForestageError

JSON_LINES = (".jsonl", ".ndjson")

Label = Annotated[str, Field(min_length=0)]
"""A text that UTF-8 can encode; pydantic checks that only for texts with a length limit."""


class CapturePrompt(StrictModel):
    """One prompt.

    Attributes:
        prompt: the text for the tokenizer; names of special tokens in it become special tokens.
        domain: label of the sequence.
        dataset: label by which splits are stratified; ``None``: the domain.
    """

    prompt: str = Field(min_length=1)
    domain: Label
    dataset: Label | None = None


def read_prompts(path: Path, *, domain: str) -> list[CapturePrompt]:
    """The prompts in ``path``: one JSON object per line if its name ends in .jsonl, else one prompt per line.

    Empty lines are skipped; prompts without a domain get ``domain``.

    Raises:
        ForestageError: naming the file and the line, if it cannot be read or holds no prompt.
    """
    try:
        # Only line feeds end lines (a text may contain other separators); utf-8-sig skips a byte order mark.
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
