"""A bank pair's block under Verilator, against the twin's arithmetic; its checks, in Amaranth's simulator."""

import numpy as np
import pytest

pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")

from cocotb_tests.vectors import run_vectors
from pim_model.unit.parameters import LANE_LATENCY_CK
from pim_model.unit.program import WeightFormat
from rtl.pim.block.block import BankBlock
from rtl.verilog import to_verilog
from tests.rtl.pim.block.stimulus import Script, TileShape

BF16, INT8, MXFP4 = WeightFormat


@pytest.fixture(scope="module")
def verilog() -> str:
    return to_verilog(BankBlock(), "bank_block")


def check(verilog: str, script: Script) -> None:
    """Run ``script`` and compare every readout."""
    readout = run_vectors(verilog, "bank_block", script.rows(), ["readout"])["readout"].view(np.uint32)
    assert script.expected
    for clock, expected in script.expected.items():
        np.testing.assert_array_equal(readout[clock][: len(expected)], expected, err_msg=f"clock {clock}")


def shapes(generator: np.random.Generator, count: int) -> list[TileShape]:
    """Random tiles of all formats and numbers of tokens."""
    kinds = [(BF16, 0), (BF16, 1), (BF16, 2), (INT8, 0), (INT8, 1), (MXFP4, 0)]
    tiles = []
    for number in range(count):
        weight_format, log2_tokens = kinds[number % len(kinds)]
        unit = weight_format.row_unit
        rows = unit * int(generator.integers(1, (32 >> log2_tokens) // unit + 1))
        chunks = 2 * int(generator.integers(1 + 16 // rows, 6 + 16 // rows))
        tiles.append(TileShape(weight_format, log2_tokens, rows, chunks, special=number // len(kinds) % 2 == 1))
    return tiles


def test_the_timing_models_latency_is_the_blocks() -> None:
    assert BankBlock.LATENCY == LANE_LATENCY_CK


@pytest.mark.parametrize("seed", [1])
def test_tiles_of_all_formats_are_the_twins(verilog: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    script = Script(generator)
    for number, shape in enumerate(shapes(generator, 24)):
        script.tile(shape)
        if number % 5 == 4:
            script.constants()
    check(verilog, script)
