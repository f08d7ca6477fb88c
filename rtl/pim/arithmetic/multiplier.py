"""FP32 multiplication."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.pim.arithmetic.formats import BIAS, FP32, GREATEST, is_infinite, is_nan, is_zero, packed, significand

_CONTEXT = data.StructLayout(
    {
        "exponent": signed(10),
        "sign": 1,
        "zero": 1,
        "infinite": 1,
        "nan": 1,
    }
)
"""Sign, exponent and kind of a product whose significand is not yet rounded, as in `lane.LANE_OPERANDS`."""


class Fp32Multiplier(wiring.Component):
    """``a`` · ``b``, rounded, ``LATENCY`` clocks later; a new pair every clock.

    The two stages: the exact product of the significands; normalise and round.
    """

    LATENCY = 2

    def __init__(self) -> None:
        super().__init__({"a": In(FP32), "b": In(FP32), "result": Out(FP32)})

    def elaborate(self, platform: object) -> Module:
        """The two stages, a register after each."""
        m = Module()
        a, b = self.a, self.b
        product = Signal(48, reset_less=True)
        context = Signal(_CONTEXT, reset_less=True)
        m.d.sync += [
            product.eq(significand(a) * significand(b)),
            context.exponent.eq(a.exponent + b.exponent - BIAS),
            context.sign.eq(a.sign ^ b.sign),
            context.zero.eq(is_zero(a) | is_zero(b)),
            context.infinite.eq(is_infinite(a) | is_infinite(b)),
            context.nan.eq(is_nan(a) | is_nan(b) | (is_infinite(a) & is_zero(b)) | (is_zero(a) & is_infinite(b))),
        ]

        doubled = product[47]
        kept, guard, sticky = Signal(24), Signal(), Signal()
        rounded = Signal(25)
        exponent = Signal(signed(11))
        m.d.comb += [
            kept.eq(Mux(doubled, product[24:], product[23:])),
            guard.eq(Mux(doubled, product[23], product[22])),
            sticky.eq(product[:22].any() | (doubled & product[22])),
            rounded.eq(kept + (guard & (sticky | kept[0]))),
            exponent.eq(context.exponent + doubled + rounded[24]),
        ]
        m.d.sync += self.result.eq(
            packed(
                sign=context.sign,
                exponent=exponent,
                fraction=rounded[:23],
                zero=context.zero | (exponent < 1),
                infinite=context.infinite | (exponent >= GREATEST),
                nan=context.nan,
            )
        )
        return m
