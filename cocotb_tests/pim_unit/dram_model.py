"""In the simulator: the banks of a pseudo-channel, which answer the unit's PIM commands."""

import random
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CLOSED = -1


class DramModel:
    """Banks with open rows; a PIM gets the columns of the open rows ``latency`` cycles after it stood on the port.

    Where there is no such column (a closed bank, a row without contents), and in every cycle in which no column is due,
    the unit gets noise: whatever it takes at the wrong time is wrong.

    Attributes:
        refused: Cycles of PIMs to closed banks, or to rows without contents.
    """

    def __init__(
        self,
        dut: Any,
        contents: NDArray[np.uint8],
        *,
        first_row: int,
        latency: int,
        row_commands: Sequence[str],
        column_commands: Sequence[str],
        fields: Mapping[str, Mapping[str, tuple[int, int]]],
        seed: int,
    ) -> None:
        """Banks whose contents lie from ``first_row`` on.

        Args:
            dut: The unit, with its port ``column_data``.
            contents: ``[halves, rows, columns, blocks, bytes]``.
            first_row: The row of the banks that ``contents`` begins with.
            latency: CL.
            row_commands, column_commands: Names of the commands on the two ports, by their codes.
            fields: Lowest bit and width of every field of the two ports.
            seed: Of the noise.
        """
        halves, rows, columns, self._blocks, self._bytes = contents.shape
        self._rows = rows
        self._data = dut.column_data
        self._contents = contents.reshape(halves, rows, columns, -1)
        self._first_row, self._latency = first_row, latency
        self._row_commands = row_commands
        self._pim = column_commands.index("PIM")
        self._fields = fields
        self._open = [[_CLOSED] * self._blocks for _ in range(halves)]
        self._pending: deque[tuple[int, int]] = deque()
        generator = random.Random(seed)
        self._noise = [generator.getrandbits(8 * self._bytes * self._blocks) for _ in range(64)]
        self._noisy = False
        self.refused: list[int] = []

    def drive(self, cycle: int) -> None:
        """Set the data of ``cycle``."""
        if self._pending and self._pending[0][0] == cycle:
            self._data.value = self._pending.popleft()[1]
            self._noisy = False
        elif not self._noisy:
            self._data.value = self._noise[cycle % len(self._noise)]
            self._noisy = True

    def sample(self, cycle: int, row: int, column: int) -> None:
        """Take the commands of the cycle that ends, as the ports' words; 0 for none."""
        # A column is read before the row command of the same cycle closes its row.
        if column and self._field(column, "column", "command") == self._pim:
            self._pending.append((cycle + self._latency, self._read(cycle, column)))
        if row:
            self._change_row(row)

    def _read(self, cycle: int, word: int) -> int:
        half, column = self._field(word, "column", "half"), self._field(word, "column", "column")
        rows = [row - self._first_row for row in self._open[half]]
        if not all(0 <= row < self._rows for row in rows):
            self.refused.append(cycle)
            return self._noise[cycle % len(self._noise)]
        if rows.count(rows[0]) == len(rows):
            found = self._contents[half, rows[0], column]
        else:
            of_blocks = self._contents[half, :, column].reshape(self._rows, self._blocks, self._bytes)
            found = of_blocks[rows, np.arange(self._blocks)]
        return int.from_bytes(found.tobytes(), "little")

    def _change_row(self, word: int) -> None:
        command = self._row_commands[self._field(word, "row", "command")]
        if command == "ACT":
            half, block = self._field(word, "row", "half"), self._field(word, "row", "block")
            self._open[half][block] = self._field(word, "row", "row")
        elif command == "PREH":
            self._open[self._field(word, "row", "half")] = [_CLOSED] * self._blocks
        elif command == "PREAB":
            self._open = [[_CLOSED] * self._blocks for _ in self._open]

    def _field(self, word: int, port: str, name: str) -> int:
        lowest, width = self._fields[port][name]
        return word >> lowest & (1 << width) - 1
