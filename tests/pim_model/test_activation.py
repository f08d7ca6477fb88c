"""The activation unit over all 65,536 BF16s, against A(g) from 40 decimal digits."""

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pim_model.numerics import activation, floats
from pim_model.numerics.activation import Activation, activate, activation_tables

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "pim-numerics.md"

EVERY = np.arange(2**16, dtype=np.uint16)
VALUES = floats.float_from_bf16(EVERY)
FINITE = np.isfinite(VALUES)

both = pytest.mark.parametrize("function", list(Activation))


@cache
def exact(function: Activation) -> NDArray[np.float64]:
    return np.array([activation.exact(function, float(g)) for g in VALUES[FINITE]])


def test_the_exact_function_is_the_textbook_one() -> None:
    for g in (-20.0, -1.5, -(2.0**-20), 2.0**-20, 0.3, 7.0, 30.0):
        assert activation.exact(Activation.SWIGLU, g) == pytest.approx(g / (1 + math.exp(-g)), rel=1e-15)
        assert activation.exact(Activation.GPT_OSS, g) == pytest.approx(g / (1 + math.exp(-1.702 * g)), rel=1e-15)
    assert activation.exact(Activation.GPT_OSS, -3e38) == 0


@both
def test_no_result_is_further_from_the_function_than_the_tolerance(function: Activation) -> None:
    expected, results = exact(function), activate(function, EVERY)[FINITE].astype(np.float64)
    normal = np.abs(expected) >= floats.LEAST_NORMAL
    error = np.abs(results - expected)[normal] / activation.ulp_bf16(np.abs(expected[normal]))
    assert error.max() <= activation.TOLERANCE
    # Below the least normal number, the unit gives zero; its own deviation may make it the least normal.
    below = np.abs(results[~normal])
    assert np.isin(below, [0, floats.LEAST_NORMAL]).all()
    as_bf16 = floats.float_from_bf16(floats.bf16_from_float(results))
    error = np.abs(as_bf16 - expected)[normal] / activation.ulp_bf16(np.abs(expected[normal]))
    assert error.max() <= 0.5 + activation.TOLERANCE


@both
def test_the_sign_is_that_of_g_and_the_significand_has_16_bits(function: Activation) -> None:
    bits = floats.float_bits(activate(function, EVERY))
    number = ~np.isnan(VALUES)
    np.testing.assert_array_equal(bits[number] >> 31, (EVERY[number] >> 15).astype(np.uint32))
    assert not (bits & 0xFF).any()
    fields = bits >> 23 & 0xFF
    assert not (bits[fields == 0] & 0x7FFFFF).any()


@both
def test_what_lies_outside_the_tables(function: Activation) -> None:
    def bits(pattern: int) -> int:
        return int(floats.float_bits(activate(function, pattern)))

    assert [bits(nan) for nan in (0x7FC0, 0x7F81, 0xFFC0, 0xFF81)] == [floats.NAN] * 4
    assert (bits(0x7F80), bits(0xFF80)) == (0x7F800000, 0x80000000)
    assert (bits(0x0000), bits(0x8000), bits(0x007F), bits(0x807F)) == (0, 0x80000000, 0, 0x80000000)
    # The least normal number halved is flushed; twice that is not.
    assert (bits(0x00FF), bits(0x0100), bits(0x8101)) == (0, 0x00800000, 0x80810000)
    assert (bits(0x7F7F), bits(0xFF7F)) == (0x7F7F0000, 0x80000000)


@both
def test_the_tables_fit_their_memory(function: Activation) -> None:
    tables = activation_tables(function)
    assert tables.bits <= 16 * 1024
    assert len(tables.base) <= 512
    width = activation.BASE_BITS + activation.SLOPE_BITS + activation.EXPONENT_BITS
    for word, base, slope, exponent in zip(tables.words, tables.base, tables.slope, tables.exponent, strict=True):
        assert 0 <= word < 2**width
        signed = word >> activation.BASE_BITS & 0x1FFF
        assert (word & 0xFFFF, signed - 0x2000 * (signed >> 12), word >> 29) == (base, slope, exponent)


@both
def test_the_significand_of_every_entry_stays_within_16_bits(function: Activation) -> None:
    tables = activation_tables(function)
    for sign in (0, 1):
        for index, entry in enumerate(tables.directory[sign]):
            last = entry.first + (1 << entry.log2_segments)
            following = [*tables.directory[0], *tables.directory[1]]
            after = sign * len(tables.directory[0]) + index + 1
            assert last == (following[after].first if after < len(following) else len(tables.base))
            for word in range(entry.first, last):
                for within in range(0, 128, 1 << entry.log2_segments):
                    significand = int(tables.base[word]) + (int(tables.slope[word]) * within >> 3)
                    assert 0 <= significand < 2**16


def test_the_tables_are_those_that_the_hardware_was_checked_with() -> None:
    """A change of the fit, or a platform that computes it otherwise, must not pass unseen."""
    sums = {
        function: sum(w * (i + 1) for i, w in enumerate(activation_tables(function).words)) for function in Activation
    }
    assert sums == {Activation.SWIGLU: 2936161953672351, Activation.GPT_OSS: 3153964212538562}


def documented(function: Activation) -> list[float]:
    """The figures of the guide's row."""
    lines = GUIDE.read_text(encoding="utf-8").splitlines()
    (row,) = [line for line in lines if line.startswith(f"| {function} |")]
    return [float(cell) for cell in row.strip("| ").split("|")[1:]]


@both
def test_the_guides_table_is_the_units(function: Activation) -> None:
    tables, expected = activation_tables(function), exact(function)
    results = activate(function, EVERY)[FINITE].astype(np.float64)
    as_bf16 = floats.float_from_bf16(floats.bf16_from_float(results)).astype(np.float64)
    nearest = floats.float_from_bf16(floats.bf16_from_float(expected))
    normal = np.abs(expected) >= floats.LEAST_NORMAL
    greatest, greatest_bf16 = (
        (np.abs(found - expected)[normal] / activation.ulp_bf16(np.abs(expected[normal]))).max()
        for found in (results, as_bf16)
    )
    assert documented(function) == [
        float(function.alpha),
        function.top,
        len(tables.base),
        tables.bits,
        pytest.approx(greatest, abs=0.0006),
        pytest.approx(greatest_bf16, abs=0.0006),
        int((as_bf16 != nearest).sum()),
    ]
