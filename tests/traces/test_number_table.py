"""Lines of plain numbers, and what is none."""

from pathlib import Path

import numpy as np
import pytest

from catalog.errors import ForestageError
from traces.importers.assembly.number_table import number_table

NAMES = ["layer", "weight"]


def test_numbers_are_read_as_they_stand() -> None:
    table = number_table(Path("a.csv"), ["0, 1.5", "2,\t-.25e-1 ", "3,nan"], NAMES, 2)
    np.testing.assert_array_equal(table, [[0, 1.5], [2, -0.025], [3, np.nan]])


@pytest.mark.parametrize("mark", ["\x0b", "\x1c", "\x1f", "\x85", "\xa0", "\u2003", "\x00", "٣", "_0"])
def test_a_damaged_byte_is_no_blank(mark: str) -> None:
    with pytest.raises(ForestageError, match=r"^a\.csv: line 8: weight: .* is no number$"):
        number_table(Path("a.csv"), ["0,1", f"1,0.5{mark}", "x,1"], NAMES, 7)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (["0,1", ""], "line 3: empty line"),
        (["0,1", "5"], "line 3: 1 fields, but the heading names 2"),
        (["0,1,2", "0,1,2"], "line 2: 3 fields, but the heading names 2"),
        (["0,1", "0,infinity"], "line 3: weight: 'infinity' is no number"),
        (["0,1", ",1"], "line 3: layer: '' is no number"),
        (["#,1"], "line 2: layer: '#' is no number"),
    ],
)
def test_the_first_fault_is_named(lines: list[str], fault: str) -> None:
    with pytest.raises(ForestageError) as error:
        number_table(Path("a.csv"), lines, NAMES, 2)
    assert str(error.value) == f"a.csv: {fault}"
