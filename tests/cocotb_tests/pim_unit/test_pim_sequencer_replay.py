"""The sequencer under Verilator issues the twin's commands, on large shapes too; a fault in it shows."""

import re
from functools import partial

import pytest

pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")

from cocotb_tests.pim_unit import sequencer_replay
from cocotb_tests.pim_unit.sequencer_replay import SequencerReplayResult, replay_sequencer, sequencer_verilog
from pim_model.dram.devices import find_device
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import ExpertKind, Program, WeightFormat, expert_program, gemv_program
from rtl.verilog import CHECKS_MACRO
from tests.verilog_faults import Fault, plant

BF16, INT8, MXFP4 = WeightFormat
SWIGLU, GPT_OSS = ExpertKind.SWIGLU, ExpertKind.GPT_OSS
HBM2_PIM = UnitParameters(device=find_device("HBM2-PIM"))


def same(program: Program, parameters: UnitParameters = HBM2_PIM, *, refresh: bool, start_cycle: int = 100) -> None:
    result = replay_sequencer(program, parameters, refresh=refresh, start_cycle=start_cycle)
    assert not result.violations, [str(violation) for violation in result.violations[:3]]
    assert not result.mismatches, result.first_mismatch
    assert result.cycles == result.predicted_cycles
    assert result.commands > 0


# Rows, inputs, format, tokens; names of the model whose matrix it is.
SHAPES = {
    "gpt-oss-20b gate or up, down": (2880, 2880, MXFP4, 1),
    "gpt-oss-20b in BF16": (2880, 2880, BF16, 2),
    "Qwen3-30B down": (2048, 768, BF16, 1),
    "Qwen3-30B gate or up": (768, 2048, BF16, 4),
    "Qwen3-30B down in INT8": (2048, 768, INT8, 2),
    "Qwen3-30B gate or up in MXFP4": (768, 2048, MXFP4, 1),
    "DeepSeek-V2-Lite down": (2048, 1408, BF16, 1),
    "DeepSeek-V2-Lite gate or up": (1408, 2048, INT8, 1),
    "odd": (1001, 333, BF16, 3),
    "odd, INT8": (999, 1027, INT8, 2),
    "odd, MXFP4": (517, 1111, MXFP4, 1),
    "one row": (1, 4096, BF16, 1),
    "one input": (4095, 1, INT8, 1),
    "one weight": (1, 1, MXFP4, 1),
}


@pytest.mark.parametrize("refresh", [False, True], ids=["", "refresh"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[] if n in ("one weight", "one row", "odd, MXFP4") else pytest.mark.long, id=n)
        for n in SHAPES
    ],
)
def test_a_matrix(name: str, refresh: bool) -> None:
    rows, inputs, weight_format, tokens = SHAPES[name]
    program = gemv_program(HBM2_PIM, rows, inputs, weight_format, tokens=tokens, bias=rows % 2 == 1)
    same(program, refresh=refresh, start_cycle=3000)


EXPERTS = {
    "Qwen3-30B": (2048, 768, BF16, SWIGLU, 1),
    "Qwen3-30B in INT8": (2048, 768, INT8, SWIGLU, 2),
    "gpt-oss-20b": (2880, 2880, MXFP4, GPT_OSS, 1),
    "DeepSeek-V2-Lite, four tokens": (2048, 1408, BF16, SWIGLU, 4),
}


@pytest.mark.long
@pytest.mark.parametrize("refresh", [False, True], ids=["", "refresh"])
@pytest.mark.parametrize("name", EXPERTS)
def test_an_expert(name: str, refresh: bool) -> None:
    hidden, intermediate, weight_format, kind, tokens = EXPERTS[name]
    bias = kind is GPT_OSS
    program = expert_program(
        HBM2_PIM, hidden, intermediate, weight_format, kind, tokens=tokens, gate_up_bias=bias, down_bias=bias
    )
    same(program, refresh=refresh)


@pytest.mark.long
@pytest.mark.parametrize("phase", [0, 1])
@pytest.mark.parametrize("device", ["HBM2-PIM", "HBM3", "HBM4"])
def test_shared_buses(device: str, phase: int) -> None:
    parameters = UnitParameters(device=find_device(device), bus_phases=2, phase=phase)
    same(expert_program(parameters, 512, 384, INT8, SWIGLU, tokens=2), parameters, refresh=True)


# Every distance that the sequencer keeps by a timer, one clock shorter, and the constraint that this breaks.
EARLY = "{} | (left == 2)"
DISTANCES = {
    "row_engine.act_to_act0": "tRRD_S",
    "row_engine.act_to_close0": "tRAS, all banks",
    "row_engine.act_to_pim0": "tRCD",
    "row_engine.close_to_act1": "tRP",
    "row_engine.pim_to_close0": "tRTP",
    "column_engine.interval": "PIM interval",
    "column_engine.readback_to_load": "RDA to LDI",
    "column_engine.readback_to_readback": "RDA interval",
    "refresh.timer": "tRFC",
}
FAULTS = [
    *(Fault(rule, module.replace(".", r"\."), "elapsed <=", EARLY) for module, rule in DISTANCES.items()),
    Fault("LDI interval", r"column_engine\.load_to_load", "elapsed <=", "1"),
    Fault("refresh pending", "", ".stopped", "1'b0"),
    Fault("column order", "row_engine", "command <=", "{} ^ (1 << 7)"),
    Fault("load order", "", "column <=", "{} ^ (1 << 12)"),
    Fault("readback order", "", "column <=", "{} ^ (1 << 9)"),
    Fault("refresh overdue", "", ".enable", "1'b0"),
]
OFTEN = UnitParameters(device=find_device("HBM2-PIM", {"trefi_ck": 531, "trfc_ck": 100}), max_inputs=1024)
"""Refreshed so often that every state of the banks meets one."""


def faulty_run(monkeypatch: pytest.MonkeyPatch, number: int) -> SequencerReplayResult:
    """An expert through a sequencer with one of the faults; the others are in the text, but off."""
    # Without the circuit's own checks, some of which would stop the run before.
    checks = re.compile(rf"^`ifdef {CHECKS_MACRO}\n.*?^`endif\n", re.MULTILINE | re.DOTALL)
    text = plant(checks.sub("", sequencer_verilog(OFTEN)), FAULTS)
    monkeypatch.setattr(sequencer_replay, "sequencer_verilog", lambda _: text)
    with_fault = partial(sequencer_replay.run_simulation, plusargs=[f"+fault={number}"])
    monkeypatch.setattr(sequencer_replay, "run_simulation", with_fault)
    program = expert_program(OFTEN, 96, 300, INT8, SWIGLU, tokens=2, gate_up_bias=True)
    # Some refresh comes just after a half was opened.
    return replay_sequencer(program, OFTEN, refresh=True, start_cycle=60)


def test_switched_off_faults_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    result = faulty_run(monkeypatch, 0)
    assert not result.mismatches, result.first_mismatch
    assert not result.violations


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(n, id=fault.shows, marks=[] if n % 4 == 1 else pytest.mark.long)
        for n, fault in enumerate(FAULTS, 1)
    ],
)
def test_a_distance_that_is_a_clock_short_is_a_mismatch_and_a_violation(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    result = faulty_run(monkeypatch, number)
    assert result.mismatches
    assert FAULTS[number - 1].shows in {violation.rule for violation in result.violations}
