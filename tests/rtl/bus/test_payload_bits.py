"""Payloads as bytes: what is packed is read back, field by field."""

import numpy as np
import pytest
from amaranth.hdl import signed, unsigned
from amaranth.lib import data

from rtl.bus.payload_bits import array_of, pack, unpack

INNER = data.StructLayout({"a": signed(5), "b": data.ArrayLayout(unsigned(3), 4)})
LAYOUT = data.StructLayout({"x": 1, "inner": INNER, "y": unsigned(33)})


def test_what_is_packed_is_read_back() -> None:
    generator = np.random.default_rng(3)
    values = {
        "x": generator.integers(0, 2, 50),
        **{f"inner.b.{nth}": generator.integers(0, 8, 50) for nth in range(4)},
        "y": generator.integers(0, 1 << 33, 50),
        "inner.a": generator.integers(0, 32, 50),
    }
    payloads = pack(LAYOUT, values, 50)
    assert payloads.shape == (50, 7)
    found = unpack(LAYOUT, payloads)
    for path, column in values.items():
        expected = np.where(column > 15, column - 32, column) if path == "inner.a" else column
        assert np.array_equal(found[path], expected), path
    word = int.from_bytes(payloads[7].tobytes(), "little")
    assert word >> (1 + 5 + 12) == values["y"][7]
    assert array_of(found, "inner.b").shape == (50, 4)


def test_a_value_that_does_not_fit_and_a_field_that_is_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="does not fit 1 bits"):
        pack(LAYOUT, {"x": np.array([2])}, 1)
    with pytest.raises(ValueError, match="no such field"):
        pack(LAYOUT, {"z": np.array([0])}, 1)
