"""A buffer of two between two ends of a stream, neither of which sees the other's handshake in the same clock."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override


class RegisterSlice(wiring.Component):
    """What is put in is on offer in the next clock; ``ready`` and ``valid`` are registers, and a transfer a clock goes
    through.

    Args:
        shape: of the payload.

    Members:
        empty: nothing is on offer.

    Attributes:
        behind: what waits behind that which is on offer.
    """

    def __init__(self, shape: Any) -> None:
        signature = stream.Signature(shape)
        self.behind = Signal(shape)
        super().__init__({"into": In(signature), "out": Out(signature), "empty": Out(1, init=1)})

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        full, held = Signal(), Signal()  # both places are taken; the one on offer is
        put, taken = Signal(), Signal()
        m.d.comb += [
            self.into.ready.eq(~full),
            self.out.valid.eq(held),
            self.empty.eq(~held),
            put.eq(self.into.valid & ~full),
            taken.eq(held & self.out.ready),
        ]
        with m.If(~full):
            m.d.sync += self.behind.eq(self.into.payload)
        with m.If(taken | ~held):
            m.d.sync += [held.eq(put | full), full.eq(0)]
            with m.If(full):
                m.d.sync += self.out.payload.eq(self.behind)
            with m.Else():
                m.d.sync += self.out.payload.eq(self.into.payload)
        with m.Elif(put):
            m.d.sync += full.eq(1)
        return m
