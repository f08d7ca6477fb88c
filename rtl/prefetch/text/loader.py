"""The loader: a section of a memory image is read from far memory, checked, and written to the net's memories."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.integers import BEAT_BYTES, CHANCE_BINS
from predictor.row_network.limits import NetLimits
from predictor.row_network.program import (
    IDENTITIES_MAX,
    LAYER,
    MATCHED_MAX,
    MATCHED_SUM,
    OPERATION,
    OPERATIONS,
    SETTINGS,
    Fields,
    Memory,
)
from predictor.row_network.sections import BLOCK, HEADER, MAGIC, TABLES_MAX, VERSION
from predictor.row_network.sections import LoadError as Code
from predictor.row_network.text_traffic import TextLimits
from rtl.bus.axi4 import Axi4ReadSignature
from rtl.bus.axi_lite import Response
from rtl.checks import always, implies
from rtl.prefetch.net.scores.layouts import HEADS, NEXT_LAYER, load_layout
from rtl.prefetch.text.bursts import BurstMaker
from rtl.prefetch.text.layouts import BEAT_BITS, beat_address_bits, bits_for, text_settings_layout

BEATS_BITS = 24
"""Of a section's beats."""
WORD_BITS = 32
WORDS = BEAT_BITS // WORD_BITS
SMALL_BITS = 3


class LoadError(enum.Enum, shape=bits_for(max(Code))):  # type: ignore[call-arg]
    """What a load came to, as ``predictor.row_network.sections.LoadError``."""

    NONE = Code.NONE
    BUS = Code.BUS
    MAGIC = Code.MAGIC
    VERSION = Code.VERSION
    SHAPE = Code.SHAPE
    TEXT = Code.TEXT
    LANES = Code.LANES
    BLOCK = Code.BLOCK
    CHECKSUM = Code.CHECKSUM
    ORDER = Code.ORDER
    BUSY = Code.BUSY


def shape_layout() -> data.StructLayout:
    """What registers say of the model, and the distance at which next-layer is asked (next-use: 0)."""
    return data.StructLayout(
        {"layers": unsigned(8), "experts": unsigned(16), "top_k": unsigned(8), "distance": unsigned(8)}
    )


def fields_layout(fields: Fields, bits: int) -> data.StructLayout:
    """A beat, or a part of it, as ``predictor.row_network.program.pack`` makes it."""
    named = {name: unsigned(width) for name, width in fields}
    return data.StructLayout({**named, "rest": unsigned(bits - sum(width for _, width in fields))})


def memory_words(limits: NetLimits, head: int) -> dict[Memory, int]:
    """Words that a generated head's memories have room for, at the addresses of an image."""
    own = limits.heads[head]
    answers = own.questions * limits.experts
    return {
        Memory.ROWS: own.row_words,
        Memory.OUTPUT: limits.layers * answers * limits.words(head),
        Memory.BIAS: limits.layers * limits.words(head),
        Memory.OUTPUT_BIAS: limits.layers * answers,
        Memory.CHANCES: limits.layers * own.questions * CHANCE_BINS,
        Memory.GATE_PROGRAM: limits.layers * OPERATIONS,
        Memory.MATCHED: limits.layers * MATCHED_MAX,
        Memory.RECORDS: limits.records,
        Memory.IDENTITY_SHIFTS: limits.layers * IDENTITIES_MAX,
        Memory.LAYERS: limits.layers,
        Memory.SETTINGS: 1,
    }


def memory_word_bytes(limits: NetLimits, head: int) -> dict[Memory, int]:
    """Bytes of a word of each memory in a section."""
    lanes = limits.word_lanes(head)
    return {
        Memory.ROWS: lanes,
        Memory.OUTPUT: lanes,
        Memory.BIAS: 4 * lanes,
        Memory.OUTPUT_BIAS: 4,
        Memory.CHANCES: 2,
        Memory.GATE_PROGRAM: _packed_bytes(OPERATION),
        Memory.MATCHED: _packed_bytes(MATCHED_SUM),
        Memory.RECORDS: 1,
        Memory.IDENTITY_SHIFTS: 1,
        Memory.LAYERS: _packed_bytes(LAYER),
        Memory.SETTINGS: _packed_bytes(SETTINGS),
    }


