"""Parse cells of a table as numbers, lists of numbers and texts, without guessing.

A column comes as texts (CSV), as JSON values, or as an Arrow array (Parquet). A whole number has only digits: no
``3.0``, no ``1,234``, no empty cell. A list in a text is ``[1, 2]``, ``1 2``, ``1;2`` or ``1|2``, with or without
brackets and with one kind of separator.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from catalog.json_text import parse_json

Cells = Any
"""A column of one batch: a list of texts or JSON values, or a ``pyarrow.Array``."""

Array = npt.NDArray[Any]
Place = Callable[[int], str]
"""Row of the batch → its file, line and column, for errors."""

BLANKS = r"[ \t\r\n]*"
"""Blanks allowed around a number. Python's ``\\s`` also matches ASCII's separators, which only damage writes."""

FLAGS = {"true": 1, "false": 0, "1.0": 1, "0.0": 0, "1": 1, "0": 0}
"""Programs' words for yes and no, in lower case."""

WHOLE = r"[0-9]{1,18}"
NUMBER = r"(?:[0-9]{1,300}(?:\.[0-9]{0,300})?|\.[0-9]{1,300})(?:[eE][+-]?[0-9]{1,3})?"
ALL_WHOLE = re.compile(rf" *{WHOLE} *(?:\n *{WHOLE} *)*")
ALL_NUMBERS = re.compile(rf" *{NUMBER} *(?:\n *{NUMBER} *)*")
SHOWN = 60


def _list_pattern(number: str) -> re.Pattern[str]:
    """The pattern of a list of such numbers, with or without brackets, with one kind of separator."""
    gaps = *(f"{BLANKS}{mark}{BLANKS}" for mark in (",", ";", r"\|")), r"[ \t\r\n]+"
    parts = "|".join(f"{number}(?:{gap}{number})*" for gap in gaps)
    inner = f"{BLANKS}({parts}){BLANKS}"
    return re.compile(rf"{BLANKS}(?:\[{inner}\]|\({inner}\)|\{{{inner}\}}|({parts})){BLANKS}")


ID_LIST = _list_pattern(rf"(?:-1|{WHOLE})")
NUMBER_LIST = _list_pattern(NUMBER)
GAPS = re.compile(r"[ \t\r\n,;|]+")


def show(value: Any) -> str:
    """A cell as text for an error, on one line."""
    text = " ".join((value if isinstance(value, str) else repr(value)).split())
    return f"'{text[:SHOWN]}'" if len(text) <= SHOWN else f"'{text[:SHOWN]}…'"


def whole(cells: Cells, place: Place, largest: int) -> npt.NDArray[np.int64]:
    """Whole numbers ``[rows]`` from 0 to ``largest``.

    Raises:
        ForestageError: naming the first cell that is none.
    """
    expected = f"expected a whole number from 0 to {largest}"
    array = _arrow_numbers(cells, place, "iu", expected)
    if array is None:
        values = list_of(cells)
        array = _whole_texts(values) if values and isinstance(values[0], str) else None
        if array is None:
            array = np.array([_whole_cell(value, place, row, expected) for row, value in enumerate(values)], np.int64)
    bad = np.flatnonzero((array < 0) | (array > largest))
    if len(bad):
        raise ForestageError(f"{place(int(bad[0]))}: {array[bad[0]]}; {expected}")
    return array.astype(np.int64)


def numbers(cells: Cells, place: Place) -> npt.NDArray[np.float64]:
    """Numbers ``[rows]``, finite and not negative.

    Raises:
        ForestageError: naming the first cell that is none.
    """
    expected = "expected a finite number ≥ 0"
    array = _arrow_numbers(cells, place, "iuf", expected)
    if array is None:
        values = list_of(cells)
        if values and all(isinstance(value, str) for value in values) and ALL_NUMBERS.fullmatch("\n".join(values)):
            array = np.array(values, dtype=object).astype(np.float64)
        else:
            array = np.array(
                [_number_cell(value, place, row, expected) for row, value in enumerate(values)], np.float64
            )
    return _checked_numbers(array, place, expected)


