"""In the simulator: what stands on the command buses."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class BusRecorder:
    """Remembers every cycle in which a command bus is valid; a port's lowest bit says so.

    Attributes:
        row, column: The words of the cycle sampled last; 0 where not valid.
    """

    def __init__(self, dut: Any) -> None:
        self._row, self._column = dut.row, dut.column
        self.row = self.column = 0
        self._rows: list[tuple[int, int]] = []
        self._columns: list[tuple[int, int]] = []

    def sample(self, cycle: int) -> None:
        """See the cycle that ends."""
        row, column = self._row.value.to_unsigned(), self._column.value.to_unsigned()
        self.row = row if row & 1 else 0
        self.column = column if column & 1 else 0
        if self.row:
            self._rows.append((cycle, row))
        if self.column:
            self._columns.append((cycle, column))

    @property
    def columns(self) -> int:
        """Column commands since the last ``take``."""
        return len(self._columns)

    def take(self) -> dict[str, NDArray[np.int64]]:
        """Cycles and words ``[n, 2]`` of both buses since the last call."""
        taken = {
            "row": np.array(self._rows, np.int64).reshape(-1, 2),
            "column": np.array(self._columns, np.int64).reshape(-1, 2),
        }
        self._rows, self._columns = [], []
        return taken
