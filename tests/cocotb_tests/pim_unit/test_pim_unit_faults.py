"""Faults planted in the PIM unit's Verilog: each is seen by the comparison that is there for it."""

import re
from functools import partial

import pytest

pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")

from cocotb_tests.pim_unit import replay
from cocotb_tests.pim_unit.replay import UnitReplayResult, replay_unit
from rtl.generate import pim_unit_verilog
from rtl.verilog import CHECKS_MACRO
from tests.cocotb_tests.pim_unit.unit_jobs import HBM2_PIM, odd
from tests.verilog_faults import Fault, plant

pytestmark = pytest.mark.long  # the text with the faults is a build of its own

FAULTS = [
    Fault("program 0, output beat", "block5", ".column_data", "{} ^ (256'd1 << 9)"),
    Fault("program 0, output beat", "block2", ".load", "{} ^ (261'd1 << 20)"),
    Fault("program 0, output beat", "epilogue", "even_y <=", "{} ^ 32'd1"),
    Fault("program 0, output beat", "queue", "offered <=", "{} & ~(73'd1 << 72)"),
    Fault("program 0, status", "registers", "errors <=", "{} | 2"),
    Fault("counter PROGRAMS", r"counters", "values <=", "{} + (fault_phase == 0 && {} != 0)"),
    Fault("cycle", "queue", "stream__tvalid <=", "{} & (fault_phase != 0)", waits=True),
    Fault("command", r"column_engine\.interval", "elapsed <=", "{} | (left == 2)"),
]


def faulty_run(monkeypatch: pytest.MonkeyPatch, number: int) -> UnitReplayResult:
    """A matrix through the unit with one of the faults; the circuit's own checks are out, as some would stop it."""
    checks = re.compile(rf"^`ifdef {CHECKS_MACRO}\n.*?^`endif\n", re.MULTILINE | re.DOTALL)
    text = plant(checks.sub("", pim_unit_verilog(HBM2_PIM)), FAULTS)
    monkeypatch.setattr(replay, "pim_unit_verilog", lambda _: text)
    with_fault = partial(replay.run_simulation, plusargs=[f"+fault={number}"])
    monkeypatch.setattr(replay, "run_simulation", with_fault)
    return replay_unit([odd()[1]], HBM2_PIM, waits=number > 0 and FAULTS[number - 1].waits)


def test_switched_off_faults_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    result = faulty_run(monkeypatch, 0)
    assert not result.mismatches, result.first_mismatch
    assert not result.violations


@pytest.mark.parametrize("number", range(1, len(FAULTS) + 1))
def test_a_fault_is_seen(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    result = faulty_run(monkeypatch, number)
    assert result.mismatches
    assert result.first_mismatch.startswith(FAULTS[number - 1].shows)
    if FAULTS[number - 1].shows == "command":
        assert "PIM interval" in {violation.rule for violation in result.violations}
