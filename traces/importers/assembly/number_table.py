"""Read comma-separated lines of plain decimal numbers, with every field checked."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError

NUMBER = re.compile(r"[ \t]*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[ \t]*")

STRANGE = re.compile(r"[^0-9eE+\-.,naifNAIF \t]")
"""Characters that occur in no number, ``nan`` or ``inf``. NumPy takes all of Unicode's spaces and ASCII's separator
control characters for blanks, so that it would ignore a damaged byte."""


def number_table(path: Path, lines: Sequence[str], names: Sequence[str], first_line: int) -> npt.NDArray[np.float64]:
    """``lines`` of ``path``, the first of them numbered ``first_line``, as f64 ``[lines, names]``.

    Raises:
        ForestageError: naming the first line whose number of fields is not that of ``names``, or the field that is not
            a number; ``nan`` and ``inf`` are left to the caller, which knows the columns.
    """
    try:
        if not all(lines) or any(STRANGE.search(line) for line in lines):
            raise ValueError
        table = np.loadtxt(lines, delimiter=",", dtype=np.float64, ndmin=2, comments=None)
        if table.shape != (len(lines), len(names)):
            raise ValueError
    except ValueError as error:
        raise ForestageError(f"{path}: {_first_fault(lines, names, first_line)}") from error
    return table


def _first_fault(lines: Sequence[str], names: Sequence[str], first_line: int) -> str:
    """The first line that is not a row of numbers, and why."""
    for number, line in enumerate(lines, start=first_line):
        if not line.strip():
            return f"line {number}: empty line"
        fields = line.split(",")
        if len(fields) != len(names):
            return f"line {number}: {len(fields)} fields, but the heading names {len(names)}"
        for name, field in zip(names, fields, strict=True):
            if not NUMBER.fullmatch(field):
                return f"line {number}: {name}: {field[:40]!r} is no number"
    return f"line {first_line}: not readable as numbers"
