"""The memory of the text, as its hardware uses it: which bursts each token reads and writes, what they give the net.

What it must come to is `kernels` (``look_up``, ``add_text``, ``routing_token``); here is how, in beats of
``BEAT_BYTES``. Of each slot, from ``text_base + slot · text_stride`` on: the n-gram tables, one after the other, each
of ``entries`` entries of ``ENTRY_BYTES``; then, from the next beat on, ``log_tokens`` records of whole beats. All
begins at whole beats.

An entry is u32 key, u32 position, u32 number of the slot's sequence, u32 zero. A slot's sequences are numbered from 1
on after reset, and what lay there before must not look like one of them: the host clears the memory of the text before
texts are looked up. A record is the ids ``[layers, top_k]`` of ``id_bytes``, little-endian; all ones where a layer was
not recorded; zeros up to a whole beat.

Of identity, from ``identity_base + row · identity_stride`` on: for each age, for each layer, a row of ``row_beats``
beats.

A token's reads, in order: an entry of each table whose key is known (a beat each); a burst for each age whose row
exists; then, entries being known, a record for the match of each table (``at_match``) and for each token of the window
after the longest match, where it is older than this token and in the log. Its entries are written before the records
are read, its own record after its last gate. By routing, entries and records wait for layer 0's gate.

What cannot be read is as if it were not there, beat by beat: an entry names nothing, of a record's layers those that
have an id in the beat are not recorded, of identity rows the beat is zero. After a write that failed, the slot's text
is off until its next sequence: nothing is looked up or written, since what lies there may be another token's.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from catalog.config import StrictModel
from catalog.errors import ForestageError
from predictor.row_network.config import NetworkConfig
from predictor.row_network.integers import BEAT_BYTES, ENTRY_BYTES, id_bytes
from predictor.row_network.kernels import UNKNOWN, ngram_key, remember_token, routing_token

PAGE_BEATS = 4096 // BEAT_BYTES
"""Beats between the addresses that no burst crosses."""
NO_ROW = (1 << 24) - 1
"""The identity row of a token that has none."""


class TextLimits(StrictModel):
    """What is fixed when the hardware of the text is generated.

    Attributes:
        slots: sequences that run together.
        layers_max, experts_max, top_k_max: of the model.
        tables_max, ngram_max: n-gram tables, and tokens of the longest n-gram, a power of two.
        identities_max: tokens whose identity rows are read, a power of two.
        reach_max: tokens after the match that a window may reach.
        row_beats_max: beats of one row of identity.
        lanes: bytes of a word for the net, a multiple of a beat.
        reads, writes: bursts under way at once, of each kind; powers of two.
        address_bits: of a byte in far memory.
    """

    slots: int = Field(default=8, ge=1, le=64)
    layers_max: int = Field(default=48, ge=1, le=256)
    experts_max: int = Field(default=128, ge=2, le=1 << 15)
    top_k_max: int = Field(default=8, ge=1, le=16)
    tables_max: int = Field(default=4, ge=1, le=8)
    ngram_max: int = Field(default=4, ge=2, le=8)
    identities_max: int = Field(default=2, ge=2, le=8)
    reach_max: int = Field(default=15, ge=1, le=64)
    row_beats_max: int = Field(default=4, ge=1, le=64)
    lanes: int = Field(default=128, ge=64, le=1024, multiple_of=64)
    reads: int = Field(default=16, ge=2, le=256)
    writes: int = Field(default=16, ge=2, le=256)
    address_bits: int = Field(default=48, ge=32, le=64)

    @model_validator(mode="after")
    def _powers_of_two(self) -> Self:
        for name in ("ngram_max", "identities_max", "reads", "writes"):
            value = getattr(self, name)
            if value & (value - 1):
                raise ValueError(f"{name}: {value} is no power of two")
        return self

    @property
    def record_beats_max(self) -> int:
        """Beats of the longest record of the log."""
        return -(-self.layers_max * self.top_k_max * id_bytes(self.experts_max) // BEAT_BYTES)

    @property
    def records_max(self) -> int:
        """Indices that a record of the log may have for the net: tables, then tokens after the longest match."""
        return self.tables_max + self.reach_max + 1


class TextSettings(StrictModel):
    """What registers say of the memory of the text; addresses and strides in bytes, whole beats.

    Attributes:
        layers, experts, top_k: of the model.
        lengths: tokens of each n-gram table, ascending; none: nothing is looked up.
        by_routing: whether layer 0's choice stands for identity.
        entries, log_tokens: of each table, and of the log; powers of two.
        at_match: whether the token that a table names is read.
        window: first and last token after the longest match that are read; ``(0, −1)``: none.
        identities: tokens whose identity rows are read.
        row_beats: beats of one row of identity.
        word_beats: of them, beats of a word for the net.
        text_base, text_stride: of slot 0, and from slot to slot.
        identity_base, identity_stride: of row 0, and from row to row.
    """

    layers: int = Field(ge=1)
    experts: int = Field(ge=1)
    top_k: int = Field(ge=1)
    lengths: tuple[int, ...] = ()
    by_routing: bool = False
    entries: int = Field(default=1, ge=1)
    log_tokens: int = Field(default=1, ge=1)
    at_match: bool = False
    window: tuple[int, int] = (0, -1)
    identities: int = 0
    row_beats: int = Field(default=1, ge=1)
    word_beats: int = Field(default=1, ge=1)
    text_base: int = Field(default=0, ge=0, multiple_of=BEAT_BYTES)
    text_stride: int = Field(default=0, ge=0, multiple_of=BEAT_BYTES)
    identity_base: int = Field(default=0, ge=0, multiple_of=BEAT_BYTES)
    identity_stride: int = Field(default=0, ge=0, multiple_of=BEAT_BYTES)

    @classmethod
    def of(
        cls, configs: Sequence[NetworkConfig], *, layers: int, experts: int, top_k: int, lanes: int, text_base: int,
        identity_base: int, identity_stride: int = 0,
    ) -> Self:  # fmt: skip
        """The settings that serve every head of ``configs``; slots follow each other.

        Raises:
            ForestageError: if the heads do not share one memory of the text, or two look at identity rows.
        """
        looking = [config for config in configs if config.looks_for_matches]
        for name in ("ngram_tables", "ngram_by", "ngram_entries", "log_tokens"):
            values = {getattr(config, name) for config in looking}
            if len(values) > 1:
                raise ForestageError(
                    f"{name}: the heads differ ({', '.join(sorted(map(str, values)))}); one memory of the text serves "
                    f"both: train them with the same {name}"
                )
        rows = [config for config in configs if config.identities]
        if len(rows) > 1:
            raise ForestageError("identities: both heads look at identity rows; the engine reads those of one")
        windows = [window for config in looking for window in config.continuation_windows]
        hidden = rows[0].hidden if rows else BEAT_BYTES
        row_beats = -(-hidden // BEAT_BYTES)
        own = cls(
            layers=layers,
            experts=experts,
            top_k=top_k,
            lengths=looking[0].ngram_tables if looking else (),
            by_routing=bool(looking) and looking[0].ngram_by == "routing",
            entries=looking[0].ngram_entries if looking else 1,
            log_tokens=looking[0].log_tokens if looking else 1,
            at_match=any(config.at_match for config in looking),
            window=(min(first for first, _ in windows), max(last for _, last in windows)) if windows else (0, -1),
            identities=rows[0].identities if rows else 0,
            row_beats=row_beats,
            word_beats=min(lanes // BEAT_BYTES, row_beats),
            text_base=text_base,
            identity_base=identity_base,
            identity_stride=identity_stride,
        )
        return own.model_copy(update={"text_stride": own.text_bytes})

    def check(self, limits: TextLimits) -> None:
        """Raise unless hardware of ``limits`` can hold these settings.

        Raises:
            ForestageError: naming the first that is beyond its limit.
        """
        beyond = {
            "layers": (self.layers, limits.layers_max),
            "experts": (self.experts, limits.experts_max),
            "top_k": (self.top_k, limits.top_k_max),
            "n-gram tables": (len(self.lengths), limits.tables_max),
            "the longest n-gram": (max(self.lengths, default=0), limits.ngram_max),
            "identities": (self.identities, limits.identities_max),
            "the window's last token": (self.window[1], limits.reach_max),
            "beats of an identity row": (self.row_beats, limits.row_beats_max),
        }
        for name, (value, most) in beyond.items():
            if value > most:
                raise ForestageError(
                    f"text: {name}: {value} where the engine has room for {most}; generate a larger one"
                )

    @property
    def record_beats(self) -> int:
        """Beats of a record of the log."""
        return -(-self.layers * self.top_k * id_bytes(self.experts) // BEAT_BYTES)

    @property
    def age_beats(self) -> int:
        """Beats of all layers' identity rows of one token at one age."""
        return self.layers * self.row_beats

    @property
    def log_offset(self) -> int:
        """Of the log, from the slot's base."""
        return -(-len(self.lengths) * self.entries * ENTRY_BYTES // BEAT_BYTES) * BEAT_BYTES

    @property
    def text_bytes(self) -> int:
        """Of one slot's tables and log."""
        return self.log_offset + self.log_tokens * self.record_beats * BEAT_BYTES if self.lengths else 0


class Kind(IntEnum):
    """Of what is read, and of an item for the net."""

    IDENTITY = 0
    RECORD = 1
    END = 2
    ENTRY = 3


@dataclass(frozen=True)
class Item:
    """What the net is told; the first fields say what of, the others the content.

    Attributes:
        kind: IDENTITY, RECORD or END.
        slot: of the token.
        failed: of END: some of this token's text could not be read.
        index: of IDENTITY the age; of RECORD the n-gram table whose match it is, or, from their number on, tokens after
            the longest match.
        layer: target.
        ids: of RECORD, of this layer; layers that were not recorded have no item.
        part: of IDENTITY, which word of the row.
        data: the word.
    """

    kind: Kind
    slot: int
    failed: bool = False
    index: int = 0
    layer: int = 0
    ids: tuple[int, ...] = ()
    part: int = 0
    data: bytes = b""


@dataclass(frozen=True)
class Transfer:
    """Beats that are read together; ``address`` in bytes."""

    kind: Kind
    index: int
    address: int
    beats: int

    @property
    def bursts(self) -> list[tuple[int, int]]:
        """(address, beats) of each burst."""
        return list(bursts(self.address, self.beats))


@dataclass(frozen=True)
class Written:
    """A burst that is written: ``strobe`` bit i of each beat is byte i."""

    address: int
    data: tuple[bytes, ...]
    strobe: int = (1 << BEAT_BYTES) - 1


class WorkKind(IntEnum):
    """What a piece of work begins with."""

    BEGIN = 0
    CHOICE = 1
    RECORD = 2


@dataclass
class Work:
    """One piece of work of a slot: a token's beginning, its layer 0's choice by routing, or its record.

    Attributes:
        kind, slot: what, and whose.
        reads, writes: in the order of the bus.
        items: for the net.
        keys: of each n-gram table that has one: whether it is known (empty: nothing was looked up).
        row: of each age that is within the sequence, the identity row.
        records: for each token of the log that was considered, whether it was read.
        choice: experts whose token was computed, where it was.
    """

    kind: WorkKind
    slot: int
    reads: list[Transfer] = field(default_factory=list)
    writes: list[Written] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    keys: tuple[bool, ...] = ()
    rows: tuple[int, ...] = ()
    records: tuple[bool, ...] = ()
    choice: tuple[int, ...] = ()


class _Slot:
    """What is known of one slot's sequence."""

    def __init__(self, settings: TextSettings) -> None:
        self.settings = settings
        self.sequence = 0
        self.begun = False
        self.off = False
        self.failing = False

    def start(self) -> None:
        settings = self.settings
        self.sequence += 1
        self.begun = True
        self.off = False
        self.failing = False
        self.position = -1
        self.tokens = np.full(max(settings.lengths, default=0), UNKNOWN, np.int64)
        self.rows = [NO_ROW] * settings.identities
        self.entries: dict[tuple[int, int], tuple[int, int]] = {}
        self.log: dict[int, tuple[tuple[int, ...], ...]] = {}
        self.gates: list[tuple[int, ...]] = [()] * settings.layers


def never(address: int) -> bool:
    """No access to any address fails."""
    return False


class TextTraffic:
    """The memory of the text of all slots, event by event; the specification of its hardware.

    Attributes:
        settings: what registers say.
        read_fails, write_fails: whether the beat read, or the burst written, at an address fails; to be set by whoever
            plans faults.
        identity_rows: i8 ``[rows, identities, layers, hidden]``.

    Raises:
        ForestageError: for settings beyond ``limits``.
    """

    def __init__(self, limits: TextLimits, settings: TextSettings, identity_rows: np.ndarray | None = None) -> None:
        settings.check(limits)
        self.limits, self.settings = limits, settings
        self.identity_rows = identity_rows
        self._entries_failed = False
        self.read_fails: Callable[[int], bool] = never
        self.write_fails: Callable[[int], bool] = never
        self._slots = [_Slot(settings) for _ in range(limits.slots)]

    def forget(self) -> None:
        """Every slot's next token begins a sequence."""
        for slot in self._slots:
            slot.begun = False

    def token(self, slot: int, *, starts: bool, identity: int | None, row: int) -> Work:
        """A token begins; ``row``: its identity row, ``NO_ROW``: none."""
        own, settings = self._slots[slot], self.settings
        if starts or not own.begun:
            own.start()
        own.off |= own.failing
        own.position += 1
        work = Work(WorkKind.BEGIN, slot)
        own.rows = [row, *own.rows][: settings.identities]
        named = None
        self._entries_failed = False
        if not settings.by_routing:
            remember_token(own.tokens, UNKNOWN if identity is None else identity)
            named = self._look_up(work, own)
        failed = self._identity(work, own)
        if named is not None:
            failed |= self._records(work, own, named)
        work.items.append(Item(Kind.END, slot, failed=failed | self._entries_failed))
        return work

    def gate(self, slot: int, layer: int, ids: Sequence[int] | None) -> list[Work]:
        """The gate of ``layer`` chose ``ids``; ``None``: not recorded."""
        own, settings = self._slots[slot], self.settings
        own.gates[layer] = () if ids is None else tuple(int(expert) for expert in ids)
        done = []
        if layer == 0 and settings.by_routing and settings.lengths:
            own.off |= own.failing
            work = Work(WorkKind.CHOICE, slot, choice=own.gates[0])
            recorded = ids is not None
            remember_token(own.tokens, routing_token(np.array(own.gates[0], np.int16), recorded))
            named = self._look_up(work, own)
            failed = self._records(work, own, named) if named is not None else False
            work.items.append(Item(Kind.END, slot, failed=failed | self._entries_failed))
            done.append(work)
        if layer == settings.layers - 1 and settings.lengths:
            done.append(self._write_record(slot, own))
        return done

    def _base(self, slot: int) -> int:
        return self.settings.text_base + slot * self.settings.text_stride

    def _look_up(self, work: Work, own: _Slot) -> list[int] | None:
        """The position that each table names (−1: none), the entries being read and taken; ``None``: no tables."""
        settings = self.settings
        self._entries_failed = False
        if not settings.lengths:
            return None
        named, known = [UNKNOWN] * len(settings.lengths), []
        for table, length in enumerate(settings.lengths):
            key = UNKNOWN if own.off else int(ngram_key(own.tokens, length))
            known.append(key != UNKNOWN)
            if key == UNKNOWN:
                continue
            entry = key & (settings.entries - 1)
            address = self._base(work.slot) + (table * settings.entries + entry) * ENTRY_BYTES
            beat = address // BEAT_BYTES * BEAT_BYTES
            work.reads.append(Transfer(Kind.ENTRY, table, beat, 1))
            if self.read_fails(beat):
                self._entries_failed = True
            else:
                held, place = own.entries.get((table, entry), (UNKNOWN, UNKNOWN))
                named[table] = place if held == key else UNKNOWN
            own.entries[table, entry] = (key, own.position)
            content = np.array([key, own.position, own.sequence, 0], "<u4").tobytes()
            lane = address - beat
            data = bytes(lane) + content + bytes(BEAT_BYTES - lane - ENTRY_BYTES)
            self._write(work, own, Written(beat, (data,), ((1 << ENTRY_BYTES) - 1) << lane))
        work.keys = tuple(known)
        return named

    def _identity(self, work: Work, own: _Slot) -> bool:
        """Read the identity rows; whether any beat failed."""
        settings = self.settings
        failed = False
        work.rows = tuple(own.rows[age] for age in range(min(settings.identities, own.position + 1)))
        for age, row in enumerate(work.rows):
            if row == NO_ROW:
                continue
            assert self.identity_rows is not None
            address = settings.identity_base + row * settings.identity_stride + age * settings.age_beats * BEAT_BYTES
            work.reads.append(Transfer(Kind.IDENTITY, age, address, settings.age_beats))
            rows = self.identity_rows[row, age]
            for layer in range(settings.layers):
                padded = bytearray(settings.row_beats * BEAT_BYTES)
                padded[: rows.shape[1]] = rows[layer].tobytes()
                for beat in range(settings.row_beats):
                    if self.read_fails(address + (layer * settings.row_beats + beat) * BEAT_BYTES):
                        padded[beat * BEAT_BYTES : (beat + 1) * BEAT_BYTES] = bytes(BEAT_BYTES)
                        failed = True
                size = settings.word_beats * BEAT_BYTES
                for part, first in enumerate(range(0, len(padded), size)):
                    word = bytes(padded[first : first + size]).ljust(self.limits.lanes, b"\0")
                    work.items.append(Item(Kind.IDENTITY, work.slot, index=age, layer=layer, part=part, data=word))
        return failed

    def _records(self, work: Work, own: _Slot, named: list[int]) -> bool:
        """Read the records of the log that the matches lead to; whether any beat failed."""
        settings = self.settings
        tables = len(named)
        wanted = [(table, named[table]) for table in range(tables)] if settings.at_match else []
        longest = next((place for place in reversed(named) if place != UNKNOWN), UNKNOWN)
        for after in range(settings.window[0], settings.window[1] + 1):
            wanted.append((tables + after, UNKNOWN if longest == UNKNOWN else longest + after))
        read = []
        failed = False
        for index, place in wanted:
            there = place != UNKNOWN and own.position - settings.log_tokens < place < own.position
            read.append(there)
            if there:
                failed |= self._read_record(work, own, index, place)
        work.records = tuple(read)
        return failed

    def _read_record(self, work: Work, own: _Slot, index: int, place: int) -> bool:
        settings = self.settings
        address = self._record(work.slot, place)
        work.reads.append(Transfer(Kind.RECORD, index, address, settings.record_beats))
        lost = [self.read_fails(address + beat * BEAT_BYTES) for beat in range(settings.record_beats)]
        size = id_bytes(settings.experts) * settings.top_k
        for layer, ids in enumerate(own.log[place & (settings.log_tokens - 1)]):
            first, last = layer * size // BEAT_BYTES, ((layer + 1) * size - 1) // BEAT_BYTES
            if ids and not any(lost[first : last + 1]):
                work.items.append(Item(Kind.RECORD, work.slot, index=index, layer=layer, ids=ids))
        return any(lost)

    def _record(self, slot: int, place: int) -> int:
        settings = self.settings
        number = place & (settings.log_tokens - 1)
        return self._base(slot) + settings.log_offset + number * settings.record_beats * BEAT_BYTES

    def _write_record(self, slot: int, own: _Slot) -> Work:
        """Write the routing of the token that ends."""
        settings = self.settings
        own.off |= own.failing
        work = Work(WorkKind.RECORD, slot)
        own.log[own.position & (settings.log_tokens - 1)] = tuple(own.gates)
        if own.off:
            return work
        width = id_bytes(settings.experts)
        unknown = (1 << 8 * width) - 1
        data = b"".join(
            expert.to_bytes(width, "little") for ids in own.gates for expert in (ids or (unknown,) * settings.top_k)
        ).ljust(settings.record_beats * BEAT_BYTES, b"\0")
        address = self._record(slot, own.position)
        done = 0
        for start, beats in bursts(address, settings.record_beats):
            part = data[done * BEAT_BYTES : (done + beats) * BEAT_BYTES]
            split = tuple(part[at : at + BEAT_BYTES] for at in range(0, len(part), BEAT_BYTES))
            self._write(work, own, Written(start, split))
            done += beats
        return work

    def _write(self, work: Work, own: _Slot, written: Written) -> None:
        work.writes.append(written)
        own.failing |= self.write_fails(written.address)


def bursts(address: int, beats: int) -> Iterator[tuple[int, int]]:
    """(address, beats) of the bursts that ``beats`` beats from ``address`` on are read or written in."""
    while beats:
        length = min(beats, PAGE_BEATS - address // BEAT_BYTES % PAGE_BEATS)
        yield address, length
        address += length * BEAT_BYTES
        beats -= length
