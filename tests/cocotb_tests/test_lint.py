"""The generated Verilog, read by Verilator's lint and by Icarus Verilog."""

from collections import Counter
from collections.abc import Callable
from functools import cache

import pytest

pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")

from cocotb_tests.lint import WAIVED, has_icarus, icarus, not_waived, verilator_lint
from predictor.st_moe.parameters import EngineLimits
from rtl.generate import table_engine_verilog
from rtl.prefetch.dma.dma import Dma
from rtl.synthesis.units import UNITS, Unit
from rtl.verilog import to_verilog
from staging.transfer.limits import TransferLimits
from tests.rtl.prefetch.register_bench import Registers

SMALL = EngineLimits(experts_max=16, layers_max=6, top_k_max=3, candidates_max=5, slots_max=3, domains_max=2)
NAMES = [name for name, unit in UNITS.items() if isinstance(unit, Unit)]


@cache
def verilog(name: str) -> str:
    """A unit's text; with the default limits where it has any."""
    unit = UNITS[name]
    assert isinstance(unit, Unit)
    return to_verilog(unit.make(EngineLimits()), name.replace("-", "_"))


@cache
def dma() -> str:
    """The one that moves experts, small."""
    limits = TransferLimits(data_bytes=16, address_bits=20, burst_beats=16, outstanding=4, landing_beats=64)
    return to_verilog(Dma(limits), "dma")


@cache
def lint(name: str) -> Counter[str]:
    return verilator_lint(verilog(name), name.replace("-", "_"))


@pytest.mark.parametrize(
    ("text", "top"),
    [
        (lambda: table_engine_verilog(SMALL), "table_engine"),
        (lambda: to_verilog(Registers(), "registers"), "registers"),
        (dma, "dma"),
    ],
    ids=["engine of tables", "registers", "dma"],
)
def test_lint_finds_nothing_but_what_is_waived(text: Callable[[], str], top: str) -> None:
    found = verilator_lint(text(), top)
    assert not_waived(found) == []
    assert found["PROCASSINIT"] > 0  # it has been read


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("endmodule", "  reg held;\n  always @* if (rst) held = clk;\nendmodule", "LATCH"),
        (".accept(accept),", "", "PINMISSING"),
        ("assign errors =", "assign error =", "IMPLICIT"),
        ("endmodule", "endmodul", "syntax error"),
    ],
)
def test_lint_sees_a_fault(right: str, wrong: str, says: str) -> None:
    text = table_engine_verilog(SMALL)
    assert right in text
    assert any(says in one for one in not_waived(verilator_lint(text.replace(right, wrong, 1), "table_engine")))


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_lint_finds_nothing_in_a_unit_but_what_is_waived(name: str) -> None:
    assert not_waived(lint(name)) == []


@pytest.mark.long
def test_nothing_is_waived_for_nothing() -> None:
    assert set().union(*(lint(name) for name in NAMES), verilator_lint(to_verilog(Registers(), "r"), "r")) >= set(
        WAIVED
    )


@pytest.mark.skipif(not has_icarus(), reason="needs Icarus Verilog (Debian: iverilog)")
def test_icarus_reads_the_engine_and_sees_a_fault() -> None:
    text = table_engine_verilog(SMALL)
    assert icarus(text) == ""
    assert "syntax error" in icarus(text.replace("endmodule", "endmodul", 1))
    assert icarus(to_verilog(Registers(), "registers")) == ""
    assert icarus(dma()) == ""


@pytest.mark.long
@pytest.mark.skipif(not has_icarus(), reason="needs Icarus Verilog (Debian: iverilog)")
@pytest.mark.parametrize("name", NAMES)
def test_icarus_reads_a_unit(name: str) -> None:
    assert icarus(verilog(name)) == ""
