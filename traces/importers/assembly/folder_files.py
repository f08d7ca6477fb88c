"""Find the files of a format in a folder and its subfolders."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

LEVELS = 2
"""Levels of subfolders that are searched; published collections need no more."""


def files_within(folder: Path, pattern: str) -> Iterator[Path]:
    """Files whose names match the glob ``pattern``, at most ``LEVELS`` folders down, in no certain order."""
    for level in range(LEVELS + 1):
        for path in folder.glob("*/" * level + pattern):
            if path.is_file():
                yield path


def in_number_order(files: Iterable[Path]) -> list[Path]:
    """Files sorted by name, with numbers compared as numbers: ``request_9`` comes before ``request_10``."""

    def order(file: Path) -> list[tuple[int, int, str]]:
        parts = re.split(r"(\d+)", file.name)
        return [(1, int(part), "") if part.isascii() and part.isdecimal() else (0, 0, part) for part in parts]

    return sorted(files, key=order)
