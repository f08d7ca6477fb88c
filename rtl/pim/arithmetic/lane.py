"""A lane: one multiplier for BF16, E2M1 and INT8."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.pim.arithmetic.formats import BIAS, GREATEST, is_infinite, is_nan, is_zero, significand

INT8_PRODUCT_BITS = 16
"""Of the product of two INT8: (−128)² has its top bit clear."""

LANE_OPERANDS = data.StructLayout(
    {"a": signed(9), "b": signed(9), "exponent": signed(10), "sign": 1, "zero": 1, "infinite": 1, "nan": 1}
)
"""Two factors, taken apart.

Members:
    a, b: The factors' significands; of INT8, the factors, and all that follows means nothing.
    exponent: Exponent field of the product of two numbers in [1, 2); out of a field's range in both directions.
    sign: Of the product.
    zero, infinite, nan: What it is, if it is special.
"""

LANE_PRODUCT = data.StructLayout(
    {
        "bits": INT8_PRODUCT_BITS,
        "exponents": data.ArrayLayout(8, 2),
        "finite": data.ArrayLayout(1, 2),
        "sign": 1,
        "nan": 1,
    }
)
"""A product that is not yet normalised.

Members:
    bits: Product of the significands, in [1, 4) with 14 bits behind the point; or of two INT8.
    exponents: FP32's exponent field if the former is less than 2, and if it is not.
    finite: Likewise, whether the product is neither zero nor infinite nor NaN, so that its fraction counts.
    sign, nan: Of the product.
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
        "exponent": a.exponent + b.exponent - BIAS,
        "sign": a.sign ^ b.sign,
        "zero": is_zero(a) | is_zero(b),
        "infinite": is_infinite(a) | is_infinite(b),
        "nan": is_nan(a) | is_nan(b) | (is_infinite(a) & is_zero(b)) | (is_zero(a) & is_infinite(b)),
    }


class LaneMultiplier(wiring.Component):
    """The product of ``operands``, ``LATENCY`` clocks later; a new one every clock.

    `product_as_fp32` or `product_as_integer` says what it is.
    """

    LATENCY = 1

    def __init__(self) -> None:
        super().__init__({"operands": In(LANE_OPERANDS), "product": Out(LANE_PRODUCT)})

    def elaborate(self, platform: object) -> Module:
        """The multiplier; beside it both exponents that the product may have."""
        m = Module()
        operands, product = self.operands, self.product
        m.d.sync += [
            product.bits.eq(operands.a * operands.b),
            product.sign.eq(operands.sign & ~operands.nan),
            product.nan.eq(operands.nan),
        ]
        for doubled in (0, 1):
            exponent = Signal(signed(11), name=f"exponent{doubled}")
            infinite, zero = Signal(name=f"infinite{doubled}"), Signal(name=f"zero{doubled}")
            m.d.comb += [
                exponent.eq(operands.exponent + doubled),
                infinite.eq(operands.nan | operands.infinite | (exponent >= GREATEST)),
                zero.eq(operands.zero | (exponent < 1)),
            ]
            m.d.sync += [
                product.exponents[doubled].eq(Mux(infinite, GREATEST, Mux(zero, 0, exponent[:8]))),
                product.finite[doubled].eq(~infinite & ~zero),
            ]
        return m


def product_as_fp32(product: data.View) -> Value:
    """The FP32 pattern of a product of two BF16: exact, unless it overflows or is below the least normal number."""
    doubled = product.bits[15]
    fraction = Mux(doubled, product.bits[:15], Cat(Const(0, 1), product.bits[:14]))
    special = Cat(Const(0, 14), product.nan)
    return Cat(
        Const(0, 8),
        Mux(product.finite[doubled], fraction, special),
        product.exponents[doubled],
        product.sign,
    )


def product_as_integer(product: data.View) -> Value:
    """The product of two INT8."""
    return product.bits.as_signed()
