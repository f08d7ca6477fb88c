"""Growing arrays that move to disk when they become large; see ``Spool``."""

import tempfile
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError

SPILL_BYTES = 64 << 20
"""Most bytes kept in memory; beyond, rows go to an unnamed file in ``tempfile.gettempdir()`` (set by ``TMPDIR``)."""


class Spool:
    """Rows appended in pieces; ``array`` returns all of them, mapped if they went to disk."""

    def __init__(self, dtype: npt.DTypeLike, row_shape: tuple[int, ...] = ()) -> None:
        self.dtype = np.dtype(dtype)
        self.row_shape = row_shape
        self.rows = 0
        self._pieces: list[npt.NDArray[Any]] = []
        self._bytes = 0
        self._file: IO[bytes] | None = None

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Add ``rows [n, *row_shape]`` of the spool's dtype; they are copied.

        Raises:
            ForestageError: if the temporary file cannot be written.
        """
        if rows.shape[1:] != self.row_shape or rows.dtype != self.dtype:
            raise ValueError(f"rows {rows.dtype} {rows.shape}; expected {self.dtype} [n, *{self.row_shape}]")
        self.rows += len(rows)
        self._pieces.append(rows.copy())
        self._bytes += rows.nbytes
        if self._bytes > SPILL_BYTES:
            self._spill()

    def array(self) -> npt.NDArray[Any]:
        """All rows ``[rows, *row_shape]``; no row may be appended after this."""
        if self._file is None:
            return np.concatenate([np.empty((0, *self.row_shape), self.dtype), *self._pieces])
        self._spill()
        return np.asarray(np.memmap(self._file, dtype=self.dtype, mode="r", shape=(self.rows, *self.row_shape)))

    def _spill(self) -> None:
        """Move the pieces in memory to the file."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="forestage-")  # noqa: SIM115 — lives as long as the rows
            for piece in self._pieces:
                self._file.write(np.ascontiguousarray(piece).data)
            self._file.flush()
        except OSError as error:
            raise ForestageError(
                f"{tempfile.gettempdir()}: cannot hold the imported rows ({error.strerror}); set TMPDIR to a larger "
                "disk"
            ) from error
        self._pieces, self._bytes = [], 0
