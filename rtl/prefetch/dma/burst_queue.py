"""The bursts that were asked for and are not over, in order."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from rtl.checks import always, always_within, implies

ENTRY = data.StructLayout({"length": 8, "last": 1})
"""Beats less one, and whether it is the last burst of a descriptor."""


class BurstQueue(wiring.Component):
    """Registers, the oldest of ``depth`` bursts of up to ``most`` beats in the first.

    ``level`` and ``oldest`` are as the last cycle left them.

    ``beats`` of all bursts together; only checks read it.
    """

    def __init__(self, depth: int, most: int) -> None:
        self.depth, self.most = depth, most
        super().__init__(
            {
                "push": In(1),
                "entry": In(ENTRY),
                "pop": In(1),
                "level": Out(range(depth + 1)),
                "oldest": Out(ENTRY),
                "beats": Out(range(most * depth + 1)),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        entries = [Signal(ENTRY, name=f"entry{n}") for n in range(self.depth)]
        after = Signal(range(self.depth + 1))
        m.d.comb += [self.oldest.eq(entries[0]), after.eq(self.level - self.pop)]
        m.d.sync += self.level.eq(after + self.push)
        for nth, entry in enumerate(entries):
            with m.If(self.push & (after == nth)):
                m.d.sync += entry.eq(self.entry)
            if nth + 1 < self.depth:
                with m.Elif(self.pop):
                    m.d.sync += entry.eq(entries[nth + 1])
        m.d.comb += self.beats.eq(sum(Mux(self.level > nth, entry.length + 1, 0) for nth, entry in enumerate(entries)))
        short = [implies(self.level > nth, entry.length < self.most) for nth, entry in enumerate(entries)]
        always(m, Cat(short).all(), "bursts: one is longer than may be")
        always_within(m, self.level, 0, self.depth, "bursts: more than there is room for")
        always(m, implies(self.pop, self.level.any()), "bursts: none is left to end")
        always(m, implies(self.push, after < self.depth), "bursts: one is lost")
        return m
