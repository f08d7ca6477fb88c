"""The memory with a Verilog module of its own does what Amaranth's memory does."""

import numpy as np
import pytest
from numpy.typing import NDArray

from cocotb_tests.vectors import run_vectors
from rtl.ram import Ram
from rtl.verilog import to_verilog
from tests.rtl.pim.vectors import in_amaranth

SIZES = ((8, 2, None), (24, 11, 8), (32, 16, None))
CLOCKS = 2000


def stimulus(bits: int, depth: int, granule: int | None) -> dict[str, NDArray[np.uint64]]:
    """Random reads and writes, many of the same word in the same clock."""
    generator = np.random.default_rng(bits)
    addresses = {name: generator.integers(depth, size=CLOCKS) for name in ("read_address", "write_address")}
    same = generator.random(CLOCKS) < 0.3
    addresses["write_address"][same] = addresses["read_address"][same]
    return {
        "read": generator.integers(2, size=CLOCKS).astype(np.uint64),
        "write": generator.integers(1 << bits // (granule or bits), size=CLOCKS).astype(np.uint64),
        "write_data": generator.integers(1 << bits, size=CLOCKS).astype(np.uint64),
        **{name: values.astype(np.uint64) for name, values in addresses.items()},
    }


def expected(bits: int, depth: int, granule: int | None, inputs: dict[str, NDArray[np.uint64]]) -> list[int]:
    """What is read, seen in each clock before its edge: zero until the first read."""
    words, found, shown = [0] * depth, 0, []
    width = granule or bits
    for clock in range(CLOCKS):
        shown.append(found)
        if inputs["read"][clock]:
            found = words[int(inputs["read_address"][clock])]
        mask = sum(
            ((1 << width) - 1) << width * nth for nth in range(bits // width) if inputs["write"][clock] >> nth & 1
        )
        at = int(inputs["write_address"][clock])
        words[at] = words[at] & ~mask | int(inputs["write_data"][clock]) & mask
    return shown


@pytest.mark.parametrize(("bits", "depth", "granule"), SIZES)
def test_words_are_read_as_they_were_before_a_write_of_the_same_clock(
    bits: int, depth: int, granule: int | None
) -> None:
    inputs = stimulus(bits, depth, granule)
    shown = in_amaranth(Ram(bits, depth, granule=granule), inputs, "read_data", 1)
    assert shown.tolist()[:-1] == expected(bits, depth, granule, inputs)[1:]


@pytest.mark.parametrize(("bits", "depth", "granule"), SIZES)
def test_its_verilog_is_that_memory(bits: int, depth: int, granule: int | None) -> None:
    inputs = stimulus(bits, depth, granule)
    rows = {name: values[:, None].view(np.uint8).reshape(CLOCKS, 8) for name, values in inputs.items()}
    text = to_verilog(Ram(bits, depth, granule=granule), "memory_under_test")
    found = run_vectors(text, "memory_under_test", rows, ["read_data"])["read_data"]
    values = [int.from_bytes(row.tobytes(), "little") for row in found]
    assert values == expected(bits, depth, granule, inputs)


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_granules_are_parts_of_a_word() -> None:
    with pytest.raises(ValueError, match="granules of 7"):
        Ram(24, 4, granule=7)
