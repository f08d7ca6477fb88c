"""FP32 addition."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.pim.arithmetic.formats import FP32, GREATEST, is_infinite, is_nan, packed, significand
from rtl.pim.arithmetic.shifters import normalised, shifted_right_sticky

# Guard, round and sticky bit below the 24 bits of a significand.
_EXTRA = 3
_WIDTH = 24 + _EXTRA


_CONTEXT = data.StructLayout(
    {
        "sign": 1,
        "exponent": 8,
        "subtract": 1,
        "infinite": 1,
        "nan": 1,
    }
)
"""What goes with a sum through the stages.

Members:
    sign: Of the larger operand.
    exponent: Of the larger operand.
    subtract: The operands' signs differ.
    infinite, nan: What the result is, if it is special.
"""


class Fp32Adder(wiring.Component):
    """``a`` + ``b``, rounded, ``LATENCY`` clocks later; a new pair every clock.

    The three stages: order the operands by magnitude and shift the smaller one by whole bytes; shift it by the rest and
    add or subtract; normalise and round. In the last one, a difference that lost two leading bits or more is exact
    (its operands' exponents differ by at most 1), so it needs the long shift and no rounding, and every other result
    needs rounding and no long shift.

    Members:
        a, b: The terms.
        result: The sum.
        next_result: What ``result`` is in the next clock, for who stores it at the end of this one.
    """

    LATENCY = 3

    def __init__(self) -> None:
        super().__init__({"a": In(FP32), "b": In(FP32), "result": Out(FP32), "next_result": Out(FP32)})

    def elaborate(self, platform: object) -> Module:
        """The three stages, a register after each."""
        m = Module()
        self._round(m, *self._add(m, *self._order(m)))
        return m

    def _order(self, m: Module) -> tuple[data.View, Signal, Signal, Signal]:
        """First stage: context, larger significand, smaller one shifted by whole bytes, places yet to shift."""
        swap = Signal()
        larger, smaller = Signal(FP32), Signal(FP32)
        distance = Signal(8)
        m.d.comb += [
            swap.eq(self.a.as_value()[:31] < self.b.as_value()[:31]),
            larger.eq(Mux(swap, self.b.as_value(), self.a.as_value())),
            smaller.eq(Mux(swap, self.a.as_value(), self.b.as_value())),
            distance.eq(Mux(swap, self.b.exponent - self.a.exponent, self.a.exponent - self.b.exponent)),
        ]
        context = Signal(_CONTEXT, name="ordered", reset_less=True)
        first, second = Signal(24, reset_less=True), Signal(_WIDTH, reset_less=True)
        places = Signal(3, reset_less=True)
        opposite = self.a.sign ^ self.b.sign
        m.d.sync += [
            context.sign.eq(larger.sign),
            context.exponent.eq(larger.exponent),
            context.subtract.eq(opposite),
            context.infinite.eq(larger.exponent == GREATEST),
            context.nan.eq(is_nan(larger) | is_nan(smaller) | (is_infinite(smaller) & opposite)),
            first.eq(significand(larger)),
            second.eq(shifted_right_sticky(Cat(Const(0, _EXTRA), significand(smaller)), distance[3:], step=8)),
            places.eq(distance[:3]),
        ]
        return context, first, second, places

    def _add(
        self, m: Module, context: data.View, first: Signal, second: Signal, places: Signal
    ) -> tuple[data.View, Signal]:
        """Second stage: context, and the sum of the significands, with one bit above and three below."""
        summed = Signal(_CONTEXT, name="summed", reset_less=True)
        total = Signal(_WIDTH + 1, reset_less=True)
        # One adder: a − b is a + ~b + 1; the 1 is what a further bit below, where a has a 1, carries.
        subtract = context.subtract
        augend, addend = Signal(_WIDTH + 2), Signal(_WIDTH + 2)
        aligned = shifted_right_sticky(second, places)
        m.d.comb += [
            augend.eq(Cat(Const(1, 1 + _EXTRA), first)),
            addend.eq(Cat(subtract, Cat(aligned, Const(0, 1)) ^ subtract.replicate(_WIDTH + 1))),
        ]
        m.d.sync += [summed.eq(context), total.eq((augend + addend)[1:])]
        return summed, total

    def _round(self, m: Module, context: data.View, total: Signal) -> None:
        """Third stage: the result."""
        # Exponents one lower than the larger operand's, the same, one and two higher.
        lower, same, higher, two_higher = (Signal(signed(10), name=f"exponent{n}") for n in range(4))
        m.d.comb += [
            lower.eq(context.exponent - 1),
            same.eq(context.exponent),
            higher.eq(context.exponent + 1),
            two_higher.eq(context.exponent + 2),
        ]
        kept, guard, sticky = Signal(24), Signal(), Signal()
        as_it_is, carried = Signal(signed(10)), Signal(signed(10))
        with m.If(total[_WIDTH]):
            m.d.comb += [kept.eq(total[4:]), guard.eq(total[3]), sticky.eq(total[:3].any())]
            m.d.comb += [as_it_is.eq(higher), carried.eq(two_higher)]
        with m.Elif(total[_WIDTH - 1]):
            m.d.comb += [kept.eq(total[3:]), guard.eq(total[2]), sticky.eq(total[:2].any())]
            m.d.comb += [as_it_is.eq(same), carried.eq(higher)]
        with m.Else():
            m.d.comb += [kept.eq(total[2:]), guard.eq(total[1]), sticky.eq(total[0])]
            m.d.comb += [as_it_is.eq(lower), carried.eq(same)]
        rounded = Signal(25)
        m.d.comb += rounded.eq(kept + (guard & (sticky | kept[0])))

        # Two leading bits or more are lost: below the significand there is no more than the guard bit.
        lost_bits = total[_WIDTH - 2 :] == 0
        exact, places = normalised(m, "exact", total[2 : _WIDTH - 2])

        exponent = Signal(signed(10))
        fraction = Signal(23)
        with m.If(lost_bits):
            m.d.comb += [exponent.eq(context.exponent - 2 - places), fraction.eq(exact << 1)]
        with m.Else():
            # Where rounding carries out, the fraction is zero as it stands.
            m.d.comb += [exponent.eq(Mux(rounded[24], carried, as_it_is)), fraction.eq(rounded[:23])]
        nothing = ~total.any()
        m.d.sync += self.result.eq(self.next_result)
        m.d.comb += self.next_result.eq(
            packed(
                # x − x is +0; a difference below the least normal number keeps its sign.
                sign=context.sign & ~(nothing & context.subtract),
                exponent=exponent,
                fraction=fraction,
                zero=nothing | (exponent < 1),
                infinite=context.infinite | (exponent >= GREATEST),
                nan=context.nan,
            )
        )
