"""The memory image of a row network, whichever its head: what is loaded into the hardware's memories, as one file.

Little-endian. Every part begins at a multiple of ``PAGE_BYTES`` (no part shares a bus beat with another); gaps are
zero.

======== ==================================================================================================
bytes    content
======== ==================================================================================================
0-7      ``FORESTIM``
8-11     version, u32
12-15    bytes of the manifest, u32
16-      manifest: JSON (``Manifest``): shape, shifts of ranks, and where everything lies
\\-       sections for the hardware's loader (``sections``): what is asked at any distance, then what is asked at one,
         for each distance that the network serves
\\-       far memory: ``identity_stride`` bytes a row, i8 ``[identities, layers, hidden]``, ``hidden`` padded with zeros
         to whole beats of ``BEAT_BYTES``: all rows of one token in one burst
\\-       for the host: u32 ``[identity_rows − 1]`` ascending, the token hash of each identity row but the last
\\-       for the host: every other table of the network (``integers.NetworkTables``), as it is
======== ==================================================================================================

The sections hold the memories of a net of so many ``lanes`` (``program``). The host's tables are what they were made
from; ``read_image`` makes them anew and compares.

The memory of the text holds nothing at the start and is no part of the image: for each slot the host allots
``text_per_slot`` bytes and clears them once (``text_traffic`` says what lies where).
"""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from catalog.config import StrictModel
from catalog.errors import ForestageError
from catalog.files import atomic_path
from predictor.row_network.config import NetworkConfig
from predictor.row_network.integers import (
    BEAT_BYTES,
    ENTRY_BYTES,
    FRACTION_BITS,
    KEY_ROTATION,
    NAMES,
    NetworkTables,
    expected_shapes,
)
from predictor.row_network.program import HeadProgram, head_program
from predictor.row_network.sections import VERSION, split_memories, write_section
from predictor.row_network.sources import rank_shifts
from predictor.row_network.twin import RowNetwork

MAGIC = b"FORESTIM"
PAGE_BYTES = 4096
LANES = 128
"""Lanes of the net that an image is for, unless said otherwise."""
HEADS = ("next-layer", "next-use")
"""A head's number in a section is its place here."""
FAR = ("identity_rows", "identity_tokens")
"""Tables that lie in parts of their own."""


class SectionPlace(StrictModel):
    """Where a section lies in the file.

    Attributes:
        distance: the one it is of; ``None``: all.
        offset, size: in bytes.
    """

    distance: int | None
    offset: int
    size: int


class Manifest(StrictModel):
    """What the image is of, and where its parts lie; offsets and sizes in bytes.

    Attributes:
        head: what is asked, as in the file of the network.
        config: what the network looks at; ``questions``, ``layers``, ``experts``, ``top_k``: its shape.
        ranked: whether better ranks weigh more.
        lanes: of the net in hardware.
        bank_bytes: of the net's memories, one distance's, all layers together.
        log_offset: of the log, in a slot's memory of the text.
        text_per_slot: of the n-gram tables and the log, for the host to allot.
        sections: the shared one first.
        tables: offset of each table for the host.
    """

    head: str
    model: str
    config: NetworkConfig
    questions: int
    layers: int
    experts: int
    top_k: int
    ranked: bool
    lanes: int
    rank_shifts: tuple[int, ...]
    fraction_bits: int
    accumulator_bits: int
    key_rotation: int
    entry_bytes: int
    record_bytes: int
    log_offset: int
    text_per_slot: int
    bank_bytes: int
    sections: tuple[SectionPlace, ...]
    identity_offset: int
    identity_stride: int
    token_offset: int
    tables: dict[str, int]
    size: int


class _Asked(NetworkConfig):
    """A configuration that says how many questions there are, whichever the head."""

    asked: int

    @property
    @override
    def questions(self) -> int:
        return self.asked


@dataclass(frozen=True)
class Image:
    """A memory image that was read back."""

    manifest: Manifest
    tables: NetworkTables
    sections: tuple[bytes, ...]


