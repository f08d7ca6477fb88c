"""Read choices written as 0 or 1 for every expert (one-hot or multi-hot), in place of the chosen experts' ids.

A row of three or more numbers that are all 0 or 1 cannot be ids, since a choice's ids are distinct. Most rows must be
like this; a few may be broken rows of ids. The n-th number belongs to the n-th expert; columns whose names end in
numbers must count from 0 or from 1 without a gap. Such rows have no order, so the trace is not *ranked*.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.importers.assembly.cells import Place
from traces.importers.assembly.table_columns import shown

NUMBERED = re.compile(r"[^#].*?([0-9]{1,6})")
"""A column's name that ends in a number; ``#3`` is a column's index."""

NARROWEST = 3
"""Fewest numbers in a multi-hot row, since two ids may be 0 and 1."""


@dataclass
class MultiHot:
    """The kind of a table's ``ids`` rows, decided by the majority of the first rows that are not all zeros.

    Attributes:
        experts: numbers per row, if the rows are multi-hot.
        top_k: ones per row, if the rows are multi-hot.
    """

    experts: int | None = None
    top_k: int | None = None
    _told: bool = False

    @property
    def ranked(self) -> bool | None:
        """Whether ids are in rank order; ``None`` for lists of ids, whose weights show it."""
        return None if self.top_k is None else self.top_k == 1

    def chosen(
        self, rows: npt.NDArray[np.int64], place: Place, *, weighed: bool, columns: Sequence[str] = ()
    ) -> npt.NDArray[np.int64]:
        """The ids ``[rows, top_k]`` of some rows, ascending if they are multi-hot; other rows unchanged.

        Args:
            rows: ``[rows, width]``.
            place: names a row in an error.
            weighed: whether there are weights beside the rows.
            columns: names of the columns, if every number has its own.

        Raises:
            ForestageError: if columns are missing or not in order, only some rows are multi-hot, the numbers of ones
                differ, or there are weights beside them.
        """
        if not self._told and len(rows):
            used = rows[rows.any(axis=1)]
            hot = ((used == 0) | (used == 1)).all(axis=1)
            self._told = len(used) > 0
            if rows.shape[1] >= NARROWEST and 2 * hot.sum() > len(used):
                self.experts, self.top_k = rows.shape[1], int(used[hot][0].sum())
        if self.experts is None:
            return rows
        numbers = [match[1] for name in columns if (match := NUMBERED.fullmatch(name)) is not None]
        first = int(numbers[0]) if len(numbers) == self.experts else 0
        if len(numbers) == self.experts and (
            first > 1 or [int(number) for number in numbers] != list(range(first, first + len(numbers)))
        ):
            raise ForestageError(
                f"{place(0)}: a 0 or 1 for each expert, in the columns {shown(columns)}; name those of all experts, in "
                "order, from the first on"
            )
        if weighed:
            raise ForestageError(
                f"{place(0)}: a 0 or 1 for each of {self.experts} experts, which have no order for weights to be in; "
                "leave --column weights out, or write the chosen experts' ids as a list, heaviest first"
            )
        ones = (rows == 1).sum(axis=1)
        bad = np.flatnonzero(((rows != 0) & (rows != 1)).any(axis=1) | (ones != self.top_k) | (ones == 0))
        if rows.shape[1] != self.experts or len(bad):
            row = int(bad[0]) if len(bad) else 0
            raise ForestageError(
                f"{place(row)}: {int(ones[row])} ones among {rows.shape[1]} numbers, but most rows are of "
                f"{self.experts} experts, 0 or 1, the first with {self.top_k} chosen (one-hot or multi-hot); a trace "
                "has as many in every row: leave the others out, or write the chosen experts' ids as lists"
            )
        return np.nonzero(rows)[1].reshape(len(rows), -1)
