"""Between FP32, BF16 and integers."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.pim.arithmetic.formats import BIAS, FP32, GREATEST, is_infinite, is_nan, is_zero, packed
from rtl.pim.arithmetic.shifters import normalised


def fp32_to_bf16(number: data.View) -> Value:
    """The pattern of the BF16 next to an FP32, ties to even."""
    pattern = number.as_value()
    upper = pattern[16:31]
    # A carry out of the fraction raises the exponent, up to infinity.
    rounded = (upper + (pattern[15] & (pattern[:15].any() | pattern[16])))[:15]
    return packed(
        sign=number.sign,
        exponent=rounded[7:],
        fraction=rounded[:7],
        zero=is_zero(number),
        infinite=is_infinite(number),
        nan=is_nan(number),
    )


def bf16_to_fp32(pattern: Value) -> Value:
    """The pattern of the FP32 that is equal to a BF16's (subnormal numbers and payloads of NaN stay)."""
    return Cat(Const(0, 16), pattern)


class Int32ToFp32(wiring.Component):
    """The FP32 next to an INT32, ties to even, ``LATENCY`` clocks later; a new one every clock."""

    LATENCY = 2

    def __init__(self) -> None:
        super().__init__({"integer": In(signed(32)), "result": Out(FP32)})

    def elaborate(self, platform: object) -> Module:
        """The two stages: magnitude, leading bit to the top; round."""
        m = Module()
        magnitude = Signal(32)
        m.d.comb += magnitude.eq(Mux(self.integer < 0, -self.integer, self.integer))
        shifted, places = normalised(m, "magnitude", magnitude)
        negative, zero = Signal(reset_less=True), Signal(reset_less=True)
        top, exponent = Signal(32, reset_less=True), Signal(8, reset_less=True)
        m.d.sync += [
            negative.eq(self.integer < 0),
            zero.eq(self.integer == 0),
            top.eq(shifted),
            exponent.eq(BIAS + 31 - places),
        ]

        rounded = Signal(25)
        m.d.comb += rounded.eq(top[8:] + (top[7] & (top[:7].any() | top[8])))
        m.d.sync += self.result.eq(
            packed(
                sign=negative,
                exponent=exponent + rounded[24],
                fraction=rounded[:23],
                zero=zero,
                infinite=Const(0, 1),
                nan=Const(0, 1),
            )
        )
        return m


def scaled(number: data.View, power: Value) -> Value:
    """The pattern of an FP32 times 2 to the ``power``, a signed integer of at most 9 bits."""
    exponent = number.exponent + power
    return packed(
        sign=number.sign,
        exponent=exponent,
        fraction=number.fraction,
        zero=is_zero(number) | (exponent < 1),
        infinite=is_infinite(number) | (~is_zero(number) & (exponent >= GREATEST)),
        nan=is_nan(number),
    )
