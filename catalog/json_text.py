"""JSON that says each thing once: of two values of one name Python's own reader takes the last, without a word."""

import json
from typing import Any


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's members, as ``object_pairs_hook`` of ``json``.

    Raises:
        ValueError: if two have one name.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} comes twice in an object")
    return found


DECODER = json.JSONDecoder(object_pairs_hook=distinct)


def parse_json(text: str) -> Any:
    """The value that ``text`` is.

    Raises:
        ValueError: if it is no JSON, or an object has a name twice.
        RecursionError: if it is nested too deeply.
    """
    return DECODER.decode(text)
