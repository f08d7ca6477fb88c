"""FP32 addition against the twin."""

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="needs the extra 'hardware'")

from pim_model.numerics import floats
from rtl.pim.arithmetic.adder import Fp32Adder
from tests.rtl.pim.arithmetic.patterns import fp32_pairs
from tests.rtl.pim.vectors import in_amaranth, under_verilator


def expected(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return floats.float_bits(floats.add(floats.from_float_bits(a), floats.from_float_bits(b)))


def test_sums_are_the_twins() -> None:
    a, b = fp32_pairs(2000, seed=1)
    found = in_amaranth(Fp32Adder(), {"a": a, "b": b}, "result", Fp32Adder.LATENCY)
    np.testing.assert_array_equal(found, expected(a, b))


@pytest.mark.long
def test_four_million_sums_are_the_twins() -> None:
    pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")
    a, b = fp32_pairs(4_000_000, seed=2)
    found = under_verilator(Fp32Adder, {"a": a, "b": b}, "result", Fp32Adder.LATENCY)
    np.testing.assert_array_equal(found, expected(a, b))
