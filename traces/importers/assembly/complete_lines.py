"""Read lines and require an end of the last one, which could otherwise be cut off within its last number."""

import os
from collections.abc import Iterator
from pathlib import Path

from catalog.errors import ForestageError
from traces.importers.assembly.text_file import MAX_LINE_CHARACTERS, open_text
from traces.importers.report import Report


def complete_lines(path: Path, report: Report) -> Iterator[tuple[int, str]]:
    """The lines of ``path``, plain or gzipped, numbered from 1, without their ends; progress in bytes of the file.

    Raises:
        ForestageError: as ``open_text``, for a line longer than ``MAX_LINE_CHARACTERS``, and for a last line without
            an end.
    """
    with open_text(path) as (text, raw):
        total = os.fstat(raw.fileno()).st_size
        number = 0
        while line := text.readline(MAX_LINE_CHARACTERS):
            number += 1
            if not line.endswith("\n"):
                long = len(line) == MAX_LINE_CHARACTERS
                fault = f"longer than {MAX_LINE_CHARACTERS} characters" if long else "has no line end"
                raise ForestageError(f"{path}: line {number}: {fault}; was the file cut off? If not, end the line")
            if number % 4096 == 1:
                report.progress(raw.tell(), total)
            yield number, line[:-1]
        report.progress(total, total)