def ids(columns: Sequence[Cells], place: Place, largest: int) -> npt.NDArray[np.int64]:
    """Expert ids ``[rows, k]`` from one column of lists or from several columns; −1 where there is none.

    Raises:
        ForestageError: naming the first cell that is not a list of ids, or not as long as the others.
    """
    expected = f"expected expert ids from 0 to {largest} (or -1, of all, where none was recorded)"
    if len(columns) > 1:
        if len(columns) > 2:  # perhaps one column per expert
            columns = [_flags(column) for column in columns]
            expected += "; of columns that are an expert each, 0 and 1 alone are read: whether it was chosen"
        return np.stack([_signed(column, place, largest, expected) for column in columns], axis=1)
    array = _arrow_lists(columns[0], place, "iu", expected, "ids")
    if array is None:
        values = [_id_list(value, place, row, expected) for row, value in enumerate(list_of(columns[0]))]
        _same_lengths(values, place, "ids")
        try:
            array = np.array(values, dtype=np.int64).reshape(len(values), -1)
        except OverflowError:
            row = next(row for row, value in enumerate(values) if max(value) > largest)
            raise ForestageError(f"{place(row)}: {show(values[row])}; {expected}") from None
    bad = np.flatnonzero(((array < -1) | (array > largest)).any(axis=1))
    if len(bad):
        raise ForestageError(f"{place(int(bad[0]))}: {array[bad[0]].tolist()}; {expected}")
    return array.astype(np.int64)


def number_lists(columns: Sequence[Cells], place: Place, what: str) -> npt.NDArray[np.float64]:
    """Finite numbers ≥ 0, ``[rows, k]``, from one column of lists or from several columns.

    Raises:
        ForestageError: naming the first cell that is not a list of such numbers, or not as long as the others.
    """
    expected = "expected finite numbers ≥ 0"
    if len(columns) > 1:
        return np.stack([numbers(column, place) for column in columns], axis=1)
    array = _arrow_lists(columns[0], place, "iuf", expected, what)
    if array is None:
        values = [_number_list(value, place, row, expected) for row, value in enumerate(list_of(columns[0]))]
        _same_lengths(values, place, what)
        array = np.array(values, dtype=np.float64).reshape(len(values), -1)
    return _checked_numbers(array, place, expected)


def nested_ids(cells: Cells, place: Place, largest: int) -> npt.NDArray[np.int64]:
    """Expert ids ``[rows, layers, k]`` from one column of lists of lists.

    Raises:
        ForestageError: naming the first cell that is not such a list, or has another shape than those before.
    """
    array = _nested(cells, place, "ids")
    expected = f"expected expert ids from 0 to {largest} (or -1, of all, where none was recorded)"
    bad = np.flatnonzero(((array < -1) | (array > largest)).any(axis=(1, 2)))
    if len(bad):
        raise ForestageError(f"{place(int(bad[0]))}: {show(array[bad[0]].tolist())}; {expected}")
    return array.astype(np.int64)


def nested_numbers(cells: Cells, place: Place) -> npt.NDArray[np.float64]:
    """Numbers ``[rows, layers, k]`` from one column of lists of lists.

    Raises:
        ForestageError: as ``nested_ids``.
    """
    return _checked_numbers(_nested(cells, place, "weights").astype(np.float64), place, "expected finite numbers ≥ 0")


def texts(cells: Cells, place: Place) -> list[str]:
    """Labels ``[rows]``: texts, or whole numbers as texts.

    Raises:
        ForestageError: naming the first cell that is empty or neither.
    """
    found = []
    for row, value in enumerate(list_of(cells)):
        if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
            raise ForestageError(f"{place(row)}: {show(value)}; expected a name or a whole number")
        found.append(str(value).strip())
    return found


