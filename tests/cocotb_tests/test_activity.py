"""What toggles and what memories are asked, of a small circuit, against what cocotb sees in every cycle."""

import textwrap
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from catalog.errors import ForestageError
from cocotb_tests import memory_accesses
from cocotb_tests.build import BuildOptions, BuiltModel, build
from cocotb_tests.memory_accesses import counting, read_accesses
from cocotb_tests.simulation import run
from rtl.ram import Ram
from rtl.synthesis.saif import read_saif
from rtl.verilog import to_verilog


class Mixer(wiring.Component):
    """Memories by ``Ram``, with granules and without collisions; one of Amaranth's; one read without a clock."""

    number: In(8)
    counted: In(1)
    mixed: Out(8)

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.ram = ram = Ram(16, 32, granule=4)
        m.submodules.apart = apart = Ram(8, 16, collisions=False)
        m.submodules.plain = plain = Memory(shape=8, depth=16, init=[])
        m.submodules.open = unclocked = Memory(shape=8, depth=4, init=[])
        write, read = plain.write_port(), plain.read_port()
        bare, answer = unclocked.write_port(), unclocked.read_port(domain="comb")
        m.d.comb += [
            ram.read.eq(self.number[0]),
            ram.read_address.eq(self.number[3:]),
            ram.write.eq(self.number[1:5]),
            ram.write_address.eq(self.number),
            ram.write_data.eq(self.number.replicate(2)),
            apart.read.eq(self.number[0]),
            apart.read_address.eq(self.number),
            apart.write.eq(~self.number[0]),
            apart.write_address.eq(self.number),
            apart.write_data.eq(self.number),
            write.en.eq(self.number[6]),
            write.addr.eq(self.number),
            write.data.eq(self.number),
            read.en.eq(self.number[7]),
            read.addr.eq(self.number),
            bare.en.eq(1),
            bare.addr.eq(self.number),
            bare.data.eq(self.number),
            answer.addr.eq(self.number),
        ]
        m.d.sync += self.mixed.eq(ram.read_data[:8] ^ ram.read_data[8:] ^ apart.read_data ^ read.data ^ answer.data)
        return m


BENCH = """
import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge
from cocotb_tests import exchange

@cocotb.test()
async def go(dut):
    Clock(dut.clk, 2, unit="ns").start()
    numbers = exchange.read_stimulus()["numbers"]
    dut.rst.value = 0
    dut.number.value = 0
    dut.counted.value = 0
    mixed = []
    for number in numbers:
        await FallingEdge(dut.clk)
        mixed.append(dut.mixed.value.to_unsigned())
        dut.number.value = int(number) & 255
        dut.counted.value = int(number) >> 8
    for _ in range(3):  # what the last one does is seen
        await FallingEdge(dut.clk)
        mixed.append(dut.mixed.value.to_unsigned())
        dut.number.value = 0
        dut.counted.value = 0
    exchange.write_results({"mixed": mixed})
"""


@pytest.fixture(scope="module")
def model() -> BuiltModel:
    return build(
        counting(to_verilog(Mixer(), "mixer")),
        "mixer",
        BuildOptions(
            trace_waves=True,
            verilator_arguments=["--trace-saif", f"+define+{memory_accesses.COUNTED_MACRO}=mixer.counted"],
        ),
    )


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "activity_bench.py").write_text(textwrap.dedent(BENCH))
    monkeypatch.syspath_prepend(str(tmp_path))
    return "activity_bench"


def ones(number: int) -> int:
    return int(number).bit_count()


def test_counts_are_those_of_the_stimulus(model: BuiltModel, bench: str, tmp_path: Path) -> None:
    numbers = np.random.default_rng(3).integers(0, 512, 300)
    kept = {"dump.saif": tmp_path / "activity.saif", memory_accesses.FILE: tmp_path / "accesses.txt"}
    result = run(model, bench, stimulus={"numbers": numbers}, kept=kept, waves=tmp_path / "unused.vcd")
    found = {memory.path: memory for memory in read_accesses(tmp_path / "accesses.txt")}
    counted = [int(number) & 255 for number in numbers if number >> 8]
    words, plain, bare = (found[f"mixer.{name}"] for name in ("ram.words.words", "plain", "open"))
    assert (words.depth, words.width, words.clocked) == (32, 16, True)
    assert words.bits_read == 16 * sum(number & 1 for number in counted)
    assert words.bits_written == 4 * sum(ones(number >> 1 & 15) for number in counted)
    assert (plain.bits_read, plain.bits_written) == tuple(
        8 * sum(number >> bit & 1 for number in counted) for bit in (7, 6)
    )
    apart = found["mixer.apart.words.words"]
    assert (apart.bits_read, apart.bits_written) == tuple(
        8 * sum(number & 1 == odd for number in counted) for odd in (1, 0)
    )
    assert (bare.bits_read, bare.bits_written, bare.clocked) == (0, 8 * len(counted), False)

    activity = read_saif(tmp_path / "activity.saif")
    sent = [0, *(int(number) & 255 for number in numbers), 0]
    nets = activity.instances["$rootio"]
    assert nets.bits == 1 + 1 + 8 + 1 + 8  # clock, reset, number, counted, mixed
    ticks, toggles = 2 * activity.cycles, sum(ones(a ^ b) for a, b in pairwise(sent))
    gate = [0, *(int(number) >> 8 for number in numbers), 0]
    seen = [0, *result.values["mixed"]]
    toggles += sum(ones(a ^ b) for of in (gate, seen) for a, b in pairwise(of))
    assert nets.toggles in (ticks + toggles, ticks + toggles + 1)  # the last edge of the clock has no other
    assert activity.cycles >= len(numbers) + 3


