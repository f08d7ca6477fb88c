"""A memory behind an AXI4 port of 512 bits, clocked by the test, and a text unit beside its twin."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from predictor.row_network.integers import BEAT_BYTES
from predictor.row_network.text_traffic import Item, Kind, TextLimits, TextSettings, Written, never
from rtl.prefetch.text.layouts import BEAT_SHIFT, TextEventKind

OKAY, SLVERR, DECERR = 0, 2, 3


@dataclass
class Memory:
    """Far memory: ``latency`` cycles, and random waits on every channel with the chance ``waits``.

    It reads as early as it may, when it is asked, and writes as late, when it answers.

    Attributes:
        beats: content by beat number; zero where nothing was written.
        read, written: bursts in the order in which they were asked for.
    """

    latency: int = 3
    waits: float = 0.0
    seed: int = 0
    read_fails: Any = never
    write_fails: Any = never
    drop_last: bool = False
    beats: dict[int, bytes] = field(default_factory=dict)
    read: list[tuple[int, int]] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.generator = np.random.default_rng(self.seed)
        self._r: deque[tuple[int, int, bool, bytes]] = deque()
        self._aw: deque[tuple[int, int]] = deque()
        self._w: list[tuple[bytes, int, bool]] = []
        self._b: deque[tuple[int, int, list[tuple[int, bytes, int]]]] = deque()
        self._r_shown = self._b_shown = False
        self._driven: dict[str, int] = {}
        self.cycle = self.last_write = 0

    def _runs(self) -> bool:
        return not self.waits or self.generator.random() >= self.waits

    def drive(self, ctx: Any, bus: Any) -> None:
        """What the memory offers in this cycle."""
        values: dict[str, int] = {}
        for ready in ("arready", "awready", "wready"):
            if hasattr(bus, ready):
                values[ready] = self._runs()
        self._r_shown = bool(self._r and self._r[0][0] <= self.cycle and (self._r_shown or self._runs()))
        values["rvalid"] = self._r_shown
        if self._r_shown:
            _, beat, last, content = self._r[0]
            values["rdata"] = int.from_bytes(content, "little")
            values["rresp"] = SLVERR if self.read_fails(beat * BEAT_BYTES) else OKAY
            values["rlast"] = last and not self.drop_last
        if hasattr(bus, "bvalid"):
            self._b_shown = bool(self._b and self._b[0][0] <= self.cycle and (self._b_shown or self._runs()))
            values["bvalid"] = self._b_shown
            if self._b_shown:
                values["bresp"] = self._b[0][1]
        for name, value in values.items():
            # Each assignment makes the simulator settle: only what changes is assigned.
            if self._driven.get(name) != value:
                self._driven[name] = value
                ctx.set(getattr(bus, name), value)

    def take(self, ctx: Any, bus: Any) -> None:
        """What is exchanged in this cycle."""
        if ctx.get(bus.arvalid) and ctx.get(bus.arready):
            address, beats = ctx.get(bus.araddr), ctx.get(bus.arlen) + 1
            self.read.append((address, beats))
            first = address >> BEAT_SHIFT
            for beat in range(beats):
                content = self.beats.get(first + beat, bytes(BEAT_BYTES))
                self._r.append((self.cycle + self.latency + beat, first + beat, beat == beats - 1, content))
        if self._r_shown and ctx.get(bus.rready):
            self._r.popleft()
            self._r_shown = False
        if hasattr(bus, "awvalid"):
            self._take_writes(ctx, bus)
        self.cycle += 1

    def _take_writes(self, ctx: Any, bus: Any) -> None:
        if self._b_shown and ctx.get(bus.bready):
            for stored in self._b.popleft()[2]:
                self._store(*stored)
            self._b_shown = False
        if ctx.get(bus.awvalid) and ctx.get(bus.awready):
            self._aw.append((ctx.get(bus.awaddr), ctx.get(bus.awlen) + 1))
        if ctx.get(bus.wvalid) and ctx.get(bus.wready):
            data = ctx.get(bus.wdata).to_bytes(BEAT_BYTES, "little")
            self.last_write = self.cycle
            self._w.append((data, ctx.get(bus.wstrb), bool(ctx.get(bus.wlast))))
        while self._aw and len(self._w) >= self._aw[0][1]:
            address, count = self._aw.popleft()
            taken, self._w = self._w[:count], self._w[count:]
            assert [last for _, _, last in taken] == [False] * (count - 1) + [True]
            failed = self.write_fails(address)
            beat = address >> BEAT_SHIFT
            stored = [] if failed else [(beat + n, data, strobe) for n, (data, strobe, _) in enumerate(taken)]
            # What is not strobed may be anything: the twin has zeros there.
            kept = tuple(_strobed(bytes(BEAT_BYTES), data, strobe) for data, strobe, _ in taken)
            self.written.append(Written(address, kept, taken[0][1]))
            self._b.append((self.cycle + self.latency, DECERR if failed else OKAY, stored))

    def _store(self, beat: int, data: bytes, strobe: int) -> None:
        self.beats[beat] = _strobed(self.beats.get(beat, bytes(BEAT_BYTES)), data, strobe)


def _strobed(old: bytes, new: bytes, strobe: int) -> bytes:
    return bytes(new[byte] if strobe >> byte & 1 else old[byte] for byte in range(BEAT_BYTES))


def set_settings(ctx: Any, port: Any, settings: TextSettings) -> None:
    """What a driver writes to the registers."""
    first, last = settings.window
    values = {
        "layers": settings.layers,
        "top_k": settings.top_k,
        "wide_ids": settings.experts > 255,
        "tables": len(settings.lengths),
        "by_routing": settings.by_routing,
        "log2_entries": settings.entries.bit_length() - 1,
        "log2_log": settings.log_tokens.bit_length() - 1,
        "at_match": settings.at_match,
        "window": last >= first,
        "window_first": first,
        "window_last": max(0, last),
        "record_beats": settings.record_beats,
        "identities": settings.identities,
        "row_beats": settings.row_beats,
        "word_beats": settings.word_beats,
        "text_base": settings.text_base // BEAT_BYTES,
        "text_stride": settings.text_stride // BEAT_BYTES,
        "identity_base": settings.identity_base // BEAT_BYTES,
        "identity_stride": settings.identity_stride // BEAT_BYTES,
    }
    for name, value in values.items():
        ctx.set(getattr(port, name), int(value))
    for table, length in enumerate(settings.lengths):
        ctx.set(port.lengths[table], length)


class Bench:
    """Runs a text unit, a cycle at a time, and keeps what it says."""

    def __init__(self, ctx: Any, unit: Any, memory: Memory, settings: TextSettings, *, waits: float = 0.0) -> None:
        self.ctx, self.unit, self.memory, self.settings, self.waits = ctx, unit, memory, settings, waits
        self.generator = np.random.default_rng(memory.seed + 1)
        self.items: list[Item] = []
        self.ended: list[int] = []
        self.late = self.read_failed = self.write_failed = 0
        self._ready = False
        set_settings(ctx, unit.settings, settings)

    def _item(self) -> Item:
        item = self.ctx.get(self.unit.items.payload)
        kind, slot = Kind(int(item.kind.value)), item.slot
        if kind == Kind.END:
            return Item(kind, slot, failed=bool(item.failed))
        if kind == Kind.RECORD:
            ids = tuple(item.experts[place] for place in range(self.settings.top_k))
            return Item(kind, slot, index=item.index, layer=item.layer, ids=ids)
        data = item.data.to_bytes(len(self.unit.items.payload.data) // 8, "little")
        return Item(kind, slot, index=item.index, layer=item.layer, part=item.word, data=data)

    async def step(self) -> bool:
        """One cycle; whether an offered event was accepted in it."""
        ctx, unit = self.ctx, self.unit
        ready = not self.waits or bool(self.generator.random() >= self.waits)
        if ready != self._ready:
            self._ready = ready
            ctx.set(unit.items.ready, ready)
        self.memory.drive(ctx, unit.memory)
        if ctx.get(unit.items.valid) and ctx.get(unit.items.ready):
            self.items.append(self._item())
            if self.items[-1].kind == Kind.END:
                self.ended.append(self.memory.cycle)
        accepted = bool(ctx.get(unit.events.valid) and ctx.get(unit.events.ready))
        self.late += ctx.get(unit.late)
        self.read_failed += ctx.get(unit.read_failed)
        self.write_failed += ctx.get(unit.write_failed)
        self.memory.take(ctx, unit.memory)
        await ctx.tick()
        return accepted

    async def give(self, **event: Any) -> int:
        """Offer an event until it is accepted; returns the cycle of that."""
        event["experts"] = list(event.get("experts", ())) + [0] * (
            self.unit.limits.top_k_max - len(event.get("experts", ()))
        )
        self.ctx.set(self.unit.events.payload, event)
        self.ctx.set(self.unit.events.valid, 1)
        for _ in range(100_000):
            if await self.step():
                self.ctx.set(self.unit.events.valid, 0)
                return self.memory.cycle - 1
        raise AssertionError("an event is not accepted")

    async def token(self, slot: int, *, starts: bool, identity: int | None, row: int) -> int:
        """A TOKEN event."""
        return await self.give(
            kind=TextEventKind.TOKEN, slot=slot, starts_sequence=int(starts), known=int(identity is not None),
            identity=identity or 0, row=row,
        )  # fmt: skip

    async def gate(self, slot: int, layer: int, ids: Any) -> int:
        """A GATE event."""
        known = ids is not None
        experts = [int(expert) for expert in ids] if known else []
        return await self.give(kind=TextEventKind.GATE, slot=slot, layer=layer, known=int(known), experts=experts)

    async def settle(self) -> int:
        """Until nothing is in work; returns the first such cycle."""
        for _ in range(100_000):
            if not self.ctx.get(self.unit.busy) and not self.ctx.get(self.unit.items.valid):
                return self.memory.cycle
            await self.step()
        raise AssertionError("the unit does not come to rest")


def small_limits(**changes: Any) -> TextLimits:
    """Limits of a small unit."""
    small: dict[str, Any] = {
        "slots": 3, "layers_max": 8, "experts_max": 64, "top_k_max": 4, "tables_max": 3, "ngram_max": 4,
        "row_beats_max": 3, "reads": 4, "writes": 8, "reach_max": 7,
    }  # fmt: skip
    return TextLimits(**{**small, **changes})


def identity_memory(memory: Memory, settings: TextSettings, rows: np.ndarray) -> None:
    """Put identity rows ``[rows, identities, layers, hidden]`` where the settings say."""
    for number, of_token in enumerate(rows):
        at = (settings.identity_base + number * settings.identity_stride) // BEAT_BYTES
        for of_age in of_token:
            for row in of_age:
                padded = row.tobytes().ljust(settings.row_beats * BEAT_BYTES, b"\0")
                for beat in range(settings.row_beats):
                    memory.beats[at] = padded[beat * BEAT_BYTES : (beat + 1) * BEAT_BYTES]
                    at += 1
