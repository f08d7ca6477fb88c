"""What the bench has logged: in which cycle each port carried what."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtl.bus.payload_bits import Layout, array_of, unpack

CYCLE_DIGITS = 10
BURST_FIELDS = {
    "reads": ("address", "beats", "asked", "first", "last"),
    "writes": ("address", "beats", "asked", "first", "last", "answered"),
}
"""Columns of ``EngineRun.bursts``, as of ``cocotb_tests.models.files``; from the third on cycles."""


@dataclass(frozen=True)
class Log:
    """Payloads of a port, in order.

    Attributes:
        cycle: i64 ``[n]``.
        payload: u8 ``[n, bytes]``, little-endian.
        layout: of the payload.
    """

    cycle: NDArray[np.int64]
    payload: NDArray[np.uint8]
    layout: Layout

    @property
    def count(self) -> int:
        """How many payloads."""
        return len(self.cycle)

    def fields(self) -> dict[str, NDArray[np.int64]]:
        """The numbers in the payloads by path, i64 ``[n]`` each."""
        return unpack(self.layout, self.payload)

    def array(self, path: str) -> NDArray[np.int64]:
        """An array of numbers in the payloads: i64 ``[n, elements]``."""
        return array_of(self.fields(), path)


def read_log(path: Path, layout: Layout) -> Log:
    """A log whose lines are the cycle and the payload in hexadecimal, each of a fixed number of digits.

    Raises:
        ValueError: for a file of another form.
    """
    return Log(*read_lines(path, layout.size), layout)


def read_lines(path: Path, bits: int, first: int = 0) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Cycles and payloads of a log from byte ``first`` on, as in ``Log``.

    Raises:
        ValueError: for a file of another form.
    """
    digits = -(-bits // 4)
    line = CYCLE_DIGITS + digits + 1
    text = np.fromfile(path, np.uint8, offset=first)
    if len(text) % line or (len(text) and (text[line - 1 :: line] != ord("\n")).any()):
        raise ValueError(f"{path}: not lines of {line} characters")
    rows = text.reshape(-1, line)[:, :-1]
    values = np.where(rows >= ord("a"), rows - ord("a") + 10, rows - ord("0")).astype(np.uint8)
    if (values > 15).any():
        raise ValueError(f"{path}: a character that is no hexadecimal digit")
    weights = 1 << 4 * np.arange(CYCLE_DIGITS - 1, -1, -1, dtype=np.int64)
    cycle = (values[:, :CYCLE_DIGITS].astype(np.int64) @ weights).astype(np.int64)
    nibbles = values[:, CYCLE_DIGITS:][:, ::-1]
    if digits % 2:
        nibbles = np.concatenate([nibbles, np.zeros((len(nibbles), 1), np.uint8)], axis=1)
    payload = (nibbles[:, 0::2] | nibbles[:, 1::2] << 4).astype(np.uint8)
    return cycle, payload


def words_text(payloads: NDArray[np.uint8]) -> str:
    """A file for ``$readmemh``: a word a line, of payloads u8 ``[n, bytes]``, little-endian."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    count, size = payloads.shape
    lines = np.empty((count, 2 * size + 1), np.uint8)
    lines[:, 0:-1:2] = digits[payloads[:, ::-1] >> 4]
    lines[:, 1:-1:2] = digits[payloads[:, ::-1] & 15]
    lines[:, -1] = ord("\n")
    return lines.tobytes().decode("ascii")
