"""The memory image of a row network, whichever its head: what is loaded into the hardware's memories, as one file.

Little-endian. Every section begins at a multiple of ``BEAT_BYTES`` (one bus beat, 512 bits); gaps are zero.

======== ==================================================================================================
bytes    content
======== ==================================================================================================
0-7      ``FORESTIM``
8-11     version, u32
12-15    bytes of the manifest, u32
16-      manifest: JSON (``Manifest``): shape, shifts of ranks, sources, and where every section lies
\\-       one *bank* a layer, for on-chip memory: see ``BANK``
\\-       far memory, from a multiple of 4,096 on: ``identity_stride`` bytes a row, i8 ``[identities, layers, hidden]``:
         all rows of one token in one burst
\\-       for the host: u32 ``[identity_rows − 1]`` ascending, the token hash of each identity row but the last
======== ==================================================================================================

A bank holds, each from a beat on: ``rows`` i8 ``[sources that exist, experts, hidden]``, ``output`` i8
``[hidden, answers]``, ``bias`` i32 ``[lookaheads, hidden]``, ``output_bias`` i32 ``[answers]``, ``chances`` u16
``[lookaheads, questions, CHANCE_BINS]`` and ``shifts`` u8: of the sources that exist, of the identities, of hidden
units, of the score, of the adaptation.

The memory of the text holds nothing at the start and is no part of the image: for each slot the host allots
``ngram_entries`` entries of ``entry_bytes`` to each n-gram table, and ``log_tokens`` records of ``record_bytes``. An
entry is its key, a position, and the number of the slot's sequence that wrote it, u32 each; a record is the choices
``[layers, top_k]`` of ``integers.id_bytes`` each, all ones where a layer was not recorded.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.config import StrictModel
from catalog.errors import ForestageError
from catalog.files import atomic_path
from predictor.row_network.config import NetworkConfig
from predictor.row_network.integers import (
    BEAT_BYTES,
    ENTRY_BYTES,
    FRACTION_BITS,
    KEY_ROTATION,
    NetworkTables,
    expected_shapes,
)
from predictor.row_network.sources import feeding_layers, rank_shifts
from predictor.row_network.twin import RowNetwork

MAGIC = b"FORESTIM"
VERSION = 2
PAGE_BYTES = 4096
BANK = ("rows", "output", "bias", "output_bias", "chances", "shifts")


class Bank(StrictModel):
    """Where one layer's tables lie in the file, in bytes.

    Attributes:
        offset, size: of the whole bank.
        sources: indices of the sources that exist, in the order of their rows.
        parts: offset of each part of ``BANK``.
    """

    offset: int
    size: int
    sources: tuple[int, ...]
    parts: dict[str, int]


class Manifest(StrictModel):
    """What the image is of, and where its sections lie; offsets and sizes in bytes.

    Attributes:
        head: what is asked, as in the file of the network.
        config: what the network looks at; ``questions``, ``layers``, ``experts``, ``top_k``: its shape.
        text_per_slot: of the n-gram tables and the log, for the host to allot.
    """

    head: str
    model: str
    config: NetworkConfig
    questions: int
    layers: int
    experts: int
    top_k: int
    rank_shifts: tuple[int, ...]
    fraction_bits: int
    accumulator_bits: int
    key_rotation: int
    entry_bytes: int
    record_bytes: int
    text_per_slot: int
    banks: tuple[Bank, ...]
    identity_offset: int
    identity_stride: int
    token_offset: int
    size: int


@dataclass(frozen=True)
class Image:
    """A memory image that was read back."""

    manifest: Manifest
    tables: NetworkTables


def write_image(network: RowNetwork, path: str | Path, *, head: str, model: str) -> Manifest:
    """Write the memory image of ``network`` to ``path``, atomically, and return its manifest; ``model``: whose routing.

    Raises:
        ForestageError: if it cannot be written.
    """
    sections: list[tuple[int, bytes]] = []
    # The manifest's length depends on the offsets in it: laid out from 0, then moved behind it.
    manifest = _lay_out(network, 0, [], head, model)
    start = _aligned(16 + 2 * len(manifest.model_dump_json()), PAGE_BYTES)
    manifest = _lay_out(network, start, sections, head, model)
    text = manifest.model_dump_json().encode()
    if 16 + len(text) > start:
        raise AssertionError("the manifest outgrew the room left for it")
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
        file.write(MAGIC + struct.pack("<II", VERSION, len(text)) + text)
        for offset, data in sections:
            file.write(bytes(offset - file.tell()))
            file.write(data)
    return manifest


def _lay_out(network: RowNetwork, start: int, sections: list[tuple[int, bytes]], head: str, model: str) -> Manifest:
    """The manifest of an image whose banks begin at ``start``; its sections are appended to ``sections``."""
    tables, config = network.tables, network.config
    present = feeding_layers(config, layers=network.layers) >= 0
    offset = start
    banks = []
    for layer in range(network.layers):
        chosen = np.flatnonzero(present[layer])
        bank_offset = offset
        parts = {}
        for name, array in _bank(tables, layer, chosen).items():
            parts[name] = offset
            sections.append((offset, array.tobytes()))
            offset = _aligned(offset + array.nbytes, BEAT_BYTES)
        banks.append(Bank(offset=bank_offset, size=offset - bank_offset, sources=tuple(chosen.tolist()), parts=parts))
    identity_offset = offset = _aligned(offset, PAGE_BYTES)
    burst = config.identities * network.layers * config.hidden
    stride = _aligned(burst, BEAT_BYTES)
    rows = tables.identity_rows.reshape(config.identity_rows, burst)
    if rows.size:
        padded = np.zeros((len(rows), stride), np.int8)
        padded[:, : rows.shape[1]] = rows
        sections.append((offset, padded.tobytes()))
    token_offset = offset = offset + len(rows) * stride
    sections.append((offset, tables.identity_tokens.tobytes()))
    return Manifest(
        head=head,
        model=model,
        config=NetworkConfig(**{name: getattr(config, name) for name in NetworkConfig.model_fields}),
        questions=config.questions,
        layers=network.layers,
        experts=network.experts,
        top_k=network.top_k,
        rank_shifts=rank_shifts(network.top_k, network.ranked),
        fraction_bits=FRACTION_BITS,
        accumulator_bits=network.accumulator_bits,
        key_rotation=KEY_ROTATION,
        entry_bytes=ENTRY_BYTES,
        record_bytes=network.bytes.record_bytes,
        text_per_slot=network.bytes.text_per_slot,
        banks=tuple(banks),
        identity_offset=identity_offset,
        identity_stride=stride,
        token_offset=token_offset,
        size=offset + tables.identity_tokens.nbytes,
    )


def _bank(tables: NetworkTables, layer: int, sources: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """The parts of one layer's bank, in the order of ``BANK``."""
    shifts = [
        tables.source_shifts[layer, sources],
        tables.identity_shifts[layer],
        tables.hidden_shifts[layer : layer + 1],
        tables.score_shifts[layer : layer + 1],
        tables.adaptations[layer : layer + 1],
    ]
    parts = (
        tables.rows[layer, sources],
        tables.output[layer],
        tables.bias[layer],
        tables.output_bias[layer],
        tables.chances[layer],
        np.concatenate(shifts),
    )
    return dict(zip(BANK, parts, strict=True))