def _packed_bytes(fields: Fields) -> int:
    size = -(-sum(bits for _, bits in fields) // 8)
    return 1 << (size - 1).bit_length()


class ImageLoader(wiring.Component):
    """In the cycle of ``start`` it takes ``address``, the number of the section's first beat; ``done`` ends a load, and
    ``error`` says from then on what it came to: the first fault that was met, `LoadError.NONE` where there was none.

    The header is checked before anything else is read. A beat is summed up in 16 cycles, a word each, then its words
    go to the net, one a cycle. What was written before a fault was met stays in the net's memories, so ``loaded``, a
    bit a head, is 1 only where both sections of one net, the shared one first, were loaded without one; a load of a
    head begins with clearing it. ``refused`` instead of ``start``: the load cannot be, something is in work.

    ``settings`` and ``shape`` must hold still while ``busy``.
    """

    def __init__(self, limits: TextLimits, net: NetLimits) -> None:
        self.limits, self.net = limits, net
        super().__init__(
            {
                "start": In(1),
                "refused": In(1),
                "address": In(beat_address_bits(limits)),
                "settings": In(text_settings_layout(limits)),
                "shape": In(shape_layout()),
                "memory": Out(Axi4ReadSignature(BEAT_BITS, limits.address_bits)),
                "load": Out(load_layout(net)),
                "busy": Out(1),
                "done": Out(1),
                "error": Out(LoadError),
                "loaded": Out(HEADS),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        tag = data.StructLayout({"unused": 1})
        m.submodules.reads = reads = BurstMaker(beat_address_bits(self.limits), BEATS_BITS, tag, self.limits.reads)
        memory = self.memory
        beat = Signal(BEAT_BITS)
        header, block = (
            Signal(fields_layout(HEADER, BEAT_BITS)),
            data.View(fields_layout(BLOCK, BEAT_BITS), beat),
        )
        in_burst = Signal(reads.under_way.payload.length.shape())
        taking, take, last, bad = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            memory.araddr.eq(reads.araddr),
            memory.arlen.eq(reads.arlen),
            memory.arvalid.eq(reads.arvalid),
            reads.arready.eq(memory.arready),
            memory.rready.eq(taking & reads.under_way.valid),
            take.eq(memory.rvalid & memory.rready),
            last.eq(in_burst == reads.under_way.payload.length),
            reads.under_way.ready.eq(take & last),
            bad.eq((memory.rresp != Response.OKAY) | (memory.rlast != last)),
        ]
        with m.If(take):
            m.d.sync += [in_burst.eq(Mux(last, 0, in_burst + 1)), beat.eq(memory.rdata)]

        error, left = Signal(bits_for(max(Code))), Signal(BEATS_BITS)
        address = Signal.like(self.address)
        low, high, word = Signal(WORD_BITS), Signal(WORD_BITS), Signal(range(WORDS))
        is_header, wants_block = Signal(), Signal()
        # Of the block: words to come, cycles of this beat, parts of this word.
        words_left, beats_left = Signal(32), Signal(32)
        number, parts, small = Signal(24), Signal(16), Signal(SMALL_BITS)
        part, emitted = Signal(16), Signal(range(BEAT_BYTES + 1))
        shared, identity = Signal(HEADS), Signal(data.ArrayLayout(32, HEADS))

        def fault(code: Code, holds: Value) -> None:
            """The first fault is kept."""
            with m.If(holds & (error == Code.NONE)):
                m.d.sync += error.eq(code)

        m.d.comb += [
            self.load.head.eq(header.head),
            self.load.address.eq(number),
            self.load.part.eq(part),
            self.load.data.eq(beat),
            self.error.eq(error),
        ]
        memory_now = Signal(8)
        m.d.comb += self.load.memory.eq(memory_now)
        of_head = self._of_head(m, header.head, block.memory)
        with m.FSM() as fsm:
            with m.State("IDLE"):
                with m.If(self.start & self.refused):
                    m.d.sync += error.eq(Code.BUSY)
                    m.next = "DONE"
                with m.Elif(self.start):
                    m.d.sync += [
                        address.eq(self.address),
                        error.eq(Code.NONE),
                        low.eq(1),
                        high.eq(0),
                        is_header.eq(1),
                        wants_block.eq(1),
                        beats_left.eq(0),
                        left.eq(1),
                    ]
                    m.next = "READ"
            with m.State("READ"):
                m.d.comb += [
                    reads.transfers.valid.eq(1),
                    reads.transfers.payload.address.eq(address),
                    reads.transfers.payload.beats.eq(left),
                ]
                with m.If(reads.transfers.ready):
                    m.next = "TAKE"
            with m.State("TAKE"):
                m.d.comb += taking.eq(1)
                with m.If(take):
                    fault(Code.BUS, bad)
                    m.d.sync += [left.eq(left - 1), word.eq(0)]
                    m.next = "SUM"
            with m.State("SUM"):
                # The beat turns round once, a word a cycle.
                of_checksum = is_header & ((word == 3) | (word == 4))
                summed, low_next = Signal(WORD_BITS), Signal(WORD_BITS)
                m.d.comb += [summed.eq(Mux(of_checksum, 0, beat[:WORD_BITS])), low_next.eq(low + summed)]
                m.d.sync += [
                    low.eq(low_next),
                    high.eq(high + low_next),
                    beat.eq(beat.rotate_right(WORD_BITS)),
                    word.eq(word + 1),
                ]
                with m.If(word == WORDS - 1):
                    with m.If(is_header):
                        m.next = "HEADER"
                    with m.Elif(error != Code.NONE):
                        m.next = "NEXT"
                    with m.Elif(wants_block):
                        m.next = "BLOCK"
                    with m.Else():
                        m.d.sync += emitted.eq(0)
                        m.next = "WORDS"
            with m.State("HEADER"):
                m.d.sync += [header.eq(beat), is_header.eq(0)]
                m.next = "CHECK"
            with m.State("CHECK"):
                for code, holds in reversed(self._header_faults(header, shared, identity)):
                    fault(code, holds)  # the last assignment counts, so the first fault
                m.next = "CHECKED"
            with m.State("CHECKED"):
                m.d.sync += [address.eq(address + 1), left.eq(header.beats - 1)]
                with m.If(error != Code.NONE):
                    m.next = "DONE"
                with m.Else():
                    m.d.sync += self.loaded.bit_select(header.head, 1).eq(0)
                    with m.If(~header.distance_alone):
                        m.d.sync += shared.bit_select(header.head, 1).eq(0)
                    m.next = "READ"
            with m.State("BLOCK"):
                m.d.sync += [
                    words_left.eq(block.words),
                    beats_left.eq(block.beats),
                    number.eq(block.first),
                    parts.eq(block.parts),
                    small.eq(block.log2_small),
                    memory_now.eq(block.memory),
                    part.eq(0),
                    wants_block.eq(block.beats == 0),
                ]
                fault(Code.LANES, (block.parts != of_head["parts"]) | (block.log2_small != of_head["small"]))
                fault(
                    Code.BLOCK,
                    of_head["unknown"] | (block.beats > left) | (block.first + block.words > of_head["words"]),
                )
                m.next = "NEXT"
            with m.State("WORDS"):
                valid = (words_left != 0) & (error == Code.NONE)
                m.d.comb += self.load.valid.eq(valid)
                m.d.sync += [emitted.eq(emitted + 1), part.eq(part + 1)]
                shifted = Value.cast(beat)
                for size in range(SMALL_BITS + 3):
                    shifted = Mux(small == size, beat >> (8 << size), shifted)
                m.d.sync += beat.eq(shifted)
                fault(Code.BLOCK, words_left == 0)
                with m.If(part == parts - 1):
                    m.d.sync += [part.eq(0), number.eq(number + 1), words_left.eq(words_left - (words_left != 0))]
                last_word = (part == parts - 1) & (words_left <= 1)
                beat_over = ((emitted + 1) << small)[6]
                with m.If(last_word | beat_over):
                    m.d.sync += [beats_left.eq(beats_left - 1), wants_block.eq(beats_left == 1)]
                    fault(Code.BLOCK, last_word != (beats_left == 1))
                    m.next = "NEXT"
            with m.State("NEXT"):
                m.next = "TAKE"
                with m.If(left == 0):
                    m.next = "END"
            with m.State("END"):
                fault(Code.BLOCK, ~wants_block)
                fault(Code.CHECKSUM, (low != header.checksum_low) | (high != header.checksum_high))
                m.next = "LOADED"
            with m.State("LOADED"):
                with m.If(error == Code.NONE):
                    with m.If(header.distance_alone):
                        m.d.sync += self.loaded.bit_select(header.head, 1).eq(1)
                    with m.Else():
                        m.d.sync += [
                            shared.bit_select(header.head, 1).eq(1),
                            identity[header.head].eq(header.identity),
                        ]
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                m.next = "IDLE"
        m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
        always(m, implies(self.done, reads.idle), "loader: a load ends while beats are under way")
        return m

    def _of_head(self, m: Module, head: Value, memory: Value) -> dict[str, Signal]:
        """What a head's memory is: its ``words``, ``parts`` of a word, log2 of a ``small`` word; or ``unknown``."""
        found = {"words": Signal(32), "parts": Signal(16), "small": Signal(8), "unknown": Signal()}
        m.d.comb += found["unknown"].eq(1)
        for number in range(HEADS):
            depths, sizes = memory_words(self.net, number), memory_word_bytes(self.net, number)
            with m.If(head == number), m.Switch(memory):
                for one in Memory:
                    with m.Case(int(one)):
                        m.d.comb += [
                            found["unknown"].eq(0),
                            found["words"].eq(depths[one]),
                            found["parts"].eq(max(1, sizes[one] // BEAT_BYTES)),
                            found["small"].eq(min(sizes[one], BEAT_BYTES).bit_length() - 1),
                        ]
        return found

    def _header_faults(self, header: data.View, shared: Value, identity: data.View) -> list[tuple[Code, Value]]:
        """What the header may be wrong in, the first to be reported first."""
        settings, shape, net = self.settings, self.shape, self.net
        equal = [
            header.layers == shape.layers,
            header.experts == shape.experts,
            header.top_k == shape.top_k,
            ~header.distance_alone | (header.distance == Mux(header.head == NEXT_LAYER, shape.distance, 0)),
            header.layers <= net.layers,
            header.experts <= net.experts,
            header.top_k <= net.top_k,
        ]
        lanes = []
        for head in range(HEADS):
            own = net.heads[head]
            here = header.head == head
            equal += [
                ~here | (getattr(header, name) <= most)
                for name, most in (
                    ("questions", own.questions),
                    ("words", net.words(head)),
                    ("operations", own.operations),
                    ("previous", own.previous),
                    ("decays", own.decays),
                    ("matched", own.matched),
                    ("identities", own.identities if head == NEXT_LAYER else 0),
                )
            ]
            lanes.append(~here | (header.lanes == net.word_lanes(head)))
        lengths = [
            (table >= header.tables)
            | (
                getattr(header, f"length{table}") == settings.lengths[table]
                if table < self.limits.tables_max
                else Const(0, 1)
            )
            for table in range(TABLES_MAX)
        ]
        text = [
            (header.tables == 0)
            | Cat(
                header.tables == settings.tables,
                header.by_routing == settings.by_routing,
                header.log2_entries == settings.log2_entries,
                header.log2_log == settings.log2_log,
                *lengths,
            ).all(),
            (header.identities == 0)
            | ((header.identities == settings.identities) & (header.row_beats == settings.row_beats)),
        ]
        order = header.distance_alone & (
            ~shared.bit_select(header.head, 1) | (identity[header.head] != header.identity)
        )
        return [
            (Code.MAGIC, header.magic != MAGIC),
            (Code.VERSION, header.version != VERSION),
            (Code.BLOCK, (header.beats < 2) | (header.beats >> BEATS_BITS).any()),
            (Code.SHAPE, ~Cat(*equal).all()),
            (Code.LANES, ~Cat(*lanes).all()),
            (Code.TEXT, ~Cat(*text).all()),
            (Code.ORDER, order),
        ]
