"""Read the TOML files of users; a fault is one line that names the file."""

import tomllib
from pathlib import Path
from typing import Any

from catalog.errors import ForestageError


def read_text(path: Path) -> str:
    """The text of the file ``path``.

    Raises:
        ForestageError: if it cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ForestageError(f"{path}: cannot read the file ({error.strerror}); give a TOML file") from error
    except UnicodeDecodeError as error:
        raise ForestageError(f"{path}: not UTF-8 text; give a TOML file") from error


def parse_toml(text: str, origin: str) -> dict[str, Any]:
    """The values in ``text``.

    Raises:
        ForestageError: naming ``origin``, if it is no TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ForestageError(f"{origin}: not valid TOML: {error}") from error


def read_toml(path: Path) -> dict[str, Any]:
    """The values in the file ``path``; errors as of ``read_text`` and ``parse_toml``."""
    return parse_toml(read_text(path), str(path))
