"""Sums in the hardware's order: against the same steps one by one, and against exact ones."""

import numpy as np
import pytest
from numpy.typing import NDArray

from catalog.errors import ForestageError
from pim_model.numerics import floats
from pim_model.numerics.dot_products import MOST_INT8_INPUTS, dot_products, int8_sums
from pim_model.numerics.formats import E2M1, MATRICES, Bf16Matrix, Int8Inputs, Int8Matrix, Mxfp4Matrix
from pim_model.unit.program import WeightFormat

INFINITY, NAN = 0x7F800000, floats.NAN


def random_bf16(generator: np.random.Generator, *shape: int, spread: int = 8) -> NDArray[np.uint16]:
    """Finite BF16s of both signs whose exponents are within ±``spread``."""
    bits = generator.integers(0, 2**16, shape) & 0x807F
    return (bits | (generator.integers(127 - spread, 128 + spread, shape) << 7)).astype(np.uint16)


def stepwise(products: NDArray[np.float32], powers: NDArray[np.integer] | None = None) -> int:
    """The accumulator's bits for one row and token: ``products`` ``[chunks, 16]``, by the functions of `floats`."""
    total = np.float32(0)
    for chunk, level in enumerate(products):
        while len(level) > 1:
            level = floats.add(level[0::2], level[1::2])
        part = level[0] if powers is None else floats.scale(level[0], powers[chunk])
        total = floats.add(total, part)
    return int(floats.float_bits(total))


@pytest.mark.parametrize("spread", [3, 66])
def test_bf16_sums_are_the_stated_steps(spread: int) -> None:
    generator = np.random.default_rng(spread)
    weights, x = random_bf16(generator, 5, 48, spread=spread), random_bf16(generator, 3, 48, spread=spread)
    sums = floats.float_bits(dot_products(Bf16Matrix(weights), x)[0])
    for row in range(5):
        for token in range(3):
            products = floats.multiply(floats.float_from_bf16(weights[row]), floats.float_from_bf16(x[token]))
            assert sums[token, row] == stepwise(products.reshape(-1, 16))


def test_the_order_matters_and_is_that_of_neighbours() -> None:
    # 1 + 2⁻²⁴ + 2⁻²⁴ depends on what is added first: neighbours give 1 + 2⁻²³.
    x = floats.bf16_from_float(np.ones((1, 4), np.float32))
    small = 2.0**-24
    in_pairs = Bf16Matrix.of([[1, 0, small, small], [1, small, small, 0]])
    assert dot_products(in_pairs, x)[0].tolist() == [[1 + 2.0**-23, 1]]
    # Chunk by chunk onto the accumulator: each 2⁻²⁴ is lost beside 1.
    across = np.zeros((1, 48), np.float32)
    across[0, [0, 16, 32]] = 1, small, small
    assert dot_products(Bf16Matrix.of(across), np.full((1, 48), 0x3F80, np.uint16))[0].tolist() == [[1]]


