"""Faults in a small PIM unit's Verilog: its own checks, the twins and the rules of the bus each notice theirs."""

from functools import partial

import numpy as np
import pytest

from tests.verilog_faults import Fault, plant, some

pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")

from cocotb_tests.pim_unit import replay
from cocotb_tests.pim_unit.jobs import UnitJob
from cocotb_tests.pim_unit.replay import UnitReplayResult, replay_unit
from cocotb_tests.simulation import SimulationError
from pim_model.dram.devices import find_device
from pim_model.numerics.expert import Expert
from pim_model.numerics.floats import bf16_from_float
from pim_model.numerics.formats import MATRICES
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import ExpertKind, WeightFormat
from rtl.generate import pim_unit_verilog

HBM2_PIM = find_device("HBM2-PIM")
assert HBM2_PIM.pim is not None
TWO_BLOCKS = UnitParameters(
    device=HBM2_PIM.model_copy(
        update={
            "bank_groups": 2,
            "banks_per_group": 2,
            "pim": HBM2_PIM.pim.model_copy(update={"blocks": 2}),
            "trfc_ck": 100,
            "trefi_ck": 400,  # several refreshes in a short program
        }
    ),
    max_inputs=64,
    output_beats=128,  # with fewer the output waits, and commands have no certain clocks
    bank_rows=64,
)
"""A small unit, quickly built and simulated."""

CHECKS = [
    Fault("timer: its flag is not its counter's", "row_engine.act_to_pim0", "elapsed <=", "1'b1"),
    Fault("column engine: more loaded registers than there are", "column_engine", "loaded <=", "31"),
    Fault("output queue: room that is counted wrong", "queue", "free <=", "31"),
    Fault("program control: not in one state", "program_control", "fsm_state <=", "15"),
    Fault("row engine: banks are open that it does not know of, or the reverse", "row_engine", "banks0 <=", "{} ^ 1"),
    Fault("bus: not in one state", "slave", "fsm_state <=", "7"),
]

DIFFERENCES = [
    Fault("output beat", "pim_fp32_adder", "result <=", "{} ^ (1 << 24)"),
    Fault("output beat", "pim_lane_multiplier", "product <=", "{} ^ (1 << 24)"),
    Fault("output beat", "even_plus_bias", "result <=", "{} ^ 1"),
    Fault("output beat", "epilogue.activation", "result <=", "{} ^ (1 << 15)"),
    Fault("output beat", "even_to_fp32", "result <=", "{} ^ (1 << 22)"),
    Fault("output beat", "maximum0_0", "greatest <=", "0"),
    Fault("output beat", "pim_bank_block", "scales <=", "{} ^ 1"),
    Fault("output beat", "queue", "offered <=", "{} ^ (1 << 71)"),
    Fault("command", "sequencer.refresh", "comes <=", "1'b0"),
    Fault("command", "sequencer.columns", "address <=", "{} ^ 16"),
    Fault("counter", "counters", "values <=", "{} + (fault_phase == 0 && {} != 0)"),
    Fault("status", "registers", "errors <=", "{} | 8"),
]

BROKEN_RULES = [
    Fault("refresh overdue", "sequencer.refresh", "comes <=", "1'b0"),
]


def jobs() -> list[UnitJob]:
    """A small expert of each format, gpt-oss's with biases."""
    generator = np.random.default_rng(8)
    found: list[UnitJob] = []
    for weight_format in WeightFormat:
        of = MATRICES[weight_format].of
        gate, up, down = (of(generator.normal(0, 0.3, shape)) for shape in ((13, 20), (13, 20), (20, 13)))
        biases = (generator.normal(size=rows).astype(np.float32) for rows in (13, 13, 20))
        with_bias = dict(zip(("gate_bias", "up_bias", "down_bias"), biases, strict=True))
        expert = Expert.of(ExpertKind.GPT_OSS, gate, up, down, **with_bias)
        x = bf16_from_float(generator.normal(size=(weight_format.most_tokens, 20)).astype(np.float32))
        found.append(UnitJob.of_expert(TWO_BLOCKS, expert, x, base_row=8 * len(found)))
    return found


FAULTS = [*CHECKS, *DIFFERENCES, *BROKEN_RULES]


def run(monkeypatch: pytest.MonkeyPatch, number: int) -> UnitReplayResult:
    """The small experts with one of ``FAULTS``, from 1; the others are in the text, but off. 0: none."""
    text = plant(pim_unit_verilog(TWO_BLOCKS), FAULTS)
    monkeypatch.setattr(replay, "pim_unit_verilog", lambda _: text)
    monkeypatch.setattr(replay, "run_simulation", partial(replay.run_simulation, plusargs=[f"+fault={number}"]))
    return replay_unit(jobs(), TWO_BLOCKS, refresh=True)


def test_switched_off_faults_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, 0)
    assert not result.mismatches, result.first_mismatch
    assert not result.violations, str(result.violations[0])


@pytest.mark.parametrize("number", some(CHECKS, 4))
def test_a_check_of_the_unit_stops_the_run(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    with pytest.raises(SimulationError) as raised:
        run(monkeypatch, number)
    assert str(raised.value).startswith(f"a check of the circuit failed, {CHECKS[number - 1].shows}: ")


@pytest.mark.parametrize("number", some(DIFFERENCES, 6))
def test_a_fault_that_breaks_no_check_is_a_difference(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    result = run(monkeypatch, len(CHECKS) + number)
    assert result.mismatches
    assert DIFFERENCES[number - 1].shows in result.first_mismatch
    assert "twin" in result.first_mismatch


@pytest.mark.parametrize("number", some(BROKEN_RULES, 1))
def test_a_broken_rule_of_the_device_is_named(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    result = run(monkeypatch, len(CHECKS) + len(DIFFERENCES) + number)
    assert BROKEN_RULES[number - 1].shows in {violation.rule for violation in result.violations}
