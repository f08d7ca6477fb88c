"""The memory of the text: looks up, reads and writes what `predictor.row_network.text_traffic` says, for all slots."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from typing_extensions import override

from predictor.row_network.integers import BEAT_BYTES, ENTRY_BYTES, KEY_ROTATION, TOKEN_MULTIPLIER
from predictor.row_network.text_traffic import PAGE_BEATS, TextLimits
from rtl.bus.axi4 import Axi4Signature, always_read_manager, always_write_manager
from rtl.checks import always, always_stable, implies
from rtl.prefetch.text.bursts import PAGE_BITS, BurstMaker
from rtl.prefetch.text.layouts import (
    BEAT_BITS,
    ROW_BITS,
    ItemKind,
    TextEventKind,
    beat_address_bits,
    bits_for,
    experts_layout,
    index_bits,
    item_layout,
    layer_bits,
    slot_bits,
    text_event_layout,
    text_settings_layout,
)
from rtl.prefetch.text.scaler import Scaler
from rtl.prefetch.text.unpacker import LANES, Unpacker, tag_layout
from rtl.prefetch.text.writer import Writer

LANE_BITS = (LANES - 1).bit_length()
NO_ROW = Const((1 << ROW_BITS) - 1, ROW_BITS)


class TextUnit(wiring.Component):
    """Events in, items for the net out; far memory over one AXI4 port.

    Events are accepted as they come, a gate in one cycle, unless 4 a slot wait, or the slot's record is still to be
    written. They become pieces of work, done in their order: a token's beginning (which gives its text, then END), by
    routing layer 0's choice (likewise), and after the last layer's gate the token's record. A piece of work begins once
    every write of its slot has been answered. Their cycles are `predictor.row_network.text_cycles`.

    ``settings`` and ``forget`` may change while not ``busy`` alone; ``forget``: every slot's next token begins a
    sequence. ``late``: a layer-0 gate is accepted before its token's END is offered to the net.
    ``read_failed`` and ``write_failed``: a beat read, a burst written, failed in this cycle.
    """

    def __init__(self, limits: TextLimits) -> None:
        self.limits = limits
        super().__init__(
            {
                "settings": In(text_settings_layout(limits)),
                "forget": In(1),
                "events": In(stream.Signature(text_event_layout(limits))),
                "items": Out(stream.Signature(item_layout(limits))),
                "memory": Out(Axi4Signature(BEAT_BITS, limits.address_bits)),
                "busy": Out(1),
                "late": Out(1),
                "read_failed": Out(1),
                "write_failed": Out(1),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        return _TextLogic(self).module


class _TextLogic:
    """The parts of a `TextUnit`, made one after the other."""

    def __init__(self, unit: TextUnit) -> None:
        self.unit, self.limits = unit, unit.limits
        limits, self.settings = unit.limits, unit.settings
        self.module = m = Module()
        address = beat_address_bits(limits)
        self.address_bits = address
        beats_most = limits.layers_max * limits.row_beats_max
        m.submodules.reads = self.reads = BurstMaker(
            address, max(bits_for(beats_most), bits_for(limits.record_beats_max)), tag_layout(limits), limits.reads
        )
        m.submodules.unpacker = self.unpacker = Unpacker(limits)
        m.submodules.writer = self.writer = Writer(limits)
        m.submodules.scaler = self.scaler = Scaler(address, max(ROW_BITS, slot_bits(limits)))
        depth = limits.slots * (1 << layer_bits(limits))
        gate = data.StructLayout({"known": 1, "experts": experts_layout(limits)})
        m.submodules.gates = gates = Memory(shape=gate, depth=depth, init=[])
        self.gate_in, self.gate_out = gates.write_port(), gates.read_port()
        token = data.StructLayout({"known": 1, "token": 32})
        m.submodules.tokens = tokens = Memory(shape=token, depth=limits.slots * limits.ngram_max, init=[])
        self.token_in, self.token_out = tokens.write_port(), tokens.read_port()
        m.submodules.rows = rows = Memory(shape=ROW_BITS, depth=limits.slots * limits.identities_max, init=[])
        self.row_in, self.row_out = rows.write_port(), rows.read_port()

        # Of each slot.
        slots = range(limits.slots)
        self.positions = Array(Signal(32, name=f"position{slot}") for slot in slots)
        self.sequences = Array(Signal(32, name=f"sequence{slot}") for slot in slots)
        self.begun, self.off = Signal(limits.slots), Signal(limits.slots)
        self.recording = Signal(limits.slots)
        # Tokens whose END is to come: a token may begin before the one before it has its text.
        self.texts_due = Array(Signal(2, name=f"texts_due{slot}") for slot in slots)
        self.text_ends = Signal()

        # Of the piece of work.
        self.slot = Signal(slot_bits(limits))
        self.position, self.sequence = Signal(32), Signal(32)
        self.writes_off, self.begins, self.records = Signal(), Signal(), Signal()
        self.failed = Signal()
        self.keys = Signal(data.ArrayLayout(32, limits.tables_max))
        self.key_known = Signal(limits.tables_max)
        self.entries = Signal(data.ArrayLayout(address + LANE_BITS, limits.tables_max))
        self.table = Signal(range(limits.tables_max + 1))
        self.log_base = Signal(address)
        self.log_offset = Signal(address)

        self._connect()
        self._accept_events()
        self._work()

    # --- around the state machine ---

    def _connect(self) -> None:
        m, unit, reads, unpacker, writer = self.module, self.unit, self.reads, self.unpacker, self.writer
        memory = unit.memory
        m.d.comb += [
            memory.araddr.eq(reads.araddr),
            memory.arlen.eq(reads.arlen),
            memory.arvalid.eq(reads.arvalid),
            reads.arready.eq(memory.arready),
            unpacker.rdata.eq(memory.rdata),
            unpacker.rresp.eq(memory.rresp),
            unpacker.rlast.eq(memory.rlast),
            unpacker.rvalid.eq(memory.rvalid),
            memory.rready.eq(unpacker.rready),
            unpacker.settings.eq(self.settings),
            unpacker.slot.eq(self.slot),
            unpacker.keys.eq(self.keys),
            unpacker.sequence.eq(self.sequence),
            unpacker.failed_token.eq(self.failed),
            unit.read_failed.eq(unpacker.failed),
            unit.write_failed.eq(writer.failed.any()),
        ]
        for name, member in writer.bus.signature.members.items():
            ours, its = getattr(memory, name), getattr(writer.bus, name)
            m.d.comb += ours.eq(its) if member.flow == Out else its.eq(ours)
        connect(m, reads.under_way, unpacker.under_way)
        connect(m, unpacker.items, flipped(unit.items))
        # The log begins with the first whole beat after the tables.
        tables_size = Signal(self.address_bits + LANE_BITS)
        m.d.sync += [
            tables_size.eq(self.settings.tables << self.settings.log2_entries),
            self.log_offset.eq((tables_size + LANES - 1) >> LANE_BITS),
        ]
        with m.If(unpacker.failed):
            m.d.sync += self.failed.eq(1)
        always_read_manager(m, "text", memory)
        always_write_manager(m, "text", memory, outstanding=self.limits.writes)
        items = unit.items
        always_stable(m, "text_items", valid=items.valid, ready=items.ready, payload=Value.cast(items.payload))

    def _accept_events(self) -> None:
        m, unit, settings = self.module, self.unit, self.settings
        event = unit.events.payload
        work = data.StructLayout(
            {
                "begins": 1,
                "chooses": 1,
                "records": 1,
                "slot": len(self.slot),
                "starts": 1,
                "known": 1,
                "identity": 32,
                "row": ROW_BITS,
            }
        )
        m.submodules.queue = self.queue = queue = SyncFIFO(width=work.size, depth=4 * self.limits.slots)
        self.job = Signal(work)
        piece = Signal(work)
        is_token, accepted, has_text = Signal(), Signal(), Signal()
        m.d.comb += [
            has_text.eq(settings.tables != 0),
            is_token.eq(event.kind == TextEventKind.TOKEN),
            unit.events.ready.eq(
                queue.w_rdy & Mux(is_token, self.texts_due[event.slot] != 3, ~self.recording.bit_select(event.slot, 1))
            ),
            accepted.eq(unit.events.valid & unit.events.ready),
            piece.begins.eq(is_token),
            piece.chooses.eq(~is_token & has_text & settings.by_routing & (event.layer == 0)),
            piece.records.eq(~is_token & has_text & (event.layer == settings.layers - 1)),
            piece.slot.eq(event.slot),
            piece.starts.eq(event.starts_sequence),
            piece.known.eq(event.known),
            piece.identity.eq(event.identity),
            piece.row.eq(event.row),
            queue.w_data.eq(piece),
            queue.w_en.eq(accepted & (piece.begins | piece.chooses | piece.records)),
            self.job.eq(queue.r_data),
            self.gate_in.addr.eq(Cat(event.layer, event.slot)),
            self.gate_in.data.known.eq(event.known),
            self.gate_in.data.experts.eq(event.experts),
            self.gate_in.en.eq(accepted & ~is_token),
        ]
        with m.If(accepted & piece.records):
            m.d.sync += self.recording.bit_select(event.slot, 1).eq(1)
        for slot, due in enumerate(self.texts_due):
            more = accepted & is_token & (event.slot == slot)
            less = self.text_ends & (self.slot == slot)
            m.d.sync += due.eq(due + more - less)
        due = self.texts_due[event.slot].any()
        m.d.comb += unit.late.eq(accepted & ~is_token & (event.layer == 0) & due)
        always(m, implies(accepted & is_token, self.texts_due[event.slot] != 3), "text: tokens run ahead of their text")
        always(m, implies(unit.events.valid, event.slot < self.limits.slots), "text: a slot that the engine has not")

    # --- the state machine ---

    def _work(self) -> None:
        m, unit, limits = self.module, self.unit, self.limits
        with m.FSM() as fsm:
            self._take_up()
            self._begin()
            self._choose()
            self._look_up()
            self._read_identity()
            self._write_entries()
            self._read_records()
            self._end()
            self._record()
        m.d.comb += unit.busy.eq(~fsm.ongoing("IDLE") | self.queue.r_rdy | self.writer.pending.any())
        with m.If(unit.forget):
            m.d.sync += self.begun.eq(0)
        for slot in range(limits.slots):
            with m.If(self.writer.failed[slot]):
                m.d.sync += self.off[slot].eq(1)
        always(m, implies(unit.forget, ~unit.busy), "text: sequences are forgotten while one is in work")

    def _take_up(self) -> None:
        m, job = self.module, self.job
        ready = Signal()
        m.d.comb += ready.eq(self.queue.r_rdy & ~self.writer.pending.bit_select(job.slot, 1))
        with m.State("IDLE"):
            m.d.sync += [
                self.slot.eq(job.slot),
                self.position.eq(self.positions[job.slot]),
                self.sequence.eq(self.sequences[job.slot]),
                self.writes_off.eq(self.off.bit_select(job.slot, 1)),
                self.begins.eq(job.begins),
                self.records.eq(job.records),
                self.failed.eq(0),
            ]
            m.d.comb += self.unpacker.clear.eq(1)
            with m.If(ready):
                with m.If(job.begins):
                    m.next = "BEGIN"
                with m.Elif(job.chooses):
                    m.next = "CHOICE"
                with m.Else():
                    m.next = "RECORD"

    def _ring(self, size: int, age: Value) -> Value:
        """The place, in a ring of ``size`` a slot, of the token ``age`` before this one."""
        return Cat((self.position - age)[: (size - 1).bit_length()], self.slot)

    def _begin(self) -> None:
        """A token: its position, and what it is."""
        m, job, limits = self.module, self.job, self.limits
        starts, position = Signal(), Signal(32)
        m.d.comb += [
            starts.eq(job.starts | ~self.begun.bit_select(self.slot, 1)),
            position.eq(Mux(starts, 0, self.position + 1)),
            self.row_in.addr.eq(Cat(position[: (limits.identities_max - 1).bit_length()], self.slot)),
            self.row_in.data.eq(job.row),
        ]
        by_routing = self.settings.by_routing
        with m.State("BEGIN"):
            m.d.comb += [self.row_in.en.eq(1), self.queue.r_en.eq(1)]
            self._tell_token(job.known, job.identity, ~by_routing, position)
            m.d.sync += [
                self.position.eq(position),
                self.positions[self.slot].eq(position),
                self.begun.bit_select(self.slot, 1).eq(1),
            ]
            with m.If(starts):
                m.d.sync += [
                    self.sequence.eq(self.sequence + 1),
                    self.sequences[self.slot].eq(self.sequence + 1),
                    self.off.bit_select(self.slot, 1).eq(0),
                    self.writes_off.eq(0),
                ]
            with m.If((self.settings.tables != 0) & ~by_routing):
                m.next = "LOOK_UP"
            with m.Else():
                m.next = "ROW"

    def _tell_token(self, known: Value, token: Value, enable: Value, position: Value) -> None:
        """What stands for the token at ``position``."""
        bits = (self.limits.ngram_max - 1).bit_length()
        self.module.d.comb += [
            self.token_in.addr.eq(Cat(position[:bits], self.slot)),
            self.token_in.data.known.eq(known),
            self.token_in.data.token.eq(token),
            self.token_in.en.eq(enable),
        ]

    def _choose(self) -> None:
        """By routing: the token that stands for layer 0's choice, an expert at a time."""
        m, scaler = self.module, self.scaler
        chosen, token = Signal.like(self.gate_out.data), Signal(32)
        rank = Signal(bits_for(self.limits.top_k_max - 1))
        experts = Array(chosen.experts[place] for place in range(self.limits.top_k_max))
        with m.State("CHOICE"):
            m.d.comb += [self.gate_out.addr.eq(Cat(Const(0, layer_bits(self.limits)), self.slot))]
            m.d.comb += self.queue.r_en.eq(1)
            m.d.sync += [token.eq(0), rank.eq(0)]
            m.next = "CHOSEN"
        with m.State("CHOSEN"):
            m.d.sync += chosen.eq(self.gate_out.data)
            m.next = "CHOICE_TOLD"
            with m.If(self.gate_out.data.known):
                m.next = "EXPERT"
        with m.State("EXPERT"):
            m.d.comb += [
                scaler.factor.eq(TOKEN_MULTIPLIER),
                scaler.count.eq(experts[rank] + 1),
                scaler.start.eq(1),
            ]
            m.next = "EXPERT_SCALED"
        with m.State("EXPERT_SCALED"), m.If(scaler.done):
            m.d.sync += [token.eq(token ^ scaler.product[:32]), rank.eq(rank + 1)]
            m.next = "CHOICE_TOLD"
            with m.If(rank != self.settings.top_k - 1):
                m.next = "EXPERT"
        with m.State("CHOICE_TOLD"):
            self._tell_token(chosen.known, token, Const(1, 1), self.position)
            m.next = "LOOK_UP"

    def _look_up(self) -> None:
        """The keys of all tables in one walk over the latest tokens, and the reads of their entries."""
        m, settings, scaler, limits = self.module, self.settings, self.scaler, self.limits
        age = Signal(range(limits.ngram_max + 1))
        key, known, key_next, known_next = Signal(32), Signal(), Signal(32), Signal()
        rotated = Array(
            self.token_out.data.token.rotate_left(KEY_ROTATION * back) for back in range(limits.ngram_max + 1)
        )
        m.d.comb += [
            key_next.eq(key ^ rotated[age]),
            known_next.eq(known & self.token_out.data.known & (age <= self.position)),
        ]
        with m.State("LOOK_UP"):
            m.d.comb += [
                scaler.factor.eq(settings.text_stride),
                scaler.count.eq(self.slot),
                scaler.start.eq(1),
                self.token_out.addr.eq(self._ring(limits.ngram_max, Const(0, 1))),
            ]
            m.d.sync += [age.eq(0), key.eq(0), known.eq(~self.writes_off), self.key_known.eq(0)]
            m.next = "WALK"
        with m.State("WALK"):
            m.d.comb += self.token_out.addr.eq(self._ring(limits.ngram_max, age + 1))
            m.d.sync += [age.eq(age + 1), key.eq(key_next), known.eq(known_next)]
            for table in range(limits.tables_max):
                with m.If((settings.lengths[table] == age + 1) & (table < settings.tables)):
                    m.d.sync += [self.keys[table].eq(key_next), self.key_known[table].eq(known_next)]
            with m.If(age == limits.ngram_max - 1):
                m.next = "BASE"
        base = Signal(self.address_bits)
        table_base = Signal(self.address_bits + LANE_BITS)
        m.d.comb += base.eq(settings.text_base + scaler.product)
        with m.State("BASE"):
            m.d.sync += [
                table_base.eq(base << LANE_BITS),
                self.log_base.eq(base + self.log_offset),
                self.table.eq(0),
            ]
            with m.If(scaler.done):
                m.next = "PLACE_ENTRY"
        mask, size = Signal(32), Signal(32)
        m.d.comb += [size.eq(1 << settings.log2_entries), mask.eq(size - 1)]
        keys = Array(self.keys[table] for table in range(limits.tables_max))
        entries = Array(self.entries[table] for table in range(limits.tables_max))
        with m.State("PLACE_ENTRY"):
            m.d.sync += [
                entries[self.table].eq(table_base + (keys[self.table] & mask)),
                table_base.eq(table_base + size),
            ]
            m.next = "READ_ENTRY"
        transfer = self.reads.transfers
        with m.State("READ_ENTRY"):
            wanted = self.key_known.bit_select(self.table, 1)
            m.d.comb += [
                transfer.valid.eq(wanted),
                transfer.payload.address.eq(entries[self.table] >> LANE_BITS),
                transfer.payload.beats.eq(1),
                transfer.payload.tag.kind.eq(ItemKind.ENTRY),
                transfer.payload.tag.index.eq(self.table),
                transfer.payload.tag.lane.eq(entries[self.table]),
            ]
            with m.If(transfer.ready | ~wanted):
                m.d.sync += self.table.eq(self.table + 1)
                m.next = "PLACE_ENTRY"
                with m.If(self.table == settings.tables - 1):
                    m.next = "MATCH"
                    with m.If(self.begins):
                        m.next = "ROW"
        # Entries that were asked for and have not come.
        self.entries_due = Signal(range(limits.tables_max + 1))
        asked = Signal()
        m.d.comb += asked.eq(transfer.valid & transfer.ready & (transfer.payload.tag.kind == ItemKind.ENTRY))
        m.d.sync += self.entries_due.eq(self.entries_due + asked - self.unpacker.entry)

    def _read_identity(self) -> None:
        m, settings, scaler, limits = self.module, self.settings, self.scaler, self.limits
        age = Signal(range(limits.identities_max + 1))
        offset, size = Signal(self.address_bits), Signal(range(limits.layers_max * limits.row_beats_max + 1))
        m.d.sync += size.eq(settings.layers * settings.row_beats)
        transfer = self.reads.transfers
        with m.State("ROW"):
            m.d.comb += self.row_out.addr.eq(self._ring(limits.identities_max, age))
            m.next = "ROW_KNOWN"
            with m.If((age == settings.identities) | (age > self.position)):
                m.d.sync += [age.eq(0), offset.eq(0)]
                m.next = "MATCH"
        with m.State("ROW_KNOWN"):
            m.d.comb += [
                scaler.factor.eq(settings.identity_stride),
                scaler.count.eq(self.row_out.data),
                scaler.start.eq(1),
            ]
            m.next = "READ_ROW"
            with m.If(self.row_out.data == NO_ROW):
                m.d.sync += [age.eq(age + 1), offset.eq(offset + size)]
                m.next = "ROW"
        with m.State("READ_ROW"):
            m.d.comb += [
                transfer.valid.eq(scaler.done),
                transfer.payload.address.eq(settings.identity_base + scaler.product + offset),
                transfer.payload.beats.eq(size),
                transfer.payload.tag.kind.eq(ItemKind.IDENTITY),
                transfer.payload.tag.index.eq(age),
            ]
            with m.If(scaler.done & transfer.ready):
                m.d.sync += [age.eq(age + 1), offset.eq(offset + size)]
                m.next = "ROW"

    def _write_entries(self) -> None:
        """Once the entries are there, this token takes them."""
        m, settings, limits = self.module, self.settings, self.limits
        write = self.writer.beats
        keys = Array(self.keys[table] for table in range(limits.tables_max))
        entries = Array(self.entries[table] for table in range(limits.tables_max))
        place = entries[self.table]
        entry = Cat(keys[self.table], self.position, self.sequence, Const(0, 32))
        with m.State("MATCH"):
            m.d.sync += self.table.eq(0)
            with m.If(settings.tables == 0):
                m.next = "END"
            with m.Elif(self.begins & settings.by_routing):
                m.next = "END"
            with m.Elif(self.entries_due == 0):
                m.next = "WRITE_ENTRY"
        with m.State("WRITE_ENTRY"):
            wanted = self.key_known.bit_select(self.table, 1)
            m.d.comb += [
                write.valid.eq(wanted),
                write.payload.slot.eq(self.slot),
                write.payload.first.eq(1),
                write.payload.last.eq(1),
                write.payload.address.eq(place >> LANE_BITS),
                write.payload.data.eq(Cat(*[entry] * LANES)),
                write.payload.strobe.word_select(place[:LANE_BITS], ENTRY_BYTES).eq(
                    Const((1 << ENTRY_BYTES) - 1, ENTRY_BYTES)
                ),
            ]
            with m.If(write.ready | ~wanted):
                m.d.sync += self.table.eq(self.table + 1)
                with m.If(self.table == settings.tables - 1):
                    m.next = "RECORDS"

    def _read_records(self) -> None:
        """The records that the matches lead to: of each table, then of the window after the longest."""
        m, settings, scaler, limits = self.module, self.settings, self.scaler, self.limits
        places = Array(self.unpacker.places[table] for table in range(limits.tables_max))
        longest, any_match = Signal(32), Signal()
        in_window, index = Signal(), Signal(index_bits(limits))
        place, back, there, older = Signal(32), Signal(32), Signal(), Signal()
        log_mask = Signal(32)
        transfer = self.reads.transfers
        m.d.comb += [log_mask.eq((1 << settings.log2_log) - 1), older.eq((back != 0) & ((back & ~log_mask) == 0))]
        with m.State("RECORDS"):
            for table in range(limits.tables_max):
                with m.If(self.unpacker.matched[table]):
                    m.d.sync += longest.eq(self.unpacker.places[table])
            m.d.sync += [
                any_match.eq(self.unpacker.matched.any()),
                in_window.eq(~settings.at_match),
                index.eq(Mux(settings.at_match, 0, settings.window_first)),
            ]
            m.next = "RECORD_PLACE"
            with m.If(~settings.at_match & ~settings.window):
                m.next = "END"
        with m.State("RECORD_PLACE"):
            with m.If(in_window):
                m.d.sync += [place.eq(longest + index), there.eq(any_match)]
            with m.Else():
                m.d.sync += [place.eq(places[index]), there.eq(self.unpacker.matched.bit_select(index, 1))]
            m.next = "RECORD_AGE"
        with m.State("RECORD_AGE"):
            m.d.sync += back.eq(self.position - place)
            m.next = "RECORD_THERE"
        with m.State("RECORD_THERE"):
            m.d.comb += [
                scaler.factor.eq(place & log_mask),
                scaler.count.eq(settings.record_beats),
                scaler.start.eq(1),
            ]
            m.next = "READ_RECORD"
            with m.If(~(there & older)):
                self._next_record(in_window, index)
        with m.State("READ_RECORD"):
            m.d.comb += [
                transfer.valid.eq(scaler.done),
                transfer.payload.address.eq(self.log_base + scaler.product),
                transfer.payload.beats.eq(settings.record_beats),
                transfer.payload.tag.kind.eq(ItemKind.RECORD),
                transfer.payload.tag.index.eq(index + Mux(in_window, settings.tables, 0)),
            ]
            with m.If(scaler.done & transfer.ready):
                self._next_record(in_window, index)

    def _next_record(self, in_window: Signal, index: Signal) -> None:
        m, settings = self.module, self.settings
        m.d.sync += index.eq(index + 1)
        m.next = "RECORD_PLACE"
        with m.If(in_window), m.If(index == settings.window_last):
            m.next = "END"
        with m.Elif(index == settings.tables - 1):
            m.d.sync += [in_window.eq(1), index.eq(settings.window_first)]
            with m.If(~settings.window):
                m.next = "END"

    def _end(self) -> None:
        m, unpacker = self.module, self.unpacker
        with m.State("END"):
            m.d.comb += unpacker.end.eq(self.reads.idle & unpacker.idle)
            with m.If(unpacker.end_taken):
                m.d.comb += self.text_ends.eq(self.begins)
                m.next = "IDLE"
                with m.If(self.records):
                    m.next = "RECORD_AFTER"
        # A model of one layer, by routing: the choice's gate is the last one, too.
        answered = ~self.writer.pending.bit_select(self.slot, 1)
        with m.State("RECORD_AFTER"):
            m.d.sync += self.writes_off.eq(self.off.bit_select(self.slot, 1))
            with m.If(answered):
                m.next = "RECORD_BASE"

    def _record(self) -> None:
        """The record of a token that ended, an id a cycle."""
        m, settings, scaler, limits = self.module, self.settings, self.scaler, self.limits
        layer, rank = Signal(layer_bits(limits)), Signal(bits_for(limits.top_k_max - 1))
        left, length = Signal(settings.record_beats.shape()), Signal(range(PAGE_BEATS + 1))
        address, in_burst = Signal(self.address_bits), Signal(range(PAGE_BEATS + 1))
        beat, held, gate = Signal(BEAT_BITS), Signal(range(BEAT_BYTES)), Signal.like(self.gate_out.data)
        room = Signal(range(PAGE_BEATS + 1))
        expert = Signal(16)
        experts = Array(gate.experts[place] for place in range(limits.top_k_max))
        log_mask = Signal(32)
        step = Mux(settings.wide_ids, 2, 1)
        last_id, full = Signal(), Signal()
        m.d.comb += [
            log_mask.eq((1 << settings.log2_log) - 1),
            room.eq(PAGE_BEATS - address[:PAGE_BITS]),
            length.eq(Mux(left < room, left, room)),
            expert.eq(Mux(gate.known, experts[rank], 0xFFFF)),
            last_id.eq((rank == settings.top_k - 1) & (layer == settings.layers - 1)),
            full.eq(held == BEAT_BYTES - step),
        ]
        with m.State("RECORD"):
            m.d.comb += self.queue.r_en.eq(1)
            m.next = "RECORD_BASE"
        with m.State("RECORD_BASE"):
            m.d.comb += [
                scaler.factor.eq(settings.text_stride),
                scaler.count.eq(self.slot),
                scaler.start.eq(1),
            ]
            m.d.sync += [
                layer.eq(0),
                rank.eq(0),
                held.eq(0),
                beat.eq(0),
                in_burst.eq(0),
                left.eq(settings.record_beats),
            ]
            m.next = "RECORD_SLOT"
            with m.If(self.writes_off):
                m.d.sync += self.recording.bit_select(self.slot, 1).eq(0)
                m.next = "IDLE"
        with m.State("RECORD_SLOT"), m.If(scaler.done):
            m.d.comb += [
                scaler.factor.eq(self.position & log_mask),
                scaler.count.eq(settings.record_beats),
                scaler.start.eq(1),
            ]
            m.d.sync += self.log_base.eq(settings.text_base + scaler.product + self.log_offset)
            m.next = "RECORD_NUMBER"
        with m.State("RECORD_NUMBER"), m.If(scaler.done):
            m.d.sync += address.eq(self.log_base + scaler.product)
            m.next = "RECORD_LAYER"
        with m.State("RECORD_LAYER"):
            m.d.comb += self.gate_out.addr.eq(Cat(layer, self.slot))
            m.next = "RECORD_LOAD"
        with m.State("RECORD_LOAD"):
            m.d.sync += gate.eq(self.gate_out.data)
            m.next = "RECORD_ID"
        with m.State("RECORD_ID"):
            with m.If(settings.wide_ids):
                m.d.sync += beat.word_select(held >> 1, 16).eq(expert)
            with m.Else():
                m.d.sync += beat.word_select(held, 8).eq(expert)
            m.d.sync += [held.eq(held + step), rank.eq(rank + 1)]
            with m.If(rank == settings.top_k - 1):
                m.d.sync += [rank.eq(0), layer.eq(layer + 1)]
                m.next = "RECORD_LAYER"
            with m.If(last_id | full):
                m.next = "RECORD_BEAT"
        resume = Signal()
        m.d.comb += resume.eq(rank != 0)
        write = self.writer.beats
        with m.State("RECORD_BEAT"):
            begins = in_burst == 0
            m.d.comb += [
                write.valid.eq(1),
                write.payload.slot.eq(self.slot),
                write.payload.first.eq(begins),
                write.payload.last.eq(Mux(begins, length == 1, in_burst == 1)),
                write.payload.address.eq(address),
                write.payload.length.eq(length - 1),
                write.payload.data.eq(beat),
                write.payload.strobe.eq(Const((1 << BEAT_BYTES) - 1, BEAT_BYTES)),
            ]
            with m.If(write.ready):
                m.d.sync += [
                    in_burst.eq(Mux(begins, length, in_burst) - 1),
                    address.eq(address + 1),
                    left.eq(left - 1),
                    beat.eq(0),
                    held.eq(0),
                ]
                m.next = "RECORD_LAYER"
                with m.If(left == 1):
                    m.d.sync += self.recording.bit_select(self.slot, 1).eq(0)
                    m.next = "IDLE"
                with m.Elif(resume):
                    m.next = "RECORD_ID"