def read_image(path: str | Path) -> Image:
    """Read a memory image back, as the hardware's loader sees it.

    Raises:
        ForestageError: if the file is no image, or shorter than its manifest says.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ForestageError(f"{path}: cannot read ({error.strerror})") from error
    if len(data) < 16 or data[:8] != MAGIC:
        raise ForestageError(f"{path}: not a memory image; write one with `forestage predictor export`")
    version, length = struct.unpack("<II", data[8:16])
    if version != VERSION:
        raise ForestageError(
            f"{path}: version {version} of the image; this reads {VERSION}; export the predictor again"
        )
    try:
        manifest = Manifest.model_validate_json(data[16 : 16 + length])
    except ValueError as error:
        raise ForestageError(f"{path}: manifest: not readable; export the predictor again") from error
    if len(data) != manifest.size:
        raise ForestageError(
            f"{path}: {len(data)} bytes where its manifest says {manifest.size}; export the predictor again"
        )
    return Image(manifest, _tables(manifest, data))


def _tables(manifest: Manifest, data: bytes) -> NetworkTables:
    config, layers, experts, questions = manifest.config, manifest.layers, manifest.experts, manifest.questions
    shapes = expected_shapes(config, layers=layers, experts=experts, questions=questions)
    arrays: dict[str, NDArray[Any]] = {name: np.zeros(shape, dtype) for name, (dtype, shape) in shapes.items()}

    def at(offset: int, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
        return np.frombuffer(data, dtype, int(np.prod(shape)), offset).reshape(shape)

    identities = config.identities
    for layer, bank in enumerate(manifest.banks):
        chosen = list(bank.sources)
        arrays["rows"][layer, chosen] = at(bank.parts["rows"], np.int8, (len(chosen), experts, config.hidden))
        for name in ("output", "bias", "output_bias", "chances"):
            dtype, shape = shapes[name]
            arrays[name][layer] = at(bank.parts[name], dtype, shape[1:])
        shifts = at(bank.parts["shifts"], np.uint8, (len(chosen) + identities + 3,))
        arrays["source_shifts"][layer, chosen] = shifts[: len(chosen)]
        arrays["identity_shifts"][layer] = shifts[len(chosen) : len(chosen) + identities]
        for name, shift in zip(("hidden_shifts", "score_shifts", "adaptations"), shifts[-3:], strict=True):
            arrays[name][layer] = shift
    rows = config.identity_rows
    if rows:
        far = at(manifest.identity_offset, np.int8, (rows, manifest.identity_stride))
        burst = identities * layers * config.hidden
        arrays["identity_rows"][:] = far[:, :burst].reshape(shapes["identity_rows"][1])
        arrays["identity_tokens"][:] = at(manifest.token_offset, np.uint32, (rows - 1,))
    return NetworkTables(**arrays)


def _aligned(offset: int, unit: int) -> int:
    return -(-offset // unit) * unit