@pytest.mark.parametrize(("inputs", "spread"), [(96, 3), (32, 127)])
def test_mxfp4_sums_are_the_stated_steps(inputs: int, spread: int) -> None:
    generator = np.random.default_rng(spread)
    codes = generator.integers(0, 16, (40, inputs)).astype(np.uint8)
    scales = generator.integers(127 - spread, 128 + spread, (40, inputs // 32)).astype(np.uint8)
    x = random_bf16(generator, 2, inputs)
    x[1] += np.uint16(40 << 7) if spread == 127 else 0
    x[0] -= np.uint16(40 << 7) if spread == 127 else 0
    sums = floats.float_bits(dot_products(Mxfp4Matrix(codes, scales), x)[0])
    if spread == 127:
        fields = sums >> 23 & 0xFF
        assert (fields == 0).any()
        assert (fields == 255).any()
        assert ((fields > 0) & (fields < 255)).any()
    for row in range(40):
        for token in range(2):
            products = floats.multiply(E2M1[codes[row]], floats.float_from_bf16(x[token])).reshape(-1, 16)
            assert sums[token, row] == stepwise(products, np.repeat(scales[row].astype(np.int64), 2) - 127)


def test_int8_sums_are_exact_and_scaled_in_two_steps() -> None:
    generator = np.random.default_rng(4)
    codes = generator.integers(-128, 128, (7, 83)).astype(np.int8)
    scales = generator.normal(size=7).astype(np.float32)
    x = random_bf16(generator, 2, 83)
    given = Int8Inputs.of(x)
    exact = given.codes.astype(np.int64) @ codes.T.astype(np.int64)
    np.testing.assert_array_equal(int8_sums(Int8Matrix(codes, scales), given.codes), exact)
    sums, nonfinite = dot_products(Int8Matrix(codes, scales), x)
    # 24 bits hold these integers, and powers of two round nothing.
    expected = (exact.astype(np.float32) * scales) * np.ldexp(1.0, given.exponents)[:, None].astype(np.float32)
    np.testing.assert_array_equal(sums, expected)
    assert not nonfinite


def test_the_largest_int8_sum_fits() -> None:
    matrix = Int8Matrix(np.full((1, MOST_INT8_INPUTS), -128, np.int8), np.ones(1, np.float32))
    assert int8_sums(matrix, matrix.codes).tolist() == [[MOST_INT8_INPUTS * 128**2]]
    longer = Int8Matrix(np.full((1, MOST_INT8_INPUTS + 1), -128, np.int8), np.ones(1, np.float32))
    with pytest.raises(ForestageError, match="split the matrix"):
        int8_sums(longer, longer.codes)


def one(matrix: Bf16Matrix | Mxfp4Matrix | Int8Matrix, x: list[int]) -> int:
    sums = floats.float_bits(dot_products(matrix, np.array([x], np.uint16))[0])
    assert sums.shape == (1, 1)
    return int(sums[0, 0])


ONE, MINUS_ONE, MOST, BF16_INFINITY, LEAST = 0x3F80, 0xBF80, 0x7F7F, 0x7F80, 0x0080


def test_bf16_at_the_ends_of_the_range() -> None:
    def sum_of(weights: list[int], x: list[int]) -> int:
        return one(Bf16Matrix(np.array([weights], np.uint16)), x)

    assert sum_of([MOST], [MOST]) == INFINITY
    assert sum_of([MOST, MOST], [ONE, ONE]) == INFINITY
    assert sum_of([MOST, MOST | 0x8000], [MOST, MOST]) == NAN  # ∞ − ∞
    assert sum_of([BF16_INFINITY], [0]) == NAN
    assert sum_of([0x7F81], [ONE]) == NAN
    assert sum_of([0xFF80], [ONE]) == INFINITY | 0x80000000
    assert sum_of([LEAST], [0x3F00]) == 0  # 2⁻¹²⁷
    assert sum_of([0x007F, 0x807F], [MOST, MOST]) == 0  # subnormal weights are zero
    assert sum_of([ONE], [0x007F]) == 0
    # The accumulator starts at +0, so that −0 products give +0; only a flushed sum is −0.
    assert sum_of([0x8000] * 16, [ONE] * 16) == 0
    assert sum_of([MINUS_ONE], [0]) == 0
    # Each step flushes: products of 2⁻¹²⁷, their sums, and the accumulator.
    assert sum_of([LEAST, LEAST], [0x3F00, 0x3F00]) == 0
    assert sum_of([0x00C0, 0x8080, 0x00C0, 0x8080], [ONE] * 4) == 0
    x = [0] * 33
    x[0], x[16], x[32] = 0x00C0, 0x8080, LEAST
    assert sum_of([ONE] * 33, x) == 0x00800000
    x = [0] * 17
    x[0], x[16] = LEAST, 0x80C0  # 2⁻¹²⁶ − 1.5 · 2⁻¹²⁶
    assert sum_of([ONE] * 17, x) == 0x80000000


def test_mxfp4_at_the_ends_of_the_range() -> None:
    def sum_of(code: int, scale: int, x: int, inputs: int = 1) -> int:
        codes, scales = np.full((1, inputs), code, np.uint8), np.full((1, -(-inputs // 32)), scale, np.uint8)
        return one(Mxfp4Matrix(codes, scales), [x] * inputs)

    assert sum_of(2, 127, ONE) == 0x3F800000
    assert sum_of(2, 255, 0) == NAN
    assert sum_of(2, 254, ONE) == 0x7F000000
    assert sum_of(7, 254, ONE) == INFINITY
    assert sum_of(2, 1, ONE) == 0x00800000
    assert sum_of(2, 0, ONE) == 0
    assert sum_of(10, 0, ONE) == 0  # −0 onto +0
    assert sum_of(0, 127, BF16_INFINITY) == NAN
    assert sum_of(2, 127, BF16_INFINITY) == INFINITY
    # The products overflow before the scale can make them small.
    assert sum_of(7, 1, MOST) == INFINITY
    assert sum_of(1, 137, LEAST, inputs=2) == 0  # products of 2⁻¹²⁷
    # A sum of 24 ones scaled to 2⁻¹²⁶ · (1 − 2⁻²⁴): zero by the rule, where gradual underflow would round to 2⁻¹²⁶.
    parts = floats.bf16_from_float(np.ldexp([255.0, 255.0, 255.0], [-7, -15, -23]).astype(np.float32)).tolist()
    halves = Mxfp4Matrix(np.full((1, 3), 2, np.uint8), np.array([[0]], np.uint8))
    assert one(halves, parts) == 0
    parts[2] += 1  # 256 · 2⁻²³: the sum is 2
    assert one(halves, parts) == 0x00800000


def test_int8_at_the_ends_of_the_range() -> None:
    def sum_of(code: int, scale: float, x: list[int]) -> int:
        return one(Int8Matrix(np.full((1, len(x)), code, np.int8), np.array([scale], np.float32)), x)

    assert sum_of(1, 1, [ONE]) == 0x3F800000
    assert sum_of(127, 3e38, [ONE]) == INFINITY  # before 2 ** −6 could help
    assert sum_of(127, 1, [MOST]) == INFINITY
    assert sum_of(1, floats.LEAST_NORMAL, [LEAST]) == 0
    assert sum_of(1, 2.0**-130, [ONE]) == 0  # a subnormal scale is zero
    assert sum_of(-1, 1, [BF16_INFINITY]) == 0x00000000
    assert dot_products(Int8Matrix.of([[1]]), np.array([[BF16_INFINITY]], np.uint16))[1]


@pytest.mark.parametrize("weight_format", WeightFormat)
def test_filling_up_changes_nothing_but_the_length(weight_format: WeightFormat) -> None:
    generator = np.random.default_rng(6)
    weights = generator.normal(size=(3, 40)).astype(np.float32)
    x = random_bf16(generator, 2, 40)
    filled = np.pad(weights, ((0, 0), (0, 24)))
    short = dot_products(MATRICES[weight_format].of(weights), x)[0]
    long = dot_products(MATRICES[weight_format].of(filled), np.pad(x, ((0, 0), (0, 24))))[0]
    np.testing.assert_array_equal(short, long)


@pytest.mark.parametrize("weight_format", WeightFormat)
def test_inputs_of_another_length_are_refused(weight_format: WeightFormat) -> None:
    with pytest.raises(ForestageError, match=r"give \[tokens, 40\]"):
        dot_products(MATRICES[weight_format].of(np.ones((3, 40))), np.zeros((1, 41), np.uint16))
