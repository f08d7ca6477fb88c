"""The files that the memory models read and write (their formats stand in ``axi4_ram.sv``)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ReadBurst:
    """A read that is over; cycles are of handshakes: on AR, of the first beat, of the last one."""

    address: int
    beats: int
    asked: int
    first: int
    last: int
    response: int


@dataclass(frozen=True, slots=True)
class WriteBurst:
    """A write that is answered; cycles are of handshakes: on AW, of the first beat, of the last one, on B."""

    address: int
    beats: int
    asked: int
    first: int
    last: int
    answered: int
    response: int


@dataclass(frozen=True, slots=True)
class Fault:
    """What a memory does wrong.

    Attributes:
        kind: ``RESPONSE``, ``LAST``, ``CUT`` or ``WRITE``.
        burst: which read, or which write, counted from 0.
        beat: of the burst: with that response; with rlast inverted; so many come, the last of them with rlast.
        value: the response.
    """

    kind: int
    burst: int
    beat: int = 0
    value: int = 0


RESPONSE, LAST, CUT, WRITE = range(4)


def fault_lines(faults: Iterable[Fault]) -> str:
    """The file ``NAME.faults``."""
    return "".join(f"{fault.kind} {fault.burst} {fault.beat} {fault.value}\n" for fault in faults)


_ADDRESS_BYTES = 8


def word_records(words: Mapping[int, bytes]) -> bytes:
    """The file ``NAME.load``: words of the bus's width, little-endian, by address of the first byte."""
    return b"".join(address.to_bytes(_ADDRESS_BYTES, "big") + word[::-1] for address, word in words.items())


def loaded_addresses(path: Path, data_bytes: int) -> NDArray[np.int64]:
    """Of each word in a file ``NAME.load`` the address, i64 ``[n]``."""
    records = np.fromfile(path, np.uint8).reshape(-1, _ADDRESS_BYTES + data_bytes)
    return np.ascontiguousarray(records[:, :_ADDRESS_BYTES]).view(">i8").ravel().astype(np.int64)


def read_bursts(folder: Path, name: str, first: int = 0) -> tuple[list[ReadBurst], list[WriteBurst]]:
    """All bursts of the memory ``name`` that are over, in order, from byte ``first`` of its log on."""
    reads, writes = [], []
    for line in (folder / f"{name}.log").read_text()[first:].splitlines():
        kind, _, address, *numbers = line.split()
        if kind == "r":
            reads.append(ReadBurst(int(address, 16), *map(int, numbers)))
        else:
            writes.append(WriteBurst(int(address, 16), *map(int, numbers)))
    return reads, writes


def read_written(
    folder: Path, name: str, data_bytes: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.uint8]]:
    """What was written to the memory ``name``, ascending.

    Returns:
        Of each word its address ``[n]``; of each of its bytes whether it was written, and what, ``[n, data_bytes]``.
    """
    addresses, masks, words = [], [], []
    for line in (folder / f"{name}.memory").read_text().splitlines():
        address, mask, word = line.split()
        addresses.append(int(address, 16))
        masks.append(int(mask, 16).to_bytes(-(-data_bytes // 8), "little"))
        words.append(bytes.fromhex(word)[::-1])
    if not addresses:
        return np.zeros(0, np.int64), np.zeros((0, data_bytes), np.bool_), np.zeros((0, data_bytes), np.uint8)
    order = np.argsort(np.array(addresses, np.int64), kind="stable")
    shape = (len(addresses), -1)
    bits = np.frombuffer(b"".join(masks), np.uint8).reshape(shape)
    mask_bits = np.unpackbits(bits, axis=1, bitorder="little")[:, :data_bytes].astype(np.bool_)
    content = np.frombuffer(b"".join(words), np.uint8).reshape(shape)
    return np.array(addresses, np.int64)[order], mask_bits[order], content[order]


def read_breaches(folder: Path, name: str) -> list[str]:
    """What the checker of the bus ``name`` found: cycle and rule."""
    return (folder / f"{name}.breaches").read_text().splitlines()


def pattern(first: int, count: int) -> NDArray[np.uint8]:
    """What ``count`` bytes from address ``first`` on hold in a memory with ``+NAME_fill``: a function of the address.

    Of every 8 bytes: their index times and plus odd constants, then a round of xor-shift and multiplication.
    """
    lanes = np.arange(first // 8, (first + count + 7) // 8 + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        mixed = lanes * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x2545F4914F6CDD1D)
        mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
        mixed ^= mixed >> np.uint64(32)
    return mixed.astype("<u8").view(np.uint8)[first % 8 : first % 8 + count]
