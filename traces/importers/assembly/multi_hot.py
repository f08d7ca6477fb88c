"""Choices written as a 0 or a 1 for every expert (one-hot, or multi-hot), in place of the chosen experts' ids.

A row of three numbers and more that are all 0 or 1 cannot be ids, as those of a choice are distinct. Most rows must be
such; a few may be broken rows of ids. The n-th number is of the n-th expert; columns whose names end in numbers must
count from 0, or from 1, without a gap. Such rows have no order: the trace is not *ranked*.
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
"""A column's name that ends in a number; ``#3`` is a place."""

NARROWEST = 3
"""Two ids may be 0 and 1."""


@dataclass
class MultiHot:
    """What the rows of a table's ``ids`` are, as most of the first that are not all zeros tell.

    Attributes:
        experts: numbers a row, where the rows are multi-hot.
        top_k: ones a row, likewise.
    """

    experts: int | None = None
    top_k: int | None = None
    _told: bool = False

    @property
    def ranked(self) -> bool | None:
        """Whether ids are in rank order; ``None`` where the rows are lists of ids, whose weights tell."""
        return None if self.top_k is None else self.top_k == 1

    def chosen(
        self, rows: npt.NDArray[np.int64], place: Place, *, weighed: bool, columns: Sequence[str] = ()
    ) -> npt.NDArray[np.int64]:
        """The ids ``[rows, top_k]`` of some rows, ascending where they are multi-hot; else the rows as they are.

        Args:
            rows: ``[rows, width]``.
            place: names one of them in an error.
            weighed: whether there are weights beside them.
            columns: names of the columns, where every number has one.

        Raises:
            ForestageError: if columns are left out or not in order, rows are multi-hot and others not, of as many ones,
                or there are weights beside them.
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
