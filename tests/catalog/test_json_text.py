"""JSON whose objects say each name once."""

import pytest

from catalog.json_text import parse_json


def test_values_are_those_of_json() -> None:
    assert parse_json('{"a": [1, {"b": null}], "c": "d"}') == {"a": [1, {"b": None}], "c": "d"}


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '[{"b": {"a": 1, "c": 1, "a": 1}}]'])
def test_a_name_that_comes_twice_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^'a' comes twice in an object$"):
        parse_json(text)
