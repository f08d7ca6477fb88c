"""FP32 multiplication against the twin."""

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="needs the extra 'hardware'")

from pim_model.numerics import floats
from rtl.pim.arithmetic.multiplier import Fp32Multiplier
from tests.rtl.pim.arithmetic.patterns import fp32_pairs
from tests.rtl.pim.vectors import in_amaranth, under_verilator


def expected(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return floats.float_bits(floats.multiply(floats.from_float_bits(a), floats.from_float_bits(b)))


def factors(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """As many random pairs; those whose product is near the least normal number and near the greatest; near ties."""
    a, b = fp32_pairs(count, seed)
    generator = np.random.default_rng(seed)
    exponent = generator.integers(1, 255, count)
    partner = np.where(np.arange(count) % 2, 127, 127 + 254) - exponent + generator.integers(-1, 2, count)
    random = generator.integers(0, 1 << 32, (2, count), dtype=np.uint32) & np.uint32(0x807FFFFF)
    random[:, : count // 2] |= np.uint32(0x007FFF00)  # large fractions: products just below a power of two
    edge_a = random[0] | (exponent.astype(np.uint32) << np.uint32(23))
    edge_b = random[1] | (np.clip(partner, 0, 255).astype(np.uint32) << np.uint32(23))
    # Significands of 13 bits: their products have few bits behind the last that is kept.
    short_a, short_b = generator.integers(1 << 12, 1 << 13, (2, count // 4), dtype=np.uint32) << np.uint32(11)
    one = np.uint32(126 << 23)
    return np.concatenate([a, edge_a, short_a + one]), np.concatenate([b, edge_b, short_b + one])


def test_products_are_the_twins() -> None:
    a, b = factors(1500, seed=1)
    found = in_amaranth(Fp32Multiplier(), {"a": a, "b": b}, "result", Fp32Multiplier.LATENCY)
    np.testing.assert_array_equal(found, expected(a, b))


def test_products_just_below_the_least_normal_number_stay_where_they_round_up_to_it() -> None:
    """Significands whose product is less than 2⁴⁷ by up to some units of the last place, 2²³; half a unit rounds up."""
    first = np.random.default_rng(5).integers(1 << 23, 1 << 24, 500)
    second = ((1 << 47) - 1) // first
    below = (1 << 47) - first * second
    a = (first - (1 << 23) + ((127 - 63) << 23)).astype(np.uint32)
    b = (second - (1 << 23) + ((127 - 64) << 23)).astype(np.uint32)
    found = in_amaranth(Fp32Multiplier(), {"a": a, "b": b}, "result", Fp32Multiplier.LATENCY)
    stays = below <= 1 << 22
    assert 50 < stays.sum() < 450
    np.testing.assert_array_equal(found, np.where(stays, 0x00800000, 0))
    np.testing.assert_array_equal(found, expected(a, b))


@pytest.mark.long
def test_four_million_products_are_the_twins() -> None:
    pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")
    a, b = factors(2_000_000, seed=2)
    found = under_verilator(Fp32Multiplier, {"a": a, "b": b}, "result", Fp32Multiplier.LATENCY)
    np.testing.assert_array_equal(found, expected(a, b))
