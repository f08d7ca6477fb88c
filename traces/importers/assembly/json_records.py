"""Read JSON objects from a file one at a time: a document, an array of objects, or JSON Lines."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from catalog.errors import ForestageError
from catalog.json_text import DECODER, parse_json
from traces.importers.assembly.text_file import open_text
from traces.importers.report import Report

READ_CHARACTERS = 1 << 20

MAX_RECORD_CHARACTERS = 1 << 30
"""Most characters of an object; a request of 100,000 tokens, 94 layers and 8 experts takes 0.4 GiB."""

TRUNCATION_MARGIN = 16
"""If a text ends within a literal, number or escape, the decoder fails at most so many characters before the end."""


def read_records(path: Path, report: Report) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects in ``path``, plain or gzipped, numbered from 1, in memory for one at a time; progress in bytes.

    Raises:
        ForestageError: if the file cannot be read, is not JSON, is cut off, or holds something other than objects.
    """
    with open_text(path) as (text, raw):
        total = os.fstat(raw.fileno()).st_size
        window = _Window(path, text.read)
        number = 0
        for record in _in_array(window) if window.peek() == "[" else _in_a_row(window):
            number += 1
            yield number, record
            report.progress(raw.tell(), total)
        if not number:
            raise ForestageError(f"{path}: holds no JSON object")
        report.progress(total, total)


def json_object(text: str, place: str) -> dict[str, Any]:
    """The JSON object in ``text``, a line or an event.

    Raises:
        ForestageError: naming ``place``, if it is not an object.
    """
    try:
        value = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise ForestageError(f"{place}: not valid JSON ({error}); is the file cut off?") from error
    if not isinstance(value, dict):
        raise ForestageError(f"{place}: a JSON {type(value).__name__}; expected a JSON object")
    return value


class _Window:
    """The part of a text that is being parsed."""

    def __init__(self, path: Path, read: Callable[[int], str]) -> None:
        self.path = path
        self.read = read
        self.text = ""
        self.start = 0
        self.lines = 0
        self.ended = False

    def peek(self) -> str:
        """The next character that is not a space, without taking it; empty at the end."""
        while True:
            while self.start < len(self.text) and self.text[self.start] in " \t\r\n":
                self.start += 1
            if self.start < len(self.text):
                return self.text[self.start]
            if not self.grow():
                return ""

    def grow(self) -> bool:
        """Read more and drop what was taken; ``False`` at the end of the file."""
        self.lines += self.text.count("\n", 0, self.start)
        self.text, self.start = self.text[self.start :], 0
        # Double the text, so that an object is scanned a few times, not once per piece.
        more = self.read(max(READ_CHARACTERS, len(self.text)))
        self.text += more
        self.ended = not more
        return bool(more)

    def take_character(self) -> str:
        """Take the next character that is not a space; empty at the end."""
        character = self.peek()
        self.start += len(character)
        return character

    def take_object(self) -> dict[str, Any]:
        """Take the next JSON object."""
        if (begin := self.peek()) != "{":
            self.fault(self.start, "expected a JSON object" + ("" if begin else "; is the file cut off?"))
        while True:
            try:
                value, self.start = DECODER.raw_decode(self.text, self.start)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - TRUNCATION_MARGIN
                if not cut:
                    self.fault(error.pos, f"not valid JSON ({error.msg})")
                if len(self.text) > MAX_RECORD_CHARACTERS:
                    self.fault(self.start, f"a JSON object longer than {MAX_RECORD_CHARACTERS} characters")
                if not self.grow():
                    self.fault(len(self.text), f"not valid JSON, or cut off ({error.msg})")
            except (RecursionError, ValueError) as error:
                self.fault(self.start, f"not readable JSON ({error})")
            else:
                return dict(value)

    def fault(self, position: int, text: str) -> NoReturn:
        """Raise an error that names the line of ``position`` in the window."""
        raise ForestageError(f"{self.path}: line {self.lines + self.text.count(chr(10), 0, position) + 1}: {text}")


def _in_array(window: _Window) -> Iterator[dict[str, Any]]:
    """The objects of the array that makes up the file."""
    window.take_character()
    if window.peek() != "]":
        yield window.take_object()
        while window.peek() == ",":
            window.take_character()
            yield window.take_object()
    if window.peek() != "]":
        window.fault(window.start, "expected ',' or ']' in the array; is the file cut off?")
    window.take_character()
    if window.peek():
        window.fault(window.start, "text follows the array")


def _in_a_row(window: _Window) -> Iterator[dict[str, Any]]:
    """Objects one after another."""
    while window.peek():
        yield window.take_object()
