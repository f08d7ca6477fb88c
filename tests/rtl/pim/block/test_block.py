"""A bank pair's block against the twin's arithmetic, and its checks."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="needs the extra 'hardware'")

from amaranth.hdl import Value
from amaranth.sim import Simulator
from numpy.typing import NDArray

from cocotb_tests.vectors import run_vectors
from pim_model.unit.parameters import LANE_LATENCY_CK, PASSES
from pim_model.unit.program import ColumnKind, WeightFormat
from rtl.pim.block.block import BankBlock
from rtl.pim.block.layouts import COLUMN_COMMAND, READOUT_SELECT, REGISTER_LOAD
from rtl.verilog import to_verilog
from tests.rtl.pim.block.stimulus import Script, TileShape, pattern

BF16, INT8, MXFP4 = WeightFormat
KINDS = [(BF16, 0), (BF16, 1), (BF16, 2), (INT8, 0), (INT8, 1), (MXFP4, 0)]


class SimulatedBlock:
    """A block in Amaranth's simulator, elaborated once for many runs."""

    def __init__(self) -> None:
        self._dut = BankBlock()
        self._ports: dict[str, NDArray[np.uint8]] = {}
        self._readouts: list[int] = []
        self._simulator = Simulator(self._dut)
        self._simulator.add_clock(1e-9)
        self._simulator.add_testbench(self._bench)

    def run(self, ports: dict[str, NDArray[np.uint8]]) -> NDArray[np.uint32]:
        """What is read out in each clock."""
        if self._ports:
            self._simulator.reset()
        self._ports, self._readouts = ports, []
        self._simulator.run()
        return np.frombuffer(b"".join(word.to_bytes(32, "little") for word in self._readouts), np.uint32).reshape(-1, 8)

    async def _bench(self, ctx: Any) -> None:
        ports = [(Value.cast(getattr(self._dut, name)), rows) for name, rows in self._ports.items()]
        for clock in range(len(self._ports["column"])):
            for port, rows in ports:
                ctx.set(port, int.from_bytes(rows[clock].tobytes(), "little"))
            self._readouts.append(ctx.get(self._dut.readout))
            await ctx.tick()


@pytest.fixture(scope="module")
def block() -> SimulatedBlock:
    return SimulatedBlock()


def compare(readouts: NDArray[np.uint32], script: Script) -> None:
    assert script.expected
    for clock, expected in script.expected.items():
        np.testing.assert_array_equal(readouts[clock][: len(expected)], expected, err_msg=f"clock {clock}")


def shapes(generator: np.random.Generator, count: int, most_chunks: int) -> list[TileShape]:
    """Random tiles of all formats and numbers of tokens, long enough that readouts of neighbours do not meet."""
    tiles = []
    for number in range(count):
        weight_format, log2_tokens = KINDS[number % len(KINDS)]
        unit = weight_format.row_unit
        rows = unit * int(generator.integers(1, (32 >> log2_tokens) // unit + 1))
        chunks = 2 * (16 // rows + int(generator.integers(1, most_chunks)))
        tiles.append(TileShape(weight_format, log2_tokens, rows, chunks, special=number // len(KINDS) % 2 == 1))
    return tiles


def test_the_timing_models_latency_is_the_blocks() -> None:
    assert BankBlock.LATENCY == LANE_LATENCY_CK


def test_tiles_of_all_formats_are_the_twins(block: SimulatedBlock) -> None:
    """A dozen tiles, the second half with special numbers, columns nearly without a pause, read out at the earliest."""
    script = Script(np.random.default_rng(1))
    for shape in shapes(script.generator, 12, most_chunks=2):
        script.tile(shape)
    script.constants()
    compare(block.run(script.rows()), script)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
def test_hundreds_of_tiles_are_the_twins(seed: int) -> None:
    pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")
    script = Script(np.random.default_rng(seed))
    for number, shape in enumerate(shapes(script.generator, 240, most_chunks=20)):
        script.tile(shape)
        if number % 5 == 4:
            script.constants()
    verilog = to_verilog(BankBlock(), "bank_block")
    readouts = run_vectors(verilog, "bank_block", script.rows(), ["readout"])["readout"].view(np.uint32)
    compare(readouts, script)


def mac(**fields: int) -> dict[str, int]:
    return {"column": pattern(COLUMN_COMMAND, valid=1, kind=ColumnKind.MAC, **{"first": 1, **fields})}


def load(register: int) -> dict[str, int]:
    return {"load": pattern(REGISTER_LOAD, valid=1, register=register)}


def read(line: int) -> dict[str, int]:
    return {"select": pattern(READOUT_SELECT, valid=1, line=line)}


# What is wrong, and the clocks in which it is done.
MISUSES = {
    "a column comes within four clocks": {0: mac(), PASSES - 1: mac(index=1)},
    "tokens of the column given": {0: mac(weight_format=MXFP4, log2_tokens=1)},
    "rows of the column given": {0: mac(log2_tokens=2, index=8)},
    "kind of the column given": {0: {"column": pattern(COLUMN_COMMAND, valid=1, kind=3)}},
    "format of the column given": {0: mac(weight_format=3)},
    "index of the constants given": {
        0: {"column": pattern(COLUMN_COMMAND, valid=1, kind=ColumnKind.CONSTANTS, index=8)}
    },
    "an input register changes before": {0: mac(log2_tokens=2, register=14), 3: load(1)},
    "accumulators are read while": {0: mac(), BankBlock.LATENCY - 5: read(0)},
    "read while a sum is on its way": {0: mac(), BankBlock.LATENCY: read(0)},
}

RIGHT = {
    "a column in the last pass of another": {0: mac(), PASSES: mac(index=1)},
    "the last row of four tokens": {0: mac(log2_tokens=2, index=7)},
    "a register that is read already": {0: mac(log2_tokens=2, register=14), 4: load(1)},
    "a register that is not read": {0: mac(log2_tokens=1, register=14), 2: load(0)},
    "a sum just arrived": {0: mac(), BankBlock.LATENCY + 1: read(0)},
    "other accumulators": {0: mac(), BankBlock.LATENCY: read(1)},
}


def play(block: SimulatedBlock, clocks: dict[int, dict[str, int]]) -> None:
    script = Script(np.random.default_rng(0))
    for clock, ports in clocks.items():
        script.set(clock, **ports)
    script.set(max(clocks) + BankBlock.LATENCY + PASSES, select=0)
    block.run(script.rows())


@pytest.mark.parametrize("message", MISUSES)
def test_what_must_not_be_is_caught(block: SimulatedBlock, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        play(block, MISUSES[message])


@pytest.mark.parametrize("case", RIGHT)
def test_what_just_may_be_is_not(block: SimulatedBlock, case: str) -> None:
    play(block, RIGHT[case])
