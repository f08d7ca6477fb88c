"""Weights and inputs in the unit's formats, against `ml_dtypes` and PyTorch's reference of MXFP4."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from catalog.errors import ForestageError
from pim_model.numerics import floats
from pim_model.numerics.formats import (
    E2M1,
    MATRICES,
    Bf16Matrix,
    Int8Inputs,
    Int8Matrix,
    Mxfp4Matrix,
    e2m1_from_float,
    e8m0_values,
)

EVERY_BF16 = np.arange(2**16, dtype=np.uint16)
FINITE_BF16 = floats.float_from_bf16(EVERY_BF16[floats.is_finite_bf16(EVERY_BF16)])
FLOATS = st.floats(-1e6, 1e6, width=32)


def matrix(rows: int = 5, inputs: int = 70, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(rows, inputs)).astype(np.float32)


def test_e2m1_and_e8m0_are_those_of_ml_dtypes() -> None:
    codes = np.arange(16, dtype=np.uint8)
    np.testing.assert_array_equal(
        E2M1.view(np.uint32), codes.view(ml_dtypes.float4_e2m1fn).astype(np.float32).view(np.uint32)
    )
    every = np.arange(256, dtype=np.uint8)
    theirs = every.view(ml_dtypes.float8_e8m0fnu).astype(np.float64)
    np.testing.assert_array_equal(e8m0_values(every), theirs)
    assert np.isnan(theirs).sum() == 1


def test_rounding_to_e2m1_is_that_of_ml_dtypes_for_every_bf16() -> None:
    theirs = FINITE_BF16.astype(ml_dtypes.float4_e2m1fn).view(np.uint8) & 0xF
    np.testing.assert_array_equal(e2m1_from_float(FINITE_BF16), theirs)
    between = np.nextafter(E2M1[:8, None] + np.array([0, 0.25, 0.5, 1], np.float32), np.float32(9)).ravel()
    both = np.concatenate([between, -between])
    np.testing.assert_array_equal(e2m1_from_float(both), both.astype(ml_dtypes.float4_e2m1fn).view(np.uint8) & 0xF)


def test_bf16_weights_are_those_of_ml_dtypes() -> None:
    weights = matrix()
    ours = Bf16Matrix.of(weights)
    np.testing.assert_array_equal(ours.weights, weights.astype(ml_dtypes.bfloat16).view(np.uint16))
    np.testing.assert_array_equal(ours.values(), weights.astype(ml_dtypes.bfloat16).astype(np.float64))


@settings(deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(1, 3), st.sampled_from([2, 30, 32, 64, 66])), elements=FLOATS))
def test_mxfp4_weights_are_those_of_the_pytorch_reference(weights: NDArray[np.float32]) -> None:
    torch = pytest.importorskip("torch", reason="the reference is in PyTorch")
    from gpu_reference.experts import mxfp4

    ours = Mxfp4Matrix.of(weights)
    packed, scales = mxfp4.quantise(torch.from_numpy(weights))
    np.testing.assert_array_equal(ours.codes[:, 0::2] | ours.codes[:, 1::2] << 4, packed.numpy())
    np.testing.assert_array_equal(ours.scales, scales.numpy())


def test_the_shared_power_follows_the_standard() -> None:
    # The greatest magnitude, 2^(k + 2) to below 2^(k + 3), gives 2^k; what is over 6 · 2^k becomes 6 · 2^k.
    for k in (-129, -60, 0, 3, 120):
        weights = np.zeros((1, 32), np.float32)
        weights[0, :4] = np.ldexp([7.9, -7.9, 1.2, -0.2], k)
        ours = Mxfp4Matrix.of(weights)
        scale = max(k, -127)
        assert ours.scales.tolist() == [[scale + 127]]
        if k == scale:
            assert (ours.values()[0, :4] / 2.0**k).tolist() == [6, -6, 1, 0]
            assert ours.codes[0, 3] == 8
    assert Mxfp4Matrix.of(np.zeros((1, 32))).scales.tolist() == [[0]]


def test_a_checkpoints_blocks_are_taken_as_they_are() -> None:
    generator = np.random.default_rng(3)
    blocks = generator.integers(0, 256, (4, 3, 16)).astype(np.uint8)
    scales = generator.integers(100, 140, (4, 3)).astype(np.uint8)
    ours = Mxfp4Matrix.from_blocks(blocks, scales)
    # As transformers' integrations.mxfp4.convert_moe_packed_tensors decodes: the low half first.
    table = E2M1.astype(np.float64)
    decoded = np.empty((4, 3, 32))
    decoded[..., 0::2], decoded[..., 1::2] = table[blocks & 15], table[blocks >> 4]
    decoded *= 2.0 ** (scales.astype(int) - 127)[..., None]
    np.testing.assert_array_equal(ours.values(), decoded.reshape(4, 96))


def test_a_shared_nan_makes_its_weights_nan() -> None:
    ours = Mxfp4Matrix(np.ones((1, 40), np.uint8), np.array([[255, 127]], np.uint8))
    assert np.isnan(ours.values()[0, :32]).all()
    assert (ours.values()[0, 32:] == 0.5).all()


def test_int8_halves_go_to_the_even_neighbour_and_rows_have_their_own_scales() -> None:
    ours = Int8Matrix.of([[127, 0.5, 1.5, -2.5], [0, 0, 0, 0], [254, 2, -254, 1]])
    assert ours.codes.tolist() == [[127, 0, 2, -2], [0, 0, 0, 0], [127, 1, -127, 0]]
    assert ours.scales.tolist() == [1, 0, 2]


@settings(deadline=None)
@given(arrays(np.float32, (2, 9), elements=FLOATS))
def test_no_int8_weight_is_further_than_half_a_step(weights: NDArray[np.float32]) -> None:
    ours = Int8Matrix.of(weights)
    assert np.abs(ours.codes.astype(int)).max() <= 127
    # Half a step, and float32's rounding of the scale and the quotient; a row of tiny weights becomes zero.
    assert (np.abs(ours.values() - weights) <= ours.scales[:, None] * 0.50002 + 127 * floats.LEAST_NORMAL).all()


def test_a_row_whose_scale_the_unit_would_read_as_zero_is_zero() -> None:
    ours = Int8Matrix.of(np.full((1, 3), 1e-37))
    assert ours.scales.tolist() == [0]
    assert not ours.codes.any()
    normal = Int8Matrix.of(np.full((1, 3), 127 * floats.LEAST_NORMAL))
    assert normal.scales.tolist() == [floats.LEAST_NORMAL]
    assert normal.codes.tolist() == [[127] * 3]


@pytest.mark.parametrize("kind", MATRICES.values())
def test_rows_and_columns_can_be_taken(kind: type[Bf16Matrix] | type[Int8Matrix] | type[Mxfp4Matrix]) -> None:
    whole = kind.of(matrix())
    rows = np.array([3, 0, 4])
    np.testing.assert_array_equal(whole.take_rows(rows).values(), whole.values()[rows])
    np.testing.assert_array_equal(whole.take_inputs(32, 70).values(), whole.values()[:, 32:70])
    np.testing.assert_array_equal(whole.take_inputs(32, 40).values(), whole.values()[:, 32:40])
    below = kind.of(matrix(2, seed=1))
    both = whole.above(below)  # type: ignore[arg-type]
    np.testing.assert_array_equal(both.values(), np.concatenate([whole.values(), below.values()]))


def test_mxfp4_columns_cannot_be_cut_inside_a_group() -> None:
    with pytest.raises(ForestageError, match="start at a multiple"):
        Mxfp4Matrix.of(matrix()).take_inputs(16, 70)


def bf16(values: object) -> NDArray[np.uint16]:
    return floats.bf16_from_float(np.array(values, np.float32))


def test_int8_inputs_share_the_power_of_two_of_their_token() -> None:
    x = bf16([[1, -1.9921875, 0.015625, 0.0234375], [0, -0.0, 0, 0], [64, 0.5, 1.5, -2.5], [127.5, -127.5, 126.5, 1]])
    ours = Int8Inputs.of(x)
    assert ours.exponents.tolist() == [-6, 0, 0, 0]
    assert ours.codes.tolist() == [[64, -127, 1, 2], [0] * 4, [64, 0, 2, -2], [127, -127, 126, 1]]
    assert not ours.nonfinite


@settings(deadline=None)
@given(arrays(np.uint16, (2, 5), elements=st.integers(0, 2**16 - 1)))
def test_int8_inputs_of_any_pattern(x: NDArray[np.uint16]) -> None:
    ours = Int8Inputs.of(x)
    finite = floats.is_finite_bf16(x)
    assert ours.nonfinite == (not finite.all())
    assert (ours.codes[~finite] == 0).all()
    values = np.where(finite, floats.float_from_bf16(x), 0).astype(np.float64)
    step = np.ldexp(1.0, ours.exponents)[:, None]
    # 127.5 steps are clipped to 127.
    assert (np.abs(ours.codes * step - values) <= step / 2).all()
    greatest = np.abs(values).max(axis=1)
    used = greatest > 0
    assert (np.abs(ours.codes.astype(int)).max(axis=1)[used] >= 64).all()
    assert (ours.exponents[~used] == 0).all()


def test_bad_weights_are_refused() -> None:
    for kind in MATRICES.values():
        with pytest.raises(ForestageError, match="row 1, column 0; give finite values"):
            kind.of([[1, 2], [np.inf, 4]])
        with pytest.raises(ForestageError, match="2 dimension"):
            kind.of([1, 2])
        with pytest.raises(ForestageError, match="not empty"):
            kind.of(np.zeros((0, 3)))
    with pytest.raises(ForestageError, match="beyond the greatest BF16"):
        Bf16Matrix.of([[3.4e38]])
    with pytest.raises(ForestageError, match="float32"):
        Int8Matrix(np.zeros((2, 2), np.int8), np.zeros(2))  # type: ignore[arg-type]
    with pytest.raises(ForestageError, match="one a row"):
        Int8Matrix(np.zeros((2, 2), np.int8), np.zeros(3, np.float32))
    with pytest.raises(ForestageError, match="one for each 32"):
        Mxfp4Matrix(np.zeros((2, 33), np.uint8), np.zeros((2, 1), np.uint8))
    with pytest.raises(ForestageError, match="a code is 16"):
        Mxfp4Matrix(np.full((1, 2), 16, np.uint8), np.zeros((1, 1), np.uint8))
    with pytest.raises(ForestageError, match="give 16"):
        Mxfp4Matrix.from_blocks(np.zeros((1, 1, 8), np.uint8), np.zeros((1, 1), np.uint8))
