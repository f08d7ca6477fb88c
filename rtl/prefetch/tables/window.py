"""Accesses to registers and to the table memory's window, which share a bus."""

from collections.abc import Callable
from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value

from predictor.st_moe.parameters import EngineLimits
from predictor.st_moe.rows import RowFormat
from rtl.bus.register_map import DATA_BITS
from rtl.prefetch.tables.address_map import Window


class WindowAccess:
    """The window's part of a register file.

    Args:
        m: Of the register file.
        bus: Its accesses (``RegisterBusSignature``).
        port: Of the table memory (``WindowSignature``).
        limits: Of the tables.

    Attributes:
        addressed: Whether the address on the bus lies in the window.
        exists: Whether there is such a word then.
    """

    def __init__(self, m: Module, bus: Any, port: Any, limits: EngineLimits) -> None:
        self._bus, self._port = bus, port
        window, words = Window.of(limits), RowFormat(limits).words
        offset = bus.address[2 : window.base.bit_length() - 1]
        word, row = offset[: window.stride.bit_length() - 3], offset[window.stride.bit_length() - 3 :]
        m.d.comb += [port.address.eq(row), port.word.eq(word), port.write_data.eq(bus.write_data)]
        self.addressed: Value = bus.address[-1]
        self.exists: Value = (row < limits.rows) & (word < words if len(word) else 1)

    def write(self, m: Module) -> None:
        """Writes of the window, and their answers."""
        bus, port = self._bus, self._port
        with m.If(bus.write & self.addressed):
            m.d.comb += [
                port.write.eq(self.exists),
                bus.error.eq(~self.exists),
                bus.done.eq(port.ready | ~self.exists),
            ]

    def read(self, m: Module, find: Callable[[Signal, Signal], None]) -> None:
        """Reads of the window and of registers: two cycles, in which the word is found and kept, then handed over.

        ``find`` takes in what the register at the address holds, and whether there is one; see ``find_register``.
        """
        bus, port = self._bus, self._port
        found, exists, answering, from_window = Signal(DATA_BITS), Signal(), Signal(), Signal()
        m.d.sync += answering.eq(0)
        with m.If(bus.read & ~answering):
            m.d.sync += [from_window.eq(self.addressed & self.exists), found.eq(0), exists.eq(1)]
            with m.If(self.addressed & self.exists):
                m.d.comb += port.read.eq(1)
                m.d.sync += answering.eq(port.ready)
            with m.Else():
                m.d.sync += answering.eq(1)
                with m.If(self.addressed):
                    m.d.sync += exists.eq(0)
                with m.Else():
                    find(found, exists)
        with m.If(bus.read & answering):
            m.d.comb += [
                bus.done.eq(1),
                bus.error.eq(~exists),
                bus.read_data.eq(Mux(from_window, port.read_data, found)),
            ]
