"""The memories of the directory: ``lanes`` entries a word, each of one layer."""

from amaranth.hdl import Cat, Module, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from rtl.prefetch.stager.layouts import StagerShape, entry_layout


def entries_layout(shape: StagerShape) -> data.ArrayLayout:
    """The entries of a word."""
    return data.ArrayLayout(entry_layout(shape), shape.limits.lanes)


def times_layout(shape: StagerShape) -> data.ArrayLayout:
    """The values of a word, in time."""
    return data.ArrayLayout(signed(shape.time_bits), shape.limits.lanes)


def word_of(shape: StagerShape, layer: Value, expert: Value) -> Value:
    """Address of the word in which an expert's entry is."""
    return Cat(expert[shape.lane_bits :][: shape.word_bits], layer)


def directory_members(shape: StagerShape) -> dict[str, wiring.Member]:
    """The ports of whatever keeps the directory."""
    return {
        "read": In(1),
        "read_word": In(shape.address_bits),
        "entries": Out(entries_layout(shape)),
        "values": Out(times_layout(shape)),
        "write": In(shape.limits.lanes),
        "write_word": In(shape.address_bits),
        "entry": In(entry_layout(shape)),
        "write_values": In(1),
        "values_word": In(shape.address_bits),
        "new_values": In(times_layout(shape)),
    }


class DirectoryMemory(wiring.Component):
    """One memory of entries, written by lanes, and one of values, written whole; one read port for both.

    What is read in a cycle is there in the next, and stays until something else is read.
    """

    def __init__(self, shape: StagerShape) -> None:
        self.shape = shape
        super().__init__(directory_members(shape))

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth, lanes = max(2, self.shape.directory_words), self.shape.limits.lanes  # an address has a bit
        m.submodules.entries = entries = Memory(shape=entries_layout(self.shape), depth=depth, init=[])
        m.submodules.values = values = Memory(shape=times_layout(self.shape), depth=depth, init=[])
        read, read_values = entries.read_port(), values.read_port()
        write, write_values = entries.write_port(granularity=1), values.write_port()
        for port in (read, read_values):
            m.d.comb += [port.en.eq(self.read), port.addr.eq(self.read_word)]
        m.d.comb += [
            self.entries.eq(read.data),
            self.values.eq(read_values.data),
            write.en.eq(self.write),
            write.addr.eq(self.write_word),
            write_values.en.eq(self.write_values),
            write_values.addr.eq(self.values_word),
            write_values.data.eq(self.new_values),
        ]
        m.d.comb += [write.data[lane].eq(self.entry) for lane in range(lanes)]
        return m
