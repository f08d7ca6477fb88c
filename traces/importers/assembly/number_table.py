"""Comma-separated lines of plain decimal numbers, every field checked."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError

NUMBER = re.compile(r"[ \t]*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[ \t]*")

STRANGE = re.compile(r"[^0-9eE+\-.,naifNAIF \t]")
"""What neither a number nor ``nan`` and ``inf`` are written with. NumPy takes any of Unicode's spaces, separators of
ASCII's control characters included, for a blank: a damaged byte would pass for nothing."""


def number_table(path: Path, lines: Sequence[str], names: Sequence[str], first_line: int) -> npt.NDArray[np.float64]:
    """``lines`` of ``path``, the first of them numbered ``first_line``, as f64 ``[lines, names]``.

    Raises:
        ForestageError: naming the first line with another number of fields than ``names``, or the field that is no
            number; ``nan`` and ``inf`` are left to the caller, who knows what a column may hold.
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
    """The first line that is no row of numbers, and why."""
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