def write_image(network: RowNetwork, path: str | Path, *, head: str, model: str, lanes: int = LANES) -> Manifest:
    """Write the memory image of ``network`` to ``path``, atomically, and return its manifest.

    Args:
        network: any distance that it serves can be loaded from the image.
        path: file to write.
        head: ``next-layer`` or ``next-use``.
        model: whose routing.
        lanes: of the net in hardware.

    Raises:
        ForestageError: if it cannot be written, or the hardware has no room for such a network.
    """
    parts: list[tuple[int, bytes]] = []
    # The manifest's length depends on the offsets in it: laid out from 0, then moved behind it.
    sections = _sections(network, head, lanes, str(path))
    manifest = _lay_out(network, 0, [], head, model, lanes, sections)
    start = _aligned(16 + 2 * len(manifest.model_dump_json()), PAGE_BYTES)
    manifest = _lay_out(network, start, parts, head, model, lanes, sections)
    text = manifest.model_dump_json().encode()
    if 16 + len(text) > start:
        raise AssertionError("the manifest outgrew the room left for it")
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
        file.write(MAGIC + struct.pack("<II", VERSION, len(text)) + text)
        for offset, data in parts:
            file.write(bytes(offset - file.tell()))
            file.write(data)
    return manifest


def _sections(network: RowNetwork, head: str, lanes: int, origin: str) -> list[tuple[int | None, bytes]]:
    """(distance, section) of all that the loader may read; ``None``: the shared one."""
    config, tables = network.config, network.tables
    if head == "next-use" and config.identities:
        raise ForestageError(
            f"{origin}: identities: the hardware reads identity rows for the next-layer head alone; "
            "train the next-use predictor with --set identities=0 --set identity_rows=0"
        )
    found: list[tuple[int | None, bytes]] = []
    for distance in range(config.nearest, config.farthest + 1):
        program = head_program(
            tables, config, top_k=network.top_k, ranked=network.ranked, distance=distance, lanes=lanes, origin=origin
        )
        shared, own = split_memories(program.contents())
        header = section_header(network, head, program)
        if not found:
            found.append((None, write_section(header, shared)))
        found.append((distance, write_section({**header, "distance_alone": 1, "distance": distance}, own)))
    return found


def section_header(network: RowNetwork, head: str, program: HeadProgram) -> dict[str, int]:
    """The fields of a shared section's header that say what it is of."""
    config = network.config
    looks = config.looks_for_matches
    lengths = config.ngram_tables if looks else ()
    return {
        "identity": _identity(network.tables),
        "head": HEADS.index(head),
        "layers": network.layers,
        "experts": network.experts,
        "top_k": network.top_k,
        "questions": config.questions,
        "lanes": program.lanes,
        "words": program.settings.words,
        "operations": max(max(map(len, program.gates)), 2),
        "previous": program.settings.ring - 1,
        "decays": len(config.decays),
        "matched": len(program.matched[0]),
        "tables": len(lengths),
        "by_routing": int(looks and config.ngram_by == "routing"),
        "log2_entries": config.ngram_entries.bit_length() - 1 if looks else 0,
        "log2_log": config.log_tokens.bit_length() - 1 if looks else 0,
        "identities": config.identities,
        "row_beats": _row_beats(config) if config.identities else 0,
        **{f"length{table}": length for table, length in enumerate(lengths)},
    }


def _identity(tables: NetworkTables) -> int:
    """What tells this network from others: a checksum of all of its tables."""
    found = 0
    for name in NAMES:
        found = zlib.crc32(np.ascontiguousarray(getattr(tables, name)).tobytes(), found)
    return found


