"""A lane: one multiplier for BF16, E2M1 and INT8."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.pim.arithmetic.formats import BIAS, GREATEST, is_infinite, is_nan, is_zero, packed, significand

INT8_PRODUCT_BITS = 16
"""Of the product of two INT8: (−128)² has its top bit clear."""

FP32_LOW_BITS = 8
"""Low bits of an FP32 that are zero in a product of two BF16: 16 significant bits of 24."""


LANE_OPERANDS = data.StructLayout(
    {
        "a": signed(9),
        "b": signed(9),
        "integer": 1,
        "exponent": signed(10),
        "sign": 1,
        "zero": 1,
        "infinite": 1,
        "nan": 1,
    }
)
"""Two factors, taken apart.

Members:
    a, b: The factors' significands; of INT8, the factors.
    integer: They are INT8; all that follows means nothing.
    exponent: Exponent field of the product of two numbers in [1, 2); out of a field's range in both directions.
    sign: Of the product.
    zero, infinite, nan: What it is, if it is special.
"""


def e2m1_as_bf16(code: Value) -> Value:
    """The pattern of a BF16 that is equal to an E2M1: 0, 0.5, 1, 1.5, 2, 3, 4 or 6, and its sign."""
    mantissa, exponent, sign = code[0], code[1:3], code[3]
    subnormal = exponent == 0  # 0 and 0.5
    field = Mux(code[:3] == 0, 0, BIAS - 1 + exponent)
    return Cat(Const(0, 6), mantissa & ~subnormal, field[:8], sign)


def bf16_operands(a: data.View, b: data.View) -> dict[str, Value]:
    """Fields of `LANE_OPERANDS` for two BF16."""
    return {
        "a": significand(a),
        "b": significand(b),
        "integer": Const(0, 1),
        "exponent": a.exponent + b.exponent - BIAS,
        "sign": a.sign ^ b.sign,
        "zero": is_zero(a) | is_zero(b),
        "infinite": is_infinite(a) | is_infinite(b),
        "nan": is_nan(a) | is_nan(b) | (is_infinite(a) & is_zero(b)) | (is_zero(a) & is_infinite(b)),
    }


class LaneMultiplier(wiring.Component):
    """The product of ``operands``, ``LATENCY`` clocks later; a new one every clock.

    Members:
        operands: The factors.
        product: Upper 24 bits of the product of two BF16 as FP32, in which it is exact unless it overflows or is below
            the least normal number; of two INT8, their product in the low 16 bits.
    """

    LATENCY = 1

    def __init__(self) -> None:
        super().__init__({"operands": In(LANE_OPERANDS), "product": Out(32 - FP32_LOW_BITS)})

    def elaborate(self, platform: object) -> Module:
        """The multiplier and a normalisation by one bit."""
        m = Module()
        operands = self.operands
        product = Signal(signed(18))
        exponent = Signal(signed(11))
        doubled = product[15]  # the significands' product is 2 or more
        m.d.comb += [
            product.eq(operands.a * operands.b),
            exponent.eq(Mux(doubled, operands.exponent + 1, operands.exponent)),
        ]
        number = packed(
            sign=operands.sign,
            exponent=exponent,
            fraction=Mux(doubled, product[:15], Cat(Const(0, 1), product[:14])),
            zero=operands.zero | (exponent < 1),
            infinite=operands.infinite | (exponent >= GREATEST),
            nan=operands.nan,
        )
        m.d.sync += self.product.eq(Mux(operands.integer, product[:INT8_PRODUCT_BITS], number))
        return m


def product_as_fp32(product: Value) -> Value:
    """The FP32 pattern of a `LaneMultiplier`'s product of two BF16."""
    return Cat(Const(0, FP32_LOW_BITS), product)


def product_as_integer(product: Value) -> Value:
    """A `LaneMultiplier`'s product of two INT8."""
    return product[:INT8_PRODUCT_BITS].as_signed()
