"""Reading TOML files."""

from pathlib import Path

import pytest

from catalog.errors import ForestageError
from catalog.toml_text import read_toml


def test_the_values_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("[a]\nb = 'ü'\n", encoding="utf-8")
    assert read_toml(path) == {"a": {"b": "ü"}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, r"a\.toml: cannot read the file"),
        (b"\xff", r"a\.toml: not UTF-8"),
        (b"x = [", r"a\.toml: not valid TOML"),
    ],
)
def test_a_fault_names_the_file(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "a.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ForestageError, match=says) as raised:
        read_toml(path)
    assert "\n" not in str(raised.value)
