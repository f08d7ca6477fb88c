"""A lane's products against the twin: all pairs of INT8, all E2M1 codes, BF16."""

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="needs the extra 'hardware'")

from amaranth.hdl import Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from pim_model.numerics import floats
from rtl.pim.arithmetic.formats import BF16
from rtl.pim.arithmetic.lane import (
    LaneMultiplier,
    bf16_operands,
    e2m1_as_bf16,
    product_as_fp32,
    product_as_integer,
)
from tests.rtl.pim.arithmetic.patterns import BF16_CORNERS, pairs
from tests.rtl.pim.vectors import in_amaranth, under_verilator


class Product(wiring.Component):
    """A lane's multiplier with the operands of two BF16, or of two INT8 in their low bytes."""

    a: In(BF16)
    b: In(BF16)
    integer: In(8)
    fp32: Out(32)
    int32: Out(signed(32))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.multiplier = multiplier = LaneMultiplier()
        m.d.comb += [multiplier.operands[name].eq(field) for name, field in bf16_operands(self.a, self.b).items()]
        with m.If(self.integer[0]):
            m.d.comb += [
                multiplier.operands.a.eq(self.a.as_value()[:8].as_signed()),
                multiplier.operands.b.eq(self.b.as_value()[:8].as_signed()),
            ]
        m.d.comb += [
            self.fp32.eq(product_as_fp32(multiplier.product)),
            self.int32.eq(product_as_integer(multiplier.product)),
        ]
        return m


class Decode(wiring.Component):
    code: In(8)
    number: Out(16)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.number.eq(e2m1_as_bf16(self.code[:4]))
        return m


def bf16_pairs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of corners, then random ones, half of them with a product near the ends of the range."""
    generator = np.random.default_rng(seed)
    a, b = generator.integers(0, 1 << 16, (2, count), dtype=np.uint16)
    exponent = (a >> 7 & 0xFF).astype(np.int64)
    partner = np.where(b & 1, 127, 127 + 254) - exponent + generator.integers(-1, 2, count)
    edge = (b & np.uint16(0x807F)) | (np.clip(partner, 0, 255).astype(np.uint16) << np.uint16(7))
    b = np.where(np.arange(count) % 2, edge, b).astype(np.uint16)
    corners = pairs(BF16_CORNERS, BF16_CORNERS)
    return np.concatenate([corners[0], a]), np.concatenate([corners[1], b])


def expected(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return floats.float_bits(floats.multiply(floats.float_from_bf16(a), floats.float_from_bf16(b)))


def test_bf16_products_are_the_twins() -> None:
    a, b = bf16_pairs(2000, seed=1)
    inputs = {"a": a, "b": b, "integer": np.zeros(len(a), np.uint8)}
    np.testing.assert_array_equal(in_amaranth(Product(), inputs, "fp32", LaneMultiplier.LATENCY), expected(a, b))


def test_int8_products_are_exact() -> None:
    corners = np.array([-128, -127, -1, 0, 1, 2, 127], np.int8)
    random = np.random.default_rng(2).integers(-128, 128, (2, 500)).astype(np.int8)
    a, b = (np.concatenate(values) for values in zip(pairs(corners, corners), random, strict=True))
    inputs = {"a": a.view(np.uint8), "b": b.view(np.uint8), "integer": np.ones(len(a), np.uint8)}
    found = in_amaranth(Product(), inputs, "int32", LaneMultiplier.LATENCY)
    np.testing.assert_array_equal(found.astype(np.uint32).view(np.int32), a.astype(int) * b.astype(int))


def test_every_e2m1_code_becomes_its_bf16() -> None:
    found = in_amaranth(Decode(), {"code": np.arange(16, dtype=np.uint8)}, "number", 0)
    values = floats.float_from_bf16(found.astype(np.uint16))
    positive = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert values[:8].tolist() == positive
    assert values[8:].tolist() == [-value for value in positive]
    assert np.signbit(values[8:]).all()


@pytest.mark.long
def test_every_e2m1_code_times_every_bf16_and_two_million_bf16_products() -> None:
    pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")
    codes = in_amaranth(Decode(), {"code": np.arange(16, dtype=np.uint8)}, "number", 0).astype(np.uint16)
    a, b = (
        np.concatenate(values)
        for values in zip(pairs(codes, np.arange(1 << 16, dtype=np.uint16)), bf16_pairs(2_000_000, seed=3), strict=True)
    )
    inputs = {"a": a, "b": b, "integer": np.zeros(len(a), np.uint8)}
    found = under_verilator(Product, inputs, "fp32", LaneMultiplier.LATENCY)
    np.testing.assert_array_equal(found, expected(a, b))


@pytest.mark.long
def test_all_int8_products_are_exact() -> None:
    pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")
    every = np.arange(-128, 128).astype(np.int8)
    a, b = pairs(every, every)
    low = {"a": a.view(np.uint8).astype(np.uint16), "b": b.view(np.uint8).astype(np.uint16)}
    found = under_verilator(Product, {**low, "integer": np.ones(len(a), np.uint8)}, "int32", LaneMultiplier.LATENCY)
    np.testing.assert_array_equal(found.view(np.int32), a.astype(int) * b.astype(int))
