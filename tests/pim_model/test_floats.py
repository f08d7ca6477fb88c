"""FP32 and BF16 of the PIM expert unit against exact rational arithmetic."""

import math
from collections.abc import Callable
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pim_model.numerics import floats

SIGN = 0x80000000
INFINITY = 0x7F800000
NAN = 0x7FC00000
LEAST_NORMAL = Fraction(1, 2**126)

CORNERS = [
    sign | magnitude
    for sign in (0, SIGN)
    for magnitude in (
        *(0, 1, 0x007FFFFF, 0x00800000, 0x00800001, 0x00FFFFFF, 0x01000000, 0x01000001, 0x017FFFFF),
        *(0x3F000000, 0x3F7FFFFF, 0x3F800000, 0x3F800001, 0x3FFFFFFF, 0x40000000, 0x4B7FFFFF, 0x4B800001),
        *(0x1F800000, 0x1FFFFFFF, 0x20000000, 0x7EFFFFFF, 0x7F000000, 0x7F7FFFFF, 0x7F7FFFFE),
        *(INFINITY, 0x7F800001, NAN, 0x7FFFFFFF),
    )
]
PATTERNS = st.one_of(st.sampled_from(CORNERS), st.integers(0, 2**32 - 1))


def parts(bits: int) -> tuple[int, Fraction | float]:
    """Sign and exact value of FP32 ``bits``, subnormals as zero; infinities and NaN as floats."""
    sign = bits >> 31
    field, fraction = bits >> 23 & 0xFF, bits & 0x7FFFFF
    if field == 0xFF:
        return sign, math.nan if fraction else -math.inf if sign else math.inf
    if field == 0:
        return sign, Fraction(0)
    return sign, (-1) ** sign * Fraction(0x800000 | fraction) * Fraction(2) ** (field - 150)


