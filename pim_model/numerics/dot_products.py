"""Matrix times vectors as the blocks compute it: products, tree, accumulators, in the order of the hardware.

Inputs are filled up with zeros to whole chunks of 16 (MXFP4: to whole groups of 32). For each row and token, chunk by
chunk: 16 products, then their sum by a tree of neighbours, ((p₀ + p₁) + (p₂ + p₃)) + …, then the accumulator, which
starts at +0, plus that sum. BF16 and MXFP4: each step is rounded to FP32 by the rules of `floats`; in MXFP4 a product
is E2M1 times BF16, and the tree's sum is multiplied by the shared power of two (NaN if the scale is) before it is
added. INT8: all in INT32, which no sum of up to 131,071 products overflows.
"""

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from catalog.errors import ForestageError
from pim_model.numerics.floats import (
    Bits16,
    Floats,
    float_from_bf16,
    float_from_int,
    flushed,
    from_float_bits,
    multiply,
    rounded,
    scale,
)
from pim_model.numerics.formats import E2M1, Bf16Matrix, Int8Inputs, Int8Matrix, Mxfp4Matrix, WeightMatrix, e8m0_values
from pim_model.unit.parameters import LANES

MOST_INT8_INPUTS = (2**31 - 1) // (128 * 128)
"""Inputs up to which no INT32 sum of products of INT8 overflows."""

_E8M0 = e8m0_values(np.arange(256))


def dot_products(matrix: WeightMatrix, x: Bits16) -> tuple[Floats, bool]:
    """The rows of ``matrix`` times BF16 vectors ``x`` ``[tokens, inputs]``.

    Returns:
        float32 ``[tokens, rows]``: the accumulators; of INT8 the scaled ones, ((FP32 of the sum · row scale) · 2 ** e).
        Then, of INT8, whether an input was not finite; else ``False``, as such an input shows in the result.

    Raises:
        ForestageError: shapes do not fit.
    """
    rows, inputs = matrix.shape
    if x.ndim != 2 or x.shape[1] != inputs or len(x) == 0:
        raise ForestageError(f"PIM numerics: x has shape {list(x.shape)}; give [tokens, {inputs}] for {rows}×{inputs}")
    if isinstance(matrix, Bf16Matrix):
        return bf16_sums(matrix, x), False
    if isinstance(matrix, Mxfp4Matrix):
        return mxfp4_sums(matrix, x), False
    if isinstance(matrix, Int8Matrix):
        given = Int8Inputs.of(x)
        sums = float_from_int(int8_sums(matrix, given.codes))
        return scale(multiply(sums, matrix.scales), given.exponents[:, None]), given.nonfinite
    raise TypeError(f"no format has {type(matrix).__name__}")


def bf16_sums(matrix: Bf16Matrix, x: Bits16) -> Floats:
    """The accumulators of BF16 weights, float32 ``[tokens, rows]``."""
    sums = _bf16_kernel(float_from_bf16(_filled(matrix.weights, LANES)), float_from_bf16(_filled(x, LANES)))
    return from_float_bits(sums.view(np.uint32))


def mxfp4_sums(matrix: Mxfp4Matrix, x: Bits16) -> Floats:
    """The accumulators of MXFP4 weights, float32 ``[tokens, rows]``."""
    codes, given = _filled(matrix.codes, 2 * LANES), float_from_bf16(_filled(x, 2 * LANES))
    sums = _mxfp4_kernel(codes, matrix.scales, given, E2M1, _E8M0)
    return from_float_bits(sums.view(np.uint32))


def int8_sums(matrix: Int8Matrix, codes: NDArray[np.int8]) -> NDArray[np.int32]:
    """The accumulators of INT8 weights and inputs ``[tokens, inputs]``, int32 ``[tokens, rows]``.

    Raises:
        ForestageError: more inputs than INT32 holds the sum of.
    """
    if codes.shape[1] > MOST_INT8_INPUTS:
        raise ForestageError(
            f"PIM numerics: {codes.shape[1]} INT8 inputs; INT32 holds sums of {MOST_INT8_INPUTS}: split the matrix"
        )
    return _int8_kernel(np.ascontiguousarray(matrix.codes), np.ascontiguousarray(codes))


def _filled(array: NDArray, unit: int) -> NDArray:
    """Filled up with zeros to a multiple of ``unit`` inputs."""
    return np.pad(array, ((0, 0), (0, -array.shape[1] % unit)))


@njit()
def _tree(values: NDArray[np.float32]) -> np.float32:
    """The sum of 16 values by neighbours; ``values`` is overwritten."""
    for count in (8, 4, 2, 1):
        for i in range(count):
            values[i] = flushed(values[2 * i] + values[2 * i + 1])
    return values[0]


@njit()
def _bf16_kernel(weights: Floats, x: Floats) -> Floats:
    rows, inputs = weights.shape
    tokens = len(x)
    sums = np.zeros((tokens, rows), np.float32)
    products = np.empty(LANES, np.float32)
    for row in range(rows):
        for start in range(0, inputs, LANES):
            for token in range(tokens):
                for lane in range(LANES):
                    products[lane] = flushed(weights[row, start + lane] * x[token, start + lane])
                sums[token, row] = flushed(sums[token, row] + _tree(products))
    return sums


@njit()
def _mxfp4_kernel(
    codes: NDArray[np.uint8],
    scales: NDArray[np.uint8],
    x: Floats,
    e2m1: Floats,
    e8m0: NDArray[np.float64],
) -> Floats:
    rows, inputs = codes.shape
    tokens = len(x)
    sums = np.zeros((tokens, rows), np.float32)
    products = np.empty(LANES, np.float32)
    for row in range(rows):
        for start in range(0, inputs, LANES):
            power = e8m0[scales[row, start // (2 * LANES)]]
            for token in range(tokens):
                for lane in range(LANES):
                    products[lane] = flushed(e2m1[codes[row, start + lane]] * x[token, start + lane])
                sums[token, row] = flushed(sums[token, row] + rounded(_tree(products) * power))
    return sums


@njit()
def _int8_kernel(codes: NDArray[np.int8], x: NDArray[np.int8]) -> NDArray[np.int32]:
    rows, inputs = codes.shape
    sums = np.zeros((len(x), rows), np.int32)
    for token in range(len(x)):
        for row in range(rows):
            total = np.int32(0)
            for i in range(inputs):
                total += np.int32(codes[row, i]) * np.int32(x[token, i])
            sums[token, row] = total
    return sums
