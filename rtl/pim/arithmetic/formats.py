"""FP32 and BF16 as layouts, and what kind of number a pattern is."""

from amaranth.hdl import Cat, Const, Mux, Value
from amaranth.lib import data

BIAS = 127
"""Exponent field of 1.0, in FP32 and BF16 alike."""

GREATEST = 255
"""Exponent field of infinity and NaN."""


FP32 = data.StructLayout(
    {
        "fraction": 23,
        "exponent": 8,
        "sign": 1,
    }
)
"""An FP32 number."""


BF16 = data.StructLayout(
    {
        "fraction": 7,
        "exponent": 8,
        "sign": 1,
    }
)
"""A BF16 number: the upper half of an FP32."""


def is_zero(number: data.View) -> Value:
    """Whether ``number`` counts as zero: subnormal numbers do."""
    return number.exponent == 0


def is_infinite(number: data.View) -> Value:
    """Whether ``number`` is an infinity."""
    return (number.exponent == GREATEST) & (number.fraction == 0)


def is_nan(number: data.View) -> Value:
    """Whether ``number`` is a NaN."""
    return (number.exponent == GREATEST) & (number.fraction != 0)


def significand(number: data.View) -> Value:
    """1.fraction as an integer; of zero, 0."""
    normal = ~is_zero(number)
    return Cat(Mux(normal, number.fraction, 0), normal)


def packed(*, sign: Value, exponent: Value, fraction: Value, zero: Value, infinite: Value, nan: Value) -> Value:
    """The pattern of a result, the special kinds first: NaN, then infinity, then zero.

    Args:
        sign: Of all but a NaN.
        exponent: Field of a number that is none of the three; its low 8 bits count.
        fraction: As wide as the format's.
        zero: Whether it is zero.
        infinite: Whether it is infinity.
        nan: Whether it is NaN: positive, quiet, without payload.
    """
    width = len(fraction)
    quiet = Const(1 << (width - 1), width)
    finite = Cat(Mux(zero, 0, fraction)[:width], Mux(zero, 0, exponent[:8])[:8], sign)
    return Mux(
        nan,
        Cat(quiet, Const(GREATEST, 8), Const(0, 1)),
        Mux(infinite, Cat(Const(0, width), Const(GREATEST, 8), sign), finite),
    )[: width + 9]