def rounded(value: Fraction, zero_sign: int) -> int:
    """The bits of the rule of ``floats``: 24 bits, to nearest, ties to even, no lower bound of the exponent, flush."""
    if value == 0:
        return zero_sign << 31
    sign, magnitude = int(value < 0), abs(value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    while Fraction(2) ** exponent > magnitude:
        exponent -= 1
    while Fraction(2) ** (exponent + 1) <= magnitude:
        exponent += 1
    significand = round(magnitude / Fraction(2) ** (exponent - 23))  # Python rounds ties of fractions to even
    if significand == 2**24:
        significand, exponent = 2**23, exponent + 1
    if exponent < -126:
        return sign << 31
    if exponent > 127:
        return sign << 31 | INFINITY
    return sign << 31 | (exponent + 127) << 23 | significand - 2**23


def exact_sum(left: int, right: int) -> int:
    (left_sign, a), (right_sign, b) = parts(left), parts(right)
    if isinstance(a, float) or isinstance(b, float):
        total = (a if isinstance(a, float) else 0.0) + (b if isinstance(b, float) else 0.0)
        return NAN if math.isnan(total) else INFINITY | (SIGN if total < 0 else 0)
    return rounded(a + b, left_sign & right_sign if a == b == 0 else 0)


def exact_product(left: int, right: int) -> int:
    (left_sign, a), (right_sign, b) = parts(left), parts(right)
    sign = left_sign ^ right_sign
    if isinstance(a, float) or isinstance(b, float):
        return NAN if a != a or b != b or 0 in (a, b) else sign << 31 | INFINITY
    return rounded(a * b, sign)


def exact_scaled(bits: int, exponent: int) -> int:
    sign, a = parts(bits)
    if isinstance(a, float):
        return NAN if math.isnan(a) else sign << 31 | INFINITY
    return rounded(a * Fraction(2) ** exponent, sign)


def result(function: Callable, *operands: int) -> int:
    values = [np.array(bits, np.uint32).view(np.float32) for bits in operands]
    return int(floats.float_bits(function(*values)))


@settings(deadline=None)
@given(PATTERNS, PATTERNS)
@example(0x00800001, SIGN | 0x00800000)  # 2⁻¹⁴⁹
@example(0x00FFFFFF, SIGN | 0x00800000)  # just below 2⁻¹²⁶
@example(SIGN, SIGN)
@example(0x7F7FFFFF, 0x73000000)  # half a step above the greatest
def test_the_sum_is_the_exact_one_rounded(left: int, right: int) -> None:
    assert result(floats.add, left, right) == exact_sum(left, right)


@settings(deadline=None)
@given(PATTERNS, PATTERNS)
@example(0x3F7FFFFF, 0x00800000)  # 2⁻¹²⁶ · (1 − 2⁻²⁴): representable without a lower bound, so flushed
@example(0x3F7FFFFE, 0x00800001)  # 2⁻¹²⁶ · (1 − 2⁻⁴⁶) rounds up to 2⁻¹²⁶
def test_the_product_is_the_exact_one_rounded(left: int, right: int) -> None:
    assert result(floats.multiply, left, right) == exact_product(left, right)


@settings(deadline=None)
@given(PATTERNS, st.integers(-300, 300))
@example(0x00FFFFFF, -1)  # 2⁻¹²⁶ · (1 − 2⁻²⁴) again, where IEEE's gradual underflow gives 2⁻¹²⁶
def test_a_power_of_two_is_the_exact_one_rounded(bits: int, exponent: int) -> None:
    value = np.array(bits, np.uint32).view(np.float32)
    assert int(floats.float_bits(floats.scale(value, exponent))) == exact_scaled(bits, exponent)


@settings(deadline=None)
@given(st.integers(0x00800000, 0x00FFFFFF), st.integers(0x3F000000, 0x3F800000))
def test_products_around_the_least_normal(left: int, right: int) -> None:
    assert result(floats.multiply, left, right) == exact_product(left, right)


def test_the_corners_with_one_another() -> None:
    grid = np.array(CORNERS, np.uint32)
    left, right = (side.view(np.float32) for side in np.meshgrid(grid, grid, indexing="ij"))
    sums, products = floats.float_bits(floats.add(left, right)), floats.float_bits(floats.multiply(left, right))
    for i, a in enumerate(CORNERS):
        for j, b in enumerate(CORNERS):
            assert sums[i, j] == exact_sum(a, b), (hex(a), hex(b))
            assert products[i, j] == exact_product(a, b), (hex(a), hex(b))


def same(kernels: np.float32, expected: NDArray[np.float32]) -> bool:
    """Equal in all bits, before ``float_bits`` could flush; any NaN is one."""
    raw = np.float32(kernels).view(np.uint32)
    return bool(raw == expected.view(np.uint32)) or bool(np.isnan(kernels) and np.isnan(expected))


def test_kernels_round_as_the_arrays_do() -> None:
    values = floats.from_float_bits(np.array(CORNERS, np.uint32))
    subnormal_sums = 0
    for left in values:
        for right in values:
            with np.errstate(all="ignore"):
                total, product = left + right, np.float64(left) * np.float64(right)
            subnormal_sums += 0 < abs(total) < floats.LEAST_NORMAL
            assert same(floats.flushed(total), floats.add(left, right))
            assert same(floats.rounded(product), floats.multiply(left, right))
    assert subnormal_sums


def test_kernels_flush_products_of_two_bf16_as_the_arrays_do() -> None:
    bits = np.random.default_rng(1).integers(0, 2**16, (2, 200_000)).astype(np.uint16)
    bits[:, :100_000] = (bits[:, :100_000] & 0x80FF) + 0x1F80  # exponents −64 and −63: products around 2⁻¹²⁶
    left, right = floats.float_from_bf16(bits)
    with np.errstate(all="ignore"):
        products = left * right
    below = np.abs(products) < np.float32(floats.LEAST_NORMAL)
    assert 10_000 < below[:100_000].sum() < 90_000
    flushed = np.where(below, np.copysign(np.float32(0), products), products)
    np.testing.assert_array_equal(floats.float_bits(flushed), floats.float_bits(floats.multiply(left, right)))


def test_bf16_is_ml_dtypes_but_for_subnormals_and_nan() -> None:
    every = np.arange(2**16, dtype=np.uint16)
    values = floats.float_from_bf16(every)
    theirs = every.view(ml_dtypes.bfloat16).astype(np.float32)
    subnormal = (every & 0x7F80) == 0
    np.testing.assert_array_equal(values[~subnormal], theirs[~subnormal])
    np.testing.assert_array_equal(
        floats.float_bits(values)[subnormal], (every[subnormal] & 0x8000).astype(np.uint32) << 16
    )
    nan = np.isnan(theirs)
    assert nan.sum() == 2 * 127
    assert set(floats.float_bits(values)[nan].tolist()) == {NAN}
    again = floats.bf16_from_float(values)
    np.testing.assert_array_equal(again[~nan & ~subnormal], every[~nan & ~subnormal])
    assert set(again[nan].tolist()) == {0x7FC0}
    np.testing.assert_array_equal(floats.is_finite_bf16(every), np.isfinite(theirs))


def float32_samples() -> NDArray[np.float32]:
    """All corners of the lower half beside every upper half's corner, and random bits."""
    upper = np.random.default_rng(2).integers(0, 2**16, 4000, np.uint32)
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    return np.concatenate([(upper[:, None] << 16 | lower).ravel(), np.array(CORNERS, np.uint32)]).view(np.float32)


def test_rounding_to_bf16_is_ml_dtypes_but_for_subnormals_and_nan() -> None:
    values = float32_samples()
    ours = floats.bf16_from_float(values)
    with np.errstate(invalid="ignore"):
        theirs = values.astype(ml_dtypes.bfloat16).view(np.uint16)
    normal = np.abs(values) >= np.float32(floats.LEAST_NORMAL)
    np.testing.assert_array_equal(ours[normal], theirs[normal])
    nan = np.isnan(values)
    assert nan.any()
    assert set(ours[nan].tolist()) == {0x7FC0}
    zeros = ~normal & ~nan
    np.testing.assert_array_equal(ours[zeros], (values.view(np.uint32)[zeros] >> 16 & 0x8000).astype(np.uint16))


def test_integers_are_rounded_to_even() -> None:
    values = [2**24 + 1, 2**24 + 3, -(2**24) - 1, 2**31 - 1, -(2**31), 0]
    assert floats.float_from_int(values).tolist() == [2.0**24, 2.0**24 + 4, -(2.0**24), 2.0**31, -(2.0**31), 0]


def test_scale_refuses_exponents_that_it_cannot_hold() -> None:
    with pytest.raises(ValueError, match="512"):
        floats.scale(np.float32(1), 513)
    with pytest.raises(ValueError, match="integer"):
        floats.scale(np.float32(1), 0.5)
