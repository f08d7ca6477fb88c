"""Sixteen lanes and the tree that adds up their products."""

from amaranth.hdl import Module, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from pim_model.unit.parameters import LANES
from rtl.pim.arithmetic.adder import Fp32Adder
from rtl.pim.arithmetic.formats import FP32
from rtl.pim.arithmetic.lane import (
    INT8_PRODUCT_BITS,
    LANE_OPERANDS,
    LaneMultiplier,
    product_as_fp32,
    product_as_integer,
)
from rtl.pipeline import delayed
from rtl.verilog import Shared

_LEVELS = LANES.bit_length() - 1

INTEGER_SUM_BITS = INT8_PRODUCT_BITS + _LEVELS
"""Of the sum of all lanes' INT8 products, which loses nothing."""


class DotProduct(wiring.Component):
    """The sum of the products of all lanes' operands, ``LATENCY`` clocks later; a new one every clock.

    Neighbours are added: (p0 + p1) + (p2 + p3) and so on. FP32 and INT8 products go through trees of their own, of
    which the integers' is shorter and waits for the other.

    Members:
        operands: Of every lane.
        fp32: The sum, if the operands were BF16.
        integer: The sum, if they were INT8.
    """

    LATENCY = LaneMultiplier.LATENCY + _LEVELS * Fp32Adder.LATENCY

    def __init__(self) -> None:
        super().__init__(
            {
                "operands": In(data.ArrayLayout(LANE_OPERANDS, LANES)),
                "fp32": Out(FP32),
                "integer": Out(signed(INTEGER_SUM_BITS)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """The multipliers and the two trees."""
        m = Module()
        products: list[Value] = []
        for lane in range(LANES):
            m.submodules[f"lane{lane}"] = multiplier = Shared(LaneMultiplier, "pim_lane_multiplier")
            m.d.comb += multiplier.operands.eq(self.operands[lane])
            products.append(multiplier.product)

        terms: list[Value] = [product_as_fp32(product) for product in products]
        for level in range(_LEVELS):
            sums: list[Value] = []
            for number, (a, b) in enumerate(zip(terms[::2], terms[1::2], strict=True)):
                m.submodules[f"adder{level}_{number}"] = adder = Shared(Fp32Adder, "pim_fp32_adder")
                m.d.comb += [adder.a.eq(a), adder.b.eq(b)]
                sums.append(adder.result)
            terms = sums
        m.d.comb += self.fp32.eq(terms[0])

        m.d.comb += self.integer.eq(self._integer_sum(m, [product_as_integer(product) for product in products]))
        return m

    def _integer_sum(self, m: Module, terms: list[Value]) -> Signal:
        """The integers' tree, two levels a clock, and registers until the other is done."""
        clocks = 0
        while len(terms) > 1:
            fours = zip(*[iter(terms)] * 4, strict=True)
            sums = [(a + b) + (c + d) for a, b, c, d in fours]
            terms = [
                Signal(value.shape(), name=f"integers{clocks}_{n}", reset_less=True) for n, value in enumerate(sums)
            ]
            m.d.sync += [term.eq(value) for term, value in zip(terms, sums, strict=True)]
            clocks += 1
        (total,) = terms
        return delayed(m, "integer_waits", total, _LEVELS * Fp32Adder.LATENCY - clocks)
