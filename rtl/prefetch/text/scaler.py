"""A multiplier that takes its time: addresses of rows and records while memory is slower anyway."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override


class Scaler(wiring.Component):
    """``product = factor · count``, a bit of ``count`` a cycle.

    In the cycle of ``start`` the operands are taken; ``done`` holds from ``bit_length(count) + 1`` cycles later on,
    until the next ``start``.
    """

    def __init__(self, factor_bits: int, count_bits: int) -> None:
        super().__init__(
            {
                "factor": In(factor_bits),
                "count": In(count_bits),
                "start": In(1),
                "product": Out(factor_bits),
                "done": Out(1),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        factor, count = Signal.like(self.factor), Signal.like(self.count)
        m.d.comb += self.done.eq(count == 0)
        with m.If(self.start):
            m.d.sync += [factor.eq(self.factor), count.eq(self.count), self.product.eq(0)]
        with m.Else():
            m.d.sync += [factor.eq(factor << 1), count.eq(count >> 1)]
            with m.If(count[0]):
                m.d.sync += self.product.eq(self.product + factor)
        return m
