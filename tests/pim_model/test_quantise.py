"""The rule of quantisation, and an expert in int8 against the same in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from catalog.errors import ForestageError
from pim_model import tile
from pim_model.quantise import QuantisedExpert, QuantisedMatrix, float_expert, quantise_vector, relative_error

FLOATS = st.floats(-1e6, 1e6, width=32)


def random_expert(
    hidden: int = 144, intermediate: int = 64, seed: int = 0
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    generator = np.random.default_rng(seed)
    gate, up = generator.normal(0, hidden**-0.5, (2, intermediate, hidden))
    return gate, up, generator.normal(0, intermediate**-0.5, (hidden, intermediate)), generator.normal(size=hidden)


def test_halves_go_to_the_even_neighbour() -> None:
    # The largest value makes the scale 1.
    codes, scale = quantise_vector([127, 0.5, 1.5, 2.5, -0.5, -1.5, 126.5, -126.5, 125.5])
    assert scale == 1
    assert codes.tolist() == [127, 0, 2, 2, 0, -2, 126, -126, 126]


def test_every_row_has_its_own_scale_and_zero_rows_have_none() -> None:
    matrix = QuantisedMatrix.of([[1, -2, 0.5], [0, 0, 0], [254, 2, -254]])
    assert matrix.values.tolist() == [[64, -127, 32], [0, 0, 0], [127, 1, -127]]
    assert matrix.scales.tolist() == [np.float32(2) / np.float32(127), 0, 2]
    assert matrix.values.dtype == np.int8
    assert matrix.scales.dtype == np.float32


@given(arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=FLOATS))
def test_no_weight_is_further_than_half_a_step(matrix: NDArray[np.float32]) -> None:
    quantised = QuantisedMatrix.of(matrix)
    assert quantised.values.min() >= -127
    restored = quantised.values * quantised.scales[:, None].astype(np.float64)
    # Half a step, and float32's rounding of the scale and the quotient.
    assert (np.abs(restored - matrix) <= quantised.scales[:, None] * 0.50002 + 1e-38).all()


@given(arrays(np.float32, 7, elements=st.integers(-9, 9).map(lambda n: np.float32(n * 2.0**-149))))
def test_values_so_small_that_the_scale_vanishes(vector: NDArray[np.float32]) -> None:
    codes, scale = quantise_vector(vector)
    assert np.abs(codes.astype(int)).max() <= 127
    assert scale > 0 or not codes.any()


def test_an_int8_expert_is_near_the_float_one() -> None:
    gate, up, down, x = random_expert()
    expert = QuantisedExpert.of(gate, up, down)
    error = relative_error(expert.run(x), float_expert(gate, up, down, x))
    # Rows of normal weights have their largest near 3 σ, so rounding costs 3 / (127 · √12) = 0.7 % a factor; the five
    # (x, gate, up, hidden with its longer tail, down) add up to about 2 %.
    assert 0.01 < error < 0.03


def test_any_exact_gemv_gives_the_same_bits_and_a_wrong_one_does_not() -> None:
    gate, up, down, x = random_expert(seed=4)
    expert = QuantisedExpert.of(gate, up, down)
    reference = expert.run(x)
    assert reference.dtype == np.float32

    def by_rows(weights: NDArray[np.int8], vector: NDArray[np.int8]) -> NDArray[np.int32]:
        return np.array([np.dot(row.astype(np.int64), vector) for row in weights], np.int32)

    assert expert.run(x, by_rows).tobytes() == reference.tobytes()
    assert expert.run(x, lambda w, v: by_rows(w, v) + 1).tobytes() != reference.tobytes()


def test_the_products_are_those_that_run_asks_for() -> None:
    gate, up, down, x = random_expert(seed=2)
    expert = QuantisedExpert.of(gate, up, down)
    products = expert.products(x)
    assert [w.shape for w, _ in products] == [(64, 144), (64, 144), (144, 64)]
    assert products[0][1] is products[1][1]
    # Replayed from the list, as from the hardware, they give the same output.
    outputs = iter([tile.gemv(w, v) for w, v in products])
    assert expert.run(x, lambda w, v: next(outputs)).tobytes() == expert.run(x).tobytes()


def test_a_very_negative_gate_closes() -> None:
    gate, up, down = np.full((1, 1), -1000.0), np.ones((1, 1)), np.ones((1, 1))
    assert QuantisedExpert.of(gate, up, down).run([1.0]).tolist() == [0]


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([1.0, 2.0], r"matrix has shape \[2\]"),
        (np.zeros((0, 3)), r"shape \[0, 3\]"),
        ([[1.0, np.nan]], r"matrix is nan at \[0, 1\]"),
        ([[1.0], [-np.inf]], r"matrix is -inf at \[1, 0\]"),
    ],
)
def test_bad_matrices_name_what_is_wrong(matrix: NDArray, message: str) -> None:
    with pytest.raises(ForestageError, match=message):
        QuantisedMatrix.of(matrix)


def test_shapes_that_make_no_expert() -> None:
    gate, up, down, x = random_expert()
    with pytest.raises(ForestageError, match=r"gate \[64, 144\], up \[64, 144\] and down \[64, 144\] do not fit"):
        QuantisedExpert.of(gate, up, down.T)
    with pytest.raises(ForestageError, match="do not fit a vector"):
        QuantisedExpert.of(gate, up, down).run(x[:-1])