def list_of(cells: Cells) -> list[Any]:
    """A column's values as Python objects."""
    return cells if isinstance(cells, list) else cells.to_pylist()


def _whole_texts(values: list[Any]) -> npt.NDArray[np.int64] | None:
    """The numbers of texts with only digits; ``None`` if a text is anything else."""
    if not all(isinstance(value, str) for value in values) or not ALL_WHOLE.fullmatch("\n".join(values)):
        return None
    try:
        return np.array(values, dtype=object).astype(np.int64)
    except ValueError:  # a cell with two lines
        return None


def _whole_cell(value: Any, place: Place, row: int, expected: str) -> int:
    """One whole number."""
    if isinstance(value, str) and re.fullmatch(rf" *{WHOLE} *", value):
        return int(value)
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    raise ForestageError(f"{place(row)}: {show(value)}; {expected}")


def _number_cell(value: Any, place: Place, row: int, expected: str) -> float:
    """One number."""
    if isinstance(value, str) and re.fullmatch(f"{BLANKS}{NUMBER}{BLANKS}", value):
        return float(value)
    if type(value) in (int, float) and abs(value) < 1e308:
        return float(value)
    raise ForestageError(f"{place(row)}: {show(value)}; {expected}")


def _id_list(value: Any, place: Place, row: int, expected: str) -> list[int]:
    """One list of whole numbers."""
    if isinstance(value, str):
        match = ID_LIST.fullmatch(value)
        if match:
            inner = next(group for group in match.groups() if group is not None)
            return [int(part) for part in GAPS.split(inner)]
    elif isinstance(value, list) and value and all(type(part) is int for part in value):
        return value
    elif type(value) is int:
        return [value]
    raise ForestageError(f"{place(row)}: {show(value)}; {expected}")


def _number_list(value: Any, place: Place, row: int, expected: str) -> list[float]:
    """One list of numbers."""
    if isinstance(value, str):
        match = NUMBER_LIST.fullmatch(value)
        if match:
            inner = next(group for group in match.groups() if group is not None)
            return [float(part) for part in GAPS.split(inner)]
    elif isinstance(value, list) and value and all(type(part) in (int, float) and abs(part) < 1e308 for part in value):
        return [float(part) for part in value]
    elif type(value) in (int, float):
        return [_number_cell(value, place, row, expected)]
    raise ForestageError(f"{place(row)}: {show(value)}; {expected}")


def _flags(cells: Cells) -> Cells:
    """A column of yes and no (``True``, ``1.0``, …) as 1 and 0; a column with anything else unchanged."""
    values = list_of(cells)
    if not values or not isinstance(values[0], str | bool | float) or values[0] in ("0", "1"):
        return cells
    flags = [_flag(value) for value in values]
    return cells if None in flags else flags


def _flag(value: Any) -> int | None:
    """1 for yes, 0 for no, else ``None``."""
    if isinstance(value, str):
        return FLAGS.get(value.strip().lower())
    return int(value) if value in (0, 1) else None


def _signed(cells: Cells, place: Place, largest: int, expected: str) -> npt.NDArray[np.int64]:
    """One column of ids, −1 where there is none."""
    array = _arrow_numbers(cells, place, "iu", expected)
    if array is None:
        values = list_of(cells)
        array = _whole_texts(values) if values and isinstance(values[0], str) else None
        if array is None:
            array = np.array(
                [
                    -1 if isinstance(value, str) and value.strip() == "-1" else _whole_cell(value, place, row, expected)
                    for row, value in enumerate(values)
                ],
                np.int64,
            )
    bad = np.flatnonzero((array < -1) | (array > largest))
    if len(bad):
        raise ForestageError(f"{place(int(bad[0]))}: {array[bad[0]]}; {expected}")
    return array.astype(np.int64)


def _same_lengths(values: Sequence[Sequence[Any]], place: Place, what: str) -> None:
    """Refuse the first list whose length is not that of the batch's first list."""
    for row, value in enumerate(values):
        if len(value) != len(values[0]):
            raise ForestageError(f"{place(row)}: {len(value)} {what}; the rows before have {len(values[0])}")


