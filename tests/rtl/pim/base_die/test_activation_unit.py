"""The activation unit against its twin."""

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="needs the extra 'hardware'")

from pim_model.numerics.activation import activate
from pim_model.numerics.floats import float_bits
from rtl.pim.base_die.activation import FUNCTIONS, ActivationUnit
from tests.rtl.pim.vectors import in_amaranth


def test_every_exponent_and_random_fractions_are_the_twins() -> None:
    """Of both signs and functions each exponent with its first and last fraction and others; functions in turn."""
    generator = np.random.default_rng(1)
    fractions = np.concatenate([[0, 127], generator.integers(0, 128, 2)])
    g = (np.arange(512)[:, None] * 128 + fractions).ravel().astype(np.uint16)
    # −53.75: gpt-oss's function of it has the exponent just below that of the least normal number.
    g = np.append(g, np.uint16(0xC257))
    g = np.repeat(generator.permutation(g), 2)
    function = np.tile([0, 1], len(g) // 2).astype(np.uint8)
    found = in_amaranth(ActivationUnit(), {"g": g, "function": function}, "result", ActivationUnit.LATENCY)
    for code, name in enumerate(FUNCTIONS):
        np.testing.assert_array_equal(found[function == code], float_bits(activate(name, g[function == code])))


@pytest.mark.long
@pytest.mark.parametrize("code", range(len(FUNCTIONS)))
def test_all_bf16_are_the_twins(code: int) -> None:
    g = np.arange(1 << 16, dtype=np.uint16)
    inputs = {"g": g, "function": np.full(len(g), code, np.uint8)}
    found = in_amaranth(ActivationUnit(), inputs, "result", ActivationUnit.LATENCY)
    np.testing.assert_array_equal(found, float_bits(activate(FUNCTIONS[code], g)))
