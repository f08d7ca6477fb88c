"""Sections of a memory image that the hardware's loader reads: the net's memories as blocks, behind a header.

A section is whole beats of ``BEAT_BYTES``; words of 32 bits, little-endian. Its first beat is the header (``HEADER``),
with the rest zero; then come blocks, each a beat (``BLOCK``) and its data: words of ``word_bytes``, side by side, the
first lowest, up to a whole beat. A word of less than a beat has 1, 2, 4, 8, 16 or 32 bytes, any other is whole beats.

There are two kinds. The *shared* section has what is asked at any distance, a *distance* section what is asked at one
alone: to ask at another one, its section alone is loaded. Both carry the identity of the net that they are of.

The checksum is Fletcher's over the section's 32-bit words, those of the checksum counting as 0:

    low, high = 1, 0;  for each word: low = (low + word) mod 2^32, high = (high + low) mod 2^32

(J. Fletcher, "An arithmetic checksum for serial transmissions", IEEE Transactions on Communications, 1982, with sums
modulo 2^32.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from predictor.row_network.integers import BEAT_BYTES
from predictor.row_network.program import Contents, Fields, Memory, pack, unpack

MAGIC = int.from_bytes(b"FSNI", "little")
VERSION = 3
TABLES_MAX = 8
"""N-gram tables that a header has room for."""

HEADER: Fields = (
    ("magic", 32),
    ("version", 32),
    ("beats", 32),
    ("checksum_low", 32),
    ("checksum_high", 32),
    ("identity", 32),
    ("head", 1),
    ("distance_alone", 1),
    ("unused", 6),
    ("layers", 8),
    ("experts", 16),
    ("top_k", 8),
    ("questions", 8),
    ("distance", 8),
    ("row_beats", 8),
    ("lanes", 16),
    ("by_routing", 1),
    ("tables", 7),
    ("identities", 8),
    ("log2_entries", 8),
    ("log2_log", 8),
    ("words", 8),
    ("unused2", 8),
    *((f"length{table}", 4) for table in range(TABLES_MAX)),
    ("operations", 8),
    ("previous", 8),
    ("decays", 8),
    ("matched", 8),
)
"""The first beat: ``beats`` of the whole section; ``identity`` of the net; ``distance_alone``: of one distance;
``words`` of so many ``lanes`` a row; what of `limits.HeadLimits` it takes; and the memory of the text that the net
looks at (``tables`` 0: none)."""

BLOCK: Fields = (("memory", 8), ("log2_small", 8), ("parts", 16), ("first", 32), ("words", 32), ("beats", 32))
"""The beat before a block's data: ``parts`` beats a word, or, where 1, ``2^log2_small`` bytes a word (6: a beat)."""

OF_DISTANCE = (Memory.BIAS, Memory.CHANCES, Memory.GATE_PROGRAM, Memory.SETTINGS)
"""The memories that a distance section holds; the shared one has all others."""


class LoadError(IntEnum):
    """What the loader reports; the first that it meets."""

    NONE = 0
    BUS = 1
    MAGIC = 2
    VERSION = 3
    SHAPE = 4
    TEXT = 5
    LANES = 6
    BLOCK = 7
    CHECKSUM = 8
    ORDER = 9
    BUSY = 10


def checksum(words: NDArray[np.uint32]) -> tuple[int, int]:
    """(low, high) of a section's words."""
    values = words.astype(np.uint64)
    low = (1 + np.cumsum(values, dtype=np.uint64)) & np.uint64(0xFFFFFFFF)
    return (int(low[-1]), int(low.sum(dtype=np.uint64)) & 0xFFFFFFFF) if len(values) else (1, 0)


def word_size(contents: Contents) -> int:
    """Bytes of a word in a block."""
    size = contents.data.shape[1]
    return 1 << (size - 1).bit_length() if size <= BEAT_BYTES else -(-size // BEAT_BYTES) * BEAT_BYTES


def write_section(header: dict[str, int], memories: dict[Memory, Contents]) -> bytes:
    """A section of these memories; ``header``: the fields but those that say how long it is and check it."""
    blocks = [_block(memory, contents) for memory, contents in memories.items()]
    beats = 1 + sum(len(block) for block in blocks) // BEAT_BYTES
    fields = {**header, "magic": MAGIC, "version": VERSION, "beats": beats}
    data = bytearray(pack(HEADER, fields).tobytes().ljust(BEAT_BYTES, b"\0") + b"".join(blocks))
    low, high = checksum(np.frombuffer(data, "<u4"))
    fields |= {"checksum_low": low, "checksum_high": high}
    data[:BEAT_BYTES] = pack(HEADER, fields).tobytes().ljust(BEAT_BYTES, b"\0")
    return bytes(data)


def _block(memory: Memory, contents: Contents) -> bytes:
    size = word_size(contents)
    words = np.zeros((len(contents.data), size), np.uint8)
    words[:, : contents.data.shape[1]] = contents.data
    beats = -(-words.size // BEAT_BYTES)
    fields = {
        "memory": memory,
        "log2_small": min(size, BEAT_BYTES).bit_length() - 1,
        "parts": max(1, size // BEAT_BYTES),
        "first": 0,
        "words": len(words),
        "beats": beats,
    }
    return pack(BLOCK, fields).tobytes().ljust(BEAT_BYTES, b"\0") + words.tobytes().ljust(beats * BEAT_BYTES, b"\0")


@dataclass(frozen=True)
class Section:
    """A section that was read back.

    Attributes:
        header: its fields.
        memories: u8 ``[words, word bytes]`` of each.
    """

    header: dict[str, int]
    memories: dict[Memory, NDArray[np.uint8]]


def read_section(data: bytes) -> Section:
    """Read a section, as the loader does.

    Raises:
        ValueError: for one that the loader would refuse, saying why.
    """
    if len(data) < BEAT_BYTES or len(data) % BEAT_BYTES:
        raise ValueError("not whole beats")
    header = unpack(HEADER, int.from_bytes(data[:BEAT_BYTES], "little"))
    if header["magic"] != MAGIC or header["version"] != VERSION:
        raise ValueError("not a section of this version")
    if header["beats"] * BEAT_BYTES != len(data):
        raise ValueError("another length than its header says")
    zeroed = {**header, "checksum_low": 0, "checksum_high": 0}
    counted = pack(HEADER, zeroed).tobytes().ljust(BEAT_BYTES, b"\0") + data[BEAT_BYTES:]
    if checksum(np.frombuffer(counted, "<u4")) != (header["checksum_low"], header["checksum_high"]):
        raise ValueError("checksum differs")
    memories = {}
    at = BEAT_BYTES
    while at < len(data):
        block = unpack(BLOCK, int.from_bytes(data[at : at + BEAT_BYTES], "little"))
        size = block["parts"] * BEAT_BYTES if block["parts"] > 1 else 1 << block["log2_small"]
        at += BEAT_BYTES
        used = block["words"] * size
        if at + block["beats"] * BEAT_BYTES > len(data) or -(-used // BEAT_BYTES) != block["beats"]:
            raise ValueError(f"block of memory {block['memory']} of another length than its beat says")
        memories[Memory(block["memory"])] = np.frombuffer(data, np.uint8, used, at).reshape(-1, size)
        at += block["beats"] * BEAT_BYTES
    return Section(header, memories)


def split_memories(contents: dict[Memory, Contents]) -> tuple[dict[Memory, Contents], dict[Memory, Contents]]:
    """(shared, of one distance)."""
    own: Sequence[Memory] = OF_DISTANCE
    return (
        {memory: held for memory, held in contents.items() if memory not in own},
        {memory: contents[memory] for memory in own},
    )