def _checked_numbers(array: Array, place: Place, expected: str) -> npt.NDArray[np.float64]:
    """Refuse NaN, infinity and negative numbers."""
    bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0)).reshape(len(array), -1).all(axis=1))
    if len(bad):
        raise ForestageError(f"{place(int(bad[0]))}: {show(array[bad[0]].tolist())}; {expected}")
    return array


def _nested(cells: Cells, place: Place, what: str) -> Array:
    """``[rows, layers, k]`` from lists of lists."""
    made: list[Array] = []
    for row, value in enumerate(list_of(cells)):
        if isinstance(value, str):
            with suppress(ValueError, RecursionError):  # else it stays a text, which the error shows
                value = parse_json(value)
        kinds = (int,) if what == "ids" else (int, float)
        if (
            not isinstance(value, list)
            or not value
            or not all(isinstance(part, list) and part and all(type(x) in kinds for x in part) for part in value)
            or len({len(part) for part in value}) != 1
        ):
            raise ForestageError(
                f"{place(row)}: {show(value)}; expected a list of {what} for every layer; where a row is of one layer, "
                "name its column with --column layer="
            )
        try:
            made.append(np.array(value, dtype=np.int64 if what == "ids" else np.float64))
        except OverflowError:
            raise ForestageError(f"{place(row)}: {show(value)}; numbers too large") from None
        if made[-1].shape != made[0].shape:
            raise ForestageError(
                f"{place(row)}: {list(made[-1].shape)} {what}; the rows before have {list(made[0].shape)}"
            )
    return np.stack(made)


def _arrow_numbers(cells: Cells, place: Place, kinds: str, expected: str) -> Array | None:
    """An Arrow column of numbers as a NumPy array; ``None`` if the cells are Python objects or texts."""
    if isinstance(cells, list):
        return None
    import pyarrow as pa

    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    kind = cells.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    _refuse_null(cells, place, expected)
    if is_text:
        return None
    fits = (pa.types.is_integer(kind) and "i" in kinds) or (pa.types.is_floating(kind) and "f" in kinds)
    if not fits:
        raise ForestageError(f"{place(0)}: the column's type is {kind}; {expected}")
    array = cells.to_numpy(zero_copy_only=False)
    if array.dtype == np.uint64:
        array = np.where(array > 2**62, np.uint64(2**62), array).astype(np.int64)  # above every limit
    return array


def _arrow_lists(cells: Cells, place: Place, kinds: str, expected: str, what: str) -> Array | None:
    """An Arrow column of lists as ``[rows, k]``; ``None`` if the cells are Python objects or texts."""
    if isinstance(cells, list):
        return None
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = cells.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        single = _arrow_numbers(cells, place, kinds, expected)
        return None if single is None else single.reshape(-1, 1)
    _refuse_null(cells, place, expected)
    lengths = pc.list_value_length(cells).to_numpy(zero_copy_only=False)
    bad = np.flatnonzero((lengths != lengths[0]) | (lengths == 0)) if len(lengths) else np.empty(0, np.int64)
    if len(bad):
        row = int(bad[0])
        raise ForestageError(f"{place(row)}: {lengths[row]} {what}; the rows before have {lengths[0]}")
    flat = cells.flatten()
    width = int(lengths[0]) if len(lengths) else 1
    array = _arrow_numbers(flat, lambda item: place(item // width), kinds, expected)
    if array is None:
        raise ForestageError(f"{place(0)}: the column's type is {kind}; {expected}")
    return array.reshape(-1, width)


def _refuse_null(cells: Any, place: Place, expected: str) -> None:
    """Refuse the first empty cell of an Arrow column."""
    if cells.null_count:
        row = int(np.flatnonzero(cells.is_null().to_numpy(zero_copy_only=False))[0])
        raise ForestageError(f"{place(row)}: empty; {expected}")
