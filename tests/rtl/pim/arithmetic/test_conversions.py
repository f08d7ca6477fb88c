"""Conversions and powers of two against the twin."""

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="needs the extra 'hardware'")

from amaranth.hdl import Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from pim_model.numerics import floats
from rtl.pim.arithmetic.conversions import Int32ToFp32, bf16_to_fp32, fp32_to_bf16, scaled
from rtl.pim.arithmetic.formats import BF16, FP32
from tests.rtl.pim.arithmetic.patterns import FP32_CORNERS, fp32_pairs
from tests.rtl.pim.vectors import in_amaranth, under_verilator


class Convert(wiring.Component):
    number: In(FP32)
    narrow: Out(BF16)
    widened: Out(FP32)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += [self.narrow.eq(fp32_to_bf16(self.number)), self.widened.eq(bf16_to_fp32(self.narrow.as_value()))]
        return m


class Scale(wiring.Component):
    number: In(FP32)
    power: In(signed(16))
    result: Out(FP32)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.result.eq(scaled(self.number, self.power[:9].as_signed()))
        return m


def integers(count: int, seed: int) -> np.ndarray:
    """All powers of two and their neighbours, ties, and as many random ones of all magnitudes."""
    generator = np.random.default_rng(seed)
    powers = (1 << np.arange(32, dtype=np.int64))[:, None] + np.array([-1, 0, 1])
    ties = (generator.integers(1 << 23, 1 << 24, (100, 1)) * 2 + 1) << np.arange(7)
    random = generator.integers(-(1 << 31), 1 << 31, count) >> generator.integers(0, 32, count)
    every = np.concatenate([powers.ravel(), -powers.ravel(), ties.ravel(), -ties.ravel(), random])
    return np.clip(every, -(1 << 31), (1 << 31) - 1).astype(np.int32)


def test_int32_becomes_fp32_as_in_the_twin() -> None:
    values = integers(1000, seed=1)
    found = in_amaranth(Int32ToFp32(), {"integer": values}, "result", Int32ToFp32.LATENCY)
    np.testing.assert_array_equal(found, floats.float_bits(floats.float_from_int(values)))


def test_fp32_becomes_bf16_as_in_the_twin() -> None:
    values = np.concatenate([fp32_pairs(2000, seed=3)[0], (FP32_CORNERS & 0xFFFF0000) | 0x8000])
    found = in_amaranth(Convert(), {"number": values}, "narrow", 0)
    np.testing.assert_array_equal(found, floats.bf16_from_float(floats.from_float_bits(values)))


def test_bf16_becomes_fp32_exactly() -> None:
    found = in_amaranth(Convert(), {"number": FP32_CORNERS}, "widened", 0)
    narrow = floats.bf16_from_float(floats.from_float_bits(FP32_CORNERS))
    np.testing.assert_array_equal(found, floats.float_bits(floats.float_from_bf16(narrow)))


def test_powers_of_two_scale_as_in_the_twin() -> None:
    numbers, random = fp32_pairs(2000, seed=4)
    power = (random % 512).astype(np.int16) - np.int16(256)
    found = in_amaranth(Scale(), {"number": numbers, "power": power}, "result", 0)
    np.testing.assert_array_equal(found, floats.float_bits(floats.scale(floats.from_float_bits(numbers), power)))


@pytest.mark.long
def test_a_million_integers_become_fp32_as_in_the_twin() -> None:
    pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")
    values = integers(1_000_000, seed=2)
    found = under_verilator(Int32ToFp32, {"integer": values.view(np.uint32)}, "result", Int32ToFp32.LATENCY)
    np.testing.assert_array_equal(found, floats.float_bits(floats.float_from_int(values)))
