"""What the bench has logged: in which cycle each port carried what."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtl.bus.payload_bits import Layout, array_of, unpack

CYCLE_DIGITS = 10
_LOOK_S = 0.1
"""Between two looks at a log that grows."""
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


def log_path(folder: Path, run: int, name: str) -> Path:
    """Where the bench keeps the log ``name`` of the run, counted from 0, in the simulator's folder."""
    return folder / f"{run}.{name}.log"


def read_log(path: Path, layout: Layout) -> Log:
    """A log whose lines are the cycle and the payload in hexadecimal, each of a fixed number of digits.

    Raises:
        ValueError: for a file of another form.
    """
    return Log(*_parsed(path, np.fromfile(path, np.uint8), layout.size), layout)


def growing_log(path: Path, layout: Layout, is_over: Callable[[], bool]) -> Iterator[Log]:
    """What comes to a log while it grows, some lines at a time, until it is over; the file may be absent at first.

    Args:
        path: the file.
        layout: of its payloads.
        is_over: whether everything is in the file by now.

    Raises:
        ValueError: for a file of another form.
        Exception: what ``is_over`` raises.
    """
    line = _line_bytes(layout.size)
    read = 0
    while True:
        over = is_over()  # before the look at the file: what is over has then been read to its end
        size = path.stat().st_size if path.exists() else 0
        whole = size if over else size // line * line  # the last line may be half written
        if whole > read:
            text = np.fromfile(path, np.uint8, whole - read, offset=read)
            yield Log(*_parsed(path, text, layout.size), layout)
            read = whole
        elif over:
            return
        else:
            time.sleep(_LOOK_S)


def _line_bytes(bits: int) -> int:
    """Characters of a line whose payload has so many bits."""
    return CYCLE_DIGITS + -(-bits // 4) + 1


def _parsed(path: Path, text: NDArray[np.uint8], bits: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Cycles and payloads in the lines ``text`` of ``path``, as in ``Log``.

    Raises:
        ValueError: they are of another form.
    """
    line = _line_bytes(bits)
    if len(text) % line or (len(text) and (text[line - 1 :: line] != ord("\n")).any()):
        raise ValueError(f"{path}: not lines of {line} characters")
    rows = text.reshape(-1, line)[:, :-1]
    values = np.where(rows >= ord("a"), rows - ord("a") + 10, rows - ord("0")).astype(np.uint8)
    if (values > 15).any():
        raise ValueError(f"{path}: a character that is no hexadecimal digit")
    weights = 1 << 4 * np.arange(CYCLE_DIGITS - 1, -1, -1, dtype=np.int64)
    cycle = (values[:, :CYCLE_DIGITS].astype(np.int64) @ weights).astype(np.int64)
    nibbles = values[:, CYCLE_DIGITS:][:, ::-1]
    if nibbles.shape[1] % 2:
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