def test_files_that_are_not_left_or_say_something_else_are_refused(
    model: BuiltModel, bench: str, tmp_path: Path
) -> None:
    with pytest.raises(ForestageError, match=r"none\.txt: the simulation left no such file"):
        run(model, bench, stimulus={"numbers": np.zeros(2, np.int64)}, kept={"none.txt": tmp_path / "none.txt"})
    with pytest.raises(ForestageError, match="cannot read the accesses"):
        read_accesses(tmp_path / "none.txt")
    (tmp_path / "bad.txt").write_text("mixer.plain 16 8 read\n")
    with pytest.raises(ForestageError, match="line 1: no access to a memory"):
        read_accesses(tmp_path / "bad.txt")


def test_every_access_of_the_text_gets_a_counter() -> None:
    text = to_verilog(Mixer(), "mixer")
    marked: Callable[[str], int] = counting(text).count
    # Writes and reads with a clock, of each memory.
    assert marked(f"if (`{memory_accesses.COUNTED_MACRO})") == (4 + 1) + 2 * (1 + 1) + 1
    assert text.count("words[write_address]") == 4 + 1


@pytest.mark.parametrize("declared", ["reg [7:0] words [0:15], more [0:3];", "logic [7:0] words [16];"])
def test_a_memory_that_cannot_be_counted_is_refused(declared: str) -> None:
    with pytest.raises(AssertionError, match=r"a memory whose accesses are not counted: .*words"):
        counting(f"module m(clk);\n  input clk;\n  {declared}\nendmodule\n")


LATE = """
module part(input clk, input [7:0] count);
  reg high = 1, falls = 1;
  reg [7:0] delayed = 0;
  always @(posedge clk) begin delayed <= count; falls <= count < 60; end
endmodule
module late(input clk, input rst, output reg [7:0] count);
  part part(.clk(clk), .count(count));
  wire counted = !rst && count >= 32 && count < 96;
  reg traced = 0;
  always @(posedge clk) begin
    if (rst) count <= 0; else if (count < 100) count <= count + 1;
    traced <= traced || counted;
    if (counted && !traced) begin $dumpfile("activity.saif"); $dumpvars; end
  end
endmodule
"""

LATE_BENCH = """
import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

@cocotb.test()
async def go(dut):
    Clock(dut.clk, 2, unit="ns").start()
    dut.rst.value = 1
    for _ in range(3):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    for _ in range(150):
        await RisingEdge(dut.clk)
"""


def test_counts_that_begin_late_are_of_that_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "late_bench.py").write_text(LATE_BENCH)
    monkeypatch.syspath_prepend(str(tmp_path))
    late = build(LATE, "late", BuildOptions(trace_waves=True, verilator_arguments=["--trace-saif"]))
    run(late, "late_bench", kept={"activity.saif": tmp_path / "activity.saif"})
    whole = read_saif(tmp_path / "activity.saif")
    found = read_saif(tmp_path / "activity.saif", counted="counted")
    assert found.cycles == 96 - 32 - 1  # the edge that begins it is the first sample
    assert whole.cycles >= 150 - 32 - 2
    nets = found.instances["late/part"]
    assert nets.bits == 1 + 8 + 8 + 2
    # The count goes on from 33 to 100; `high`, which stays so, has no toggle; what is high at first has one too many.
    counts = [sum(ones(n ^ (n + 1)) for n in range(first, 100)) for first in (33, 32)]
    clocks, falls, first_samples = 2 * whole.cycles, 1, ones(33) + ones(32) + 2
    least = clocks + counts[0] + counts[1] + falls
    assert least <= nets.toggles <= least + first_samples
