"""What the memory of the text is made of: parts, memories, and registers that several states share."""

from typing import Any

from amaranth.hdl import Array, Cat, Module, Signal, Value
from amaranth.lib import data
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Out, connect, flipped

from predictor.row_network.text_traffic import TextLimits
from rtl.bus.axi4 import always_read_manager, always_write_manager
from rtl.checks import always_stable
from rtl.prefetch.text.bursts import BurstMaker
from rtl.prefetch.text.layouts import (
    ROW_BITS,
    beat_address_bits,
    bits_for,
    experts_layout,
    layer_bits,
    slot_bits,
)
from rtl.prefetch.text.scaler import Scaler
from rtl.prefetch.text.unpacker import LANES, Unpacker, tag_layout
from rtl.prefetch.text.writer import Writer

LANE_BITS = (LANES - 1).bit_length()


def job_layout(limits: TextLimits) -> data.StructLayout:
    """A piece of work: a token ``begins``, layer 0's gate ``chooses``, or the last one's ``records``."""
    return data.StructLayout(
        {
            "begins": 1,
            "chooses": 1,
            "records": 1,
            "slot": slot_bits(limits),
            "starts": 1,
            "known": 1,
            "identity": 32,
            "row": ROW_BITS,
        }
    )


class TextControl:
    """The unit's module while it is made; ``unit`` is the component, whose ports are used."""

    def __init__(self, unit: Any, limits: TextLimits) -> None:
        self.unit, self.limits, self.settings = unit, limits, unit.settings
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

        self.job = Signal(job_layout(limits))
        """The piece of work that comes next."""
        m.submodules.queue = self.queue = SyncFIFO(width=self.job.shape().size, depth=4 * limits.slots)

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

        self.entries_due = Signal(range(limits.tables_max + 1))
        """Entries that were asked for and have not come."""

        self._connect()

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

    def ring(self, size: int, age: Value) -> Value:
        """The place, in a ring of ``size`` a slot, of the token ``age`` before this one."""
        return Cat((self.position - age)[: (size - 1).bit_length()], self.slot)

    def tell_token(self, known: Value, token: Value, enable: Value, position: Value) -> None:
        """What stands for the token at ``position``."""
        bits = (self.limits.ngram_max - 1).bit_length()
        self.module.d.comb += [
            self.token_in.addr.eq(Cat(position[:bits], self.slot)),
            self.token_in.data.known.eq(known),
            self.token_in.data.token.eq(token),
            self.token_in.en.eq(enable),
        ]
