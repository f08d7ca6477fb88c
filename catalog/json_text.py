"""Read JSON and refuse repeated names: of two values for one name, Python's own reader silently takes the last."""

import json
from typing import Any


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's members; pass it to ``json`` as ``object_pairs_hook``.

    Raises:
        ValueError: if two members have the same name.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} comes twice in an object")
    return found


DECODER = json.JSONDecoder(object_pairs_hook=distinct)


def parse_json(text: str) -> Any:
    """The value of the JSON ``text``.

    Raises:
        ValueError: if it is not JSON, or an object has a name twice.
        RecursionError: if it is nested too deeply.
    """
    return DECODER.decode(text)
