"""The memory image of a learned predictor: what is loaded into the hardware's memories, as one file.

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
``[hidden, experts]``, ``bias`` i32 ``[hidden]``, ``output_bias`` i32 ``[experts]``, ``probabilities`` u16
``[PROBABILITY_BINS]`` and ``shifts`` u8: of the sources that exist, of the identities, of hidden units, of the
score, of the adaptation.

The tagged tables hold nothing at the start and are no part of the image: the host allots ``tagged_entries`` entries of
``entry_bytes`` to each table of each slot. An entry is its key u32, the number of the slot's sequence that wrote it
u32, and the choices ``[layers, top_k]`` of ``tables.id_bytes`` each, all ones where a layer was not recorded.
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
from predictor.learned.config import LearnedConfig
from predictor.learned.context import rank_shifts
from predictor.learned.predictor import LearnedPredictor
from predictor.learned.tables import (
    BEAT_BYTES,
    FRACTION_BITS,
    KEY_ROTATION,
    PROBABILITY_BINS,
    LearnedTables,
    expected_shapes,
    feeding_layers,
)

MAGIC = b"FORESTIM"
VERSION = 1
PAGE_BYTES = 4096
BANK = ("rows", "output", "bias", "output_bias", "probabilities", "shifts")


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
    """What the image is of, and where its sections lie; offsets and sizes in bytes."""

    model: str
    config: LearnedConfig
    layers: int
    experts: int
    top_k: int
    lookahead: int
    rank_shifts: tuple[int, ...]
    fraction_bits: int
    accumulator_bits: int
    key_rotation: int
    entry_bytes: int
    banks: tuple[Bank, ...]
    identity_offset: int
    identity_stride: int
    token_offset: int
    size: int


@dataclass(frozen=True)
class Image:
    """A memory image that was read back."""

    manifest: Manifest
    tables: LearnedTables


def write_image(predictor: LearnedPredictor, path: str | Path) -> Manifest:
    """Write the memory image of ``predictor`` to ``path``, atomically, and return its manifest.

    Raises:
        ForestageError: if it cannot be written.
    """
    sections: list[tuple[int, bytes]] = []
    # The manifest's length depends on the offsets in it: laid out from 0, then moved behind it.
    manifest = _lay_out(predictor, 0, [])
    start = _aligned(16 + 2 * len(manifest.model_dump_json()), PAGE_BYTES)
    manifest = _lay_out(predictor, start, sections)
    text = manifest.model_dump_json().encode()
    if 16 + len(text) > start:
        raise AssertionError("the manifest outgrew the room left for it")
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
        file.write(MAGIC + struct.pack("<II", VERSION, len(text)) + text)
        for offset, data in sections:
            file.write(bytes(offset - file.tell()))
            file.write(data)
    return manifest


def _lay_out(predictor: LearnedPredictor, start: int, sections: list[tuple[int, bytes]]) -> Manifest:
    """The manifest of an image whose banks begin at ``start``; its sections are appended to ``sections``."""
    tables, config = predictor.tables, predictor.config
    present = feeding_layers(config, layers=predictor.layers, lookahead=predictor.lookahead) >= 0
    offset = start
    banks = []
    for layer in range(predictor.layers):
        chosen = np.flatnonzero(present[layer])
        bank_offset = offset
        parts = {}
        for name, array in _bank(tables, layer, chosen).items():
            parts[name] = offset
            sections.append((offset, array.tobytes()))
            offset = _aligned(offset + array.nbytes, BEAT_BYTES)
        banks.append(Bank(offset=bank_offset, size=offset - bank_offset, sources=tuple(chosen.tolist()), parts=parts))
    identity_offset = offset = _aligned(offset, PAGE_BYTES)
    burst = config.identities * predictor.layers * config.hidden
    stride = _aligned(burst, BEAT_BYTES)
    rows = tables.identity_rows.reshape(config.identity_rows, burst)
    if rows.size:
        padded = np.zeros((len(rows), stride), np.int8)
        padded[:, : rows.shape[1]] = rows
        sections.append((offset, padded.tobytes()))
    token_offset = offset = offset + len(rows) * stride
    sections.append((offset, tables.identity_tokens.tobytes()))
    return Manifest(
        model=predictor.model,
        config=config,
        layers=predictor.layers,
        experts=predictor.experts,
        top_k=predictor.top_k,
        lookahead=predictor.lookahead,
        rank_shifts=rank_shifts(predictor.top_k, predictor.ranked),
        fraction_bits=FRACTION_BITS,
        accumulator_bits=predictor.accumulator_bits,
        key_rotation=KEY_ROTATION,
        entry_bytes=predictor.bytes.entry_bytes,
        banks=tuple(banks),
        identity_offset=identity_offset,
        identity_stride=stride,
        token_offset=token_offset,
        size=offset + tables.identity_tokens.nbytes,
    )


def _bank(tables: LearnedTables, layer: int, sources: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
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
        tables.probabilities[layer],
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
        raise ForestageError(f"{path}: version {version} of the image; this reads {VERSION}")
    try:
        manifest = Manifest.model_validate_json(data[16 : 16 + length])
    except ValueError as error:
        raise ForestageError(f"{path}: manifest: not readable; export the predictor again") from error
    if len(data) != manifest.size:
        raise ForestageError(
            f"{path}: {len(data)} bytes where its manifest says {manifest.size}; export the predictor again"
        )
    return Image(manifest, _tables(manifest, data))


def _tables(manifest: Manifest, data: bytes) -> LearnedTables:
    shapes = expected_shapes(
        manifest.config, layers=manifest.layers, experts=manifest.experts, lookahead=manifest.lookahead
    )
    arrays: dict[str, NDArray[Any]] = {name: np.zeros(shape, dtype) for name, (dtype, shape) in shapes.items()}

    def at(offset: int, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
        return np.frombuffer(data, dtype, int(np.prod(shape)), offset).reshape(shape)

    hidden, experts, identities = manifest.config.hidden, manifest.experts, manifest.config.identities
    for layer, bank in enumerate(manifest.banks):
        chosen = list(bank.sources)
        arrays["rows"][layer, chosen] = at(bank.parts["rows"], np.int8, (len(chosen), experts, hidden))
        arrays["output"][layer] = at(bank.parts["output"], np.int8, (hidden, experts))
        arrays["bias"][layer] = at(bank.parts["bias"], np.int32, (hidden,))
        arrays["output_bias"][layer] = at(bank.parts["output_bias"], np.int32, (experts,))
        arrays["probabilities"][layer] = at(bank.parts["probabilities"], np.uint16, (PROBABILITY_BINS,))
        shifts = at(bank.parts["shifts"], np.uint8, (len(chosen) + identities + 3,))
        arrays["source_shifts"][layer, chosen] = shifts[: len(chosen)]
        arrays["identity_shifts"][layer] = shifts[len(chosen) : len(chosen) + identities]
        for name, shift in zip(("hidden_shifts", "score_shifts", "adaptations"), shifts[-3:], strict=True):
            arrays[name][layer] = shift
    rows = manifest.config.identity_rows
    if rows:
        far = at(manifest.identity_offset, np.int8, (rows, manifest.identity_stride))
        arrays["identity_rows"][:] = far[:, : identities * manifest.layers * hidden].reshape(shapes["identity_rows"][1])
        arrays["identity_tokens"][:] = at(manifest.token_offset, np.uint32, (rows - 1,))
    return LearnedTables(**arrays)


def _aligned(offset: int, unit: int) -> int:
    return -(-offset // unit) * unit