def _row_beats(config: NetworkConfig) -> int:
    return -(-config.hidden // BEAT_BYTES)


def _lay_out(
    network: RowNetwork, start: int, parts: list[tuple[int, bytes]], head: str, model: str, lanes: int,
    sections: list[tuple[int | None, bytes]],
) -> Manifest:  # fmt: skip
    """The manifest of an image whose sections begin at ``start``; its parts are appended to ``parts``."""
    tables, config = network.tables, network.config
    offset = start

    def place(data: bytes) -> int:
        nonlocal offset
        at = _aligned(offset, PAGE_BYTES)
        parts.append((at, data))
        offset = at + len(data)
        return at

    places = [
        SectionPlace(distance=distance, offset=place(section), size=len(section)) for distance, section in sections
    ]
    padded = _padded_rows(tables, config)
    identity_offset = place(padded.tobytes())
    token_offset = place(tables.identity_tokens.tobytes())
    others = {name: place(np.ascontiguousarray(getattr(tables, name)).tobytes()) for name in NAMES if name not in FAR}
    size = network.bytes
    return Manifest(
        head=head,
        model=model,
        config=NetworkConfig(**{name: getattr(config, name) for name in NetworkConfig.model_fields}),
        questions=config.questions,
        layers=network.layers,
        experts=network.experts,
        top_k=network.top_k,
        ranked=network.ranked,
        lanes=lanes,
        rank_shifts=rank_shifts(network.top_k, network.ranked),
        fraction_bits=FRACTION_BITS,
        accumulator_bits=network.accumulator_bits,
        key_rotation=KEY_ROTATION,
        entry_bytes=ENTRY_BYTES,
        record_bytes=size.record_bytes,
        log_offset=size.text_per_slot - (config.log_tokens * size.record_bytes if size.text_per_slot else 0),
        text_per_slot=size.text_per_slot,
        bank_bytes=sum(size.sram_per_layer),
        sections=tuple(places),
        identity_offset=identity_offset,
        identity_stride=padded.shape[1],
        token_offset=token_offset,
        tables=others,
        size=offset,
    )


def _padded_rows(tables: NetworkTables, config: NetworkConfig) -> NDArray[np.int8]:
    """Identity rows as far memory has them, i8 ``[rows, stride]``."""
    rows = tables.identity_rows
    width = _row_beats(config) * BEAT_BYTES
    padded = np.zeros((*rows.shape[:3], width), np.int8)
    padded[..., : rows.shape[3]] = rows
    return padded.reshape(len(rows), int(np.prod(padded.shape[1:])))


def read_image(path: str | Path) -> Image:
    """Read a memory image back, and check that its sections are of its tables.

    Raises:
        ForestageError: if the file is no image, or another than its manifest says.
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
    tables = _tables(manifest, data)
    sections = tuple(data[place.offset : place.offset + place.size] for place in manifest.sections)
    config = _Asked(**manifest.config.model_dump(), asked=manifest.questions)
    network = RowNetwork(tables, config, top_k=manifest.top_k, ranked=manifest.ranked, origin=str(path))
    made = _sections(network, manifest.head, manifest.lanes, str(path))
    for place, section, (distance, expected) in zip(manifest.sections, sections, made, strict=True):
        if place.distance != distance or section != expected:
            which = "shared section" if distance is None else f"section of distance {distance}"
            raise ForestageError(f"{path}: {which}: not what its tables give; export the predictor again")
    return Image(manifest, tables, sections)


def _tables(manifest: Manifest, data: bytes) -> NetworkTables:
    config, layers, experts, questions = manifest.config, manifest.layers, manifest.experts, manifest.questions
    shapes = expected_shapes(config, layers=layers, experts=experts, questions=questions)

    def at(offset: int, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
        return np.frombuffer(data, dtype, int(np.prod(shape)), offset).reshape(shape)

    arrays = {name: at(offset, *shapes[name]) for name, offset in manifest.tables.items()}
    padded = (config.identity_rows, config.identities, layers, _row_beats(config) * BEAT_BYTES)
    arrays["identity_rows"] = at(manifest.identity_offset, np.int8, padded)[..., : config.hidden]
    arrays["identity_tokens"] = at(manifest.token_offset, *shapes["identity_tokens"])
    return NetworkTables(**arrays)


def _aligned(offset: int, unit: int) -> int:
    return -(-offset // unit) * unit
