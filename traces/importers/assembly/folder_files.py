"""Finding the files of a format in a folder and the folders within."""

from collections.abc import Iterator
from pathlib import Path

LEVELS = 2
"""Folders within folders that are looked into: the published collections need no more."""


def files_within(folder: Path, pattern: str) -> Iterator[Path]:
    """Files whose names match the glob ``pattern``, at most ``LEVELS`` folders down, in no certain order."""
    for level in range(LEVELS + 1):
        for path in folder.glob("*/" * level + pattern):
            if path.is_file():
                yield path
