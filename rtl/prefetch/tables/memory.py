"""The memory of the cross-layer correlation table."""

from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.st_moe.parameters import EngineLimits
from predictor.st_moe.rows import WORD_BITS, RowFormat
from rtl.checks import always_within
from rtl.prefetch.tables.layouts import RowWriteSignature, address_bits, row_layout


class WindowSignature(wiring.Signature):
    """Access to single words of rows, from the side of whoever asks.

    ``read`` or ``write`` is held until ``ready``; the word read is in ``read_data`` in the cycle after.
    """

    def __init__(self, limits: EngineLimits) -> None:
        super().__init__(
            {
                "read": Out(1),
                "write": Out(1),
                "address": Out(address_bits(limits)),
                "word": Out(range(max(2, RowFormat(limits).words))),  # Verilog has no signal of no bits
                "write_data": Out(WORD_BITS),
                "read_data": In(WORD_BITS),
                "ready": In(1),
            }
        )


class TableMemory(wiring.Component):
    """One read and one write port; the engine goes first, the window takes the cycles in between.

    ``row`` is that of ``read_address`` in the cycle before. A row is written whole by the engine, by words through the
    window. Zero at start-up, as block RAM is; load it before use.
    """

    def __init__(self, limits: EngineLimits) -> None:
        self.limits = limits
        super().__init__(
            {
                "read": In(1),
                "read_address": In(address_bits(limits)),
                "row": Out(row_layout(limits)),
                "write": In(RowWriteSignature(limits)),
                "window": In(WindowSignature(limits)),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        words = RowFormat(self.limits).words
        m.submodules.memory = memory = Memory(shape=unsigned(words * WORD_BITS), depth=self.limits.rows, init=[])
        read, write = memory.read_port(), memory.write_port(granularity=WORD_BITS)
        word_read = Signal.like(self.window.word)
        m.d.sync += word_read.eq(self.window.word)
        m.d.comb += [
            read.addr.eq(self.window.address),
            read.en.eq(self.read | self.window.read),
            self.row.eq(read.data),
            self.window.read_data.eq(read.data.word_select(word_read, WORD_BITS)),
            self.window.ready.eq((self.window.read & ~self.read) | (self.window.write & ~self.write.valid)),
        ]
        with m.If(self.read):
            m.d.comb += read.addr.eq(self.read_address)
        with m.If(self.write.valid):
            m.d.comb += [
                write.addr.eq(self.write.address),
                write.data.eq(self.write.row),
                write.en.eq((1 << words) - 1),
            ]
        with m.Elif(self.window.write):
            m.d.comb += [
                write.addr.eq(self.window.address),
                write.data.eq(Cat(self.window.write_data for _ in range(words))),
                write.en.eq(1 << self.window.word),
            ]
        last = self.limits.rows - 1
        always_within(m, read.addr, 0, last, "tables: a row is read that does not exist", where=read.en)
        always_within(m, write.addr, 0, last, "tables: a row is written that does not exist", where=write.en.any())
        return m
