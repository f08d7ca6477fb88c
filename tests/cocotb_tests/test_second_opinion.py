"""The hardware's ports under bus models that nobody here wrote."""

import re
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")
pytest.importorskip("cocotbext.axi", reason="needs cocotbext-axi, of the extra 'dev'")

from cocotb_tests.build import BuildOptions, build
from cocotb_tests.lint import WAIVED
from cocotb_tests.simulation import run
from predictor.st_moe.parameters import EngineLimits
from rtl.generate import table_engine_verilog
from rtl.prefetch.dma.dma import Dma
from rtl.prefetch.dma.layouts import descriptor_layout
from rtl.verilog import to_verilog
from staging.transfer.limits import TransferLimits
from tests.rtl.prefetch.register_bench import LIMITS, Registers

pytestmark = pytest.mark.long
TABLES = EngineLimits(experts_max=16, layers_max=6, top_k_max=3, candidates_max=5, slots_max=3, domains_max=2)


def control_port(verilog: str, top: str, *, transfers: int = 800, **stimulus: Any) -> dict[str, Any]:
    values = {"transfers": transfers, "seed": 5, **stimulus}
    model = build(verilog, top, BuildOptions(lint_off=WAIVED))
    return run(model, "cocotb_tests.second_opinion.control_port_test", stimulus=values, seed=5).values


def registers(text: str, waits: bool) -> dict[str, Any]:
    limits = LIMITS.model_dump(mode="json")
    quiet = ["busy", "host_ready"]
    return control_port(text, "registers", map="engine", limits=limits, prefix="bus", waits=waits, quiet=quiet)


@pytest.mark.parametrize("waits", [False, True])
def test_the_engines_registers(waits: bool) -> None:
    result = registers(to_verilog(Registers(), "registers"), waits)
    assert result["differences"] == []
    assert result["transfers"] >= 800
    assert result["refused"] > 80


def tables(text: str, *, waits: bool, transfers: int = 800) -> dict[str, Any]:
    return control_port(
        text,
        "table_engine",
        transfers=transfers,
        map="tables",
        limits=TABLES.model_dump(),
        prefix="control",
        waits=waits,
        quiet=["events__valid", "requests__ready"],
    )


@pytest.mark.parametrize("waits", [False, True])
def test_the_control_port_of_the_engine_of_tables(waits: bool) -> None:
    result = tables(table_engine_verilog(TABLES), waits=waits)
    assert result["differences"] == []
    assert result["refused"] > 80


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        (".bus__wstrb(control__wstrb)", ".bus__wstrb(4'hf)", "write of .. to part of"),
        (".bus__wdata(control__wdata)", ".bus__wdata(control__wdata ^ 32'h100)", "read of the table"),
        (".bus__araddr(control__araddr)", ".bus__araddr(control__araddr & ~4)", "read of register at"),
    ],
)
def test_a_fault_of_the_control_port_is_seen(right: str, wrong: str, says: str) -> None:
    text = table_engine_verilog(TABLES)
    assert right in text
    result = tables(text.replace(right, wrong), waits=False, transfers=400)
    assert any(re.search(says.replace("..", r"\w+"), one) for one in result["differences"]), result["differences"]


def dma(*, waits: bool, seed: int, outstanding: int = 4, right: str = "", wrong: str = "") -> dict[str, Any]:
    """Forty descriptors of any alignment and up to three pages, behind each other in the staging memory with gaps."""
    limits = TransferLimits(data_bytes=16, address_bits=20, burst_beats=16, outstanding=4, landing_beats=128)
    generator = np.random.default_rng(seed)
    rows, place = [], int(generator.integers(0, 64))
    for _ in range(40):
        length = int(generator.choice([1, 2, 15, 16, 17, 64, int(generator.integers(1, 4000))]))
        rows.append((int(generator.integers(0, (1 << 17) - length)), place, length))
        place += length + int(generator.integers(0, 40))
    assert place < 1 << 17
    layout = descriptor_layout(limits)
    text = to_verilog(Dma(limits), "dma")
    assert right in text
    return run(
        build(text.replace(right, wrong), "dma", BuildOptions(lint_off=WAIVED)),
        "cocotb_tests.second_opinion.memory_ports_test",
        stimulus={
            "descriptors": np.array(rows, np.int64),
            "places": {name: field.offset for name, field in layout},
            "waits": waits,
            "seed": seed,
            "outstanding": outstanding,
        },
        seed=seed,
    ).values


@pytest.mark.parametrize(("waits", "outstanding"), [(False, 4), (True, 4), (True, 1)])
def test_the_memory_ports_of_the_dma(waits: bool, outstanding: int) -> None:
    result = dma(waits=waits, seed=6 + waits, outstanding=outstanding)
    assert result["ends"] == [0] * 40
    assert result["different"] == 0
    assert result["bytes"] > 5_000


def test_a_fault_of_the_dma_is_seen() -> None:
    right = "assign staging__wstrb = beats__payload[143:128];"
    result = dma(waits=False, seed=6, right=right, wrong=right.replace("beats", "~16'h8 & beats"))
    assert result["different"] > 100
