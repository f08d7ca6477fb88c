"""Faults in the prefetch engine's Verilog: each check inside, and the comparison with the twin, sees its own."""

from functools import partial
from typing import Any

import pytest

from tests.st_moe_samples import routing_trace
from tests.verilog_faults import Fault, plant, some

pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")

from cocotb_tests import lock_step
from cocotb_tests.simulation import SimulationError
from predictor.st_moe.events import RoutingEvent, routing_events
from predictor.st_moe.parameters import EngineLimits
from predictor.st_moe.predictor import StMoePredictor
from rtl.generate import table_engine_verilog

# Six layers in three bits and three slots in two, so that there are layers, rows and slots that do not exist.
LIMITS = EngineLimits(experts_max=16, layers_max=6, top_k_max=3, candidates_max=5, slots_max=3)
TRACE = routing_trace(experts=16, layers=6, top_k=3, lengths=(8, 6), seed=8)
EVENTS = [
    *routing_events(TRACE),
    RoutingEvent(7, (1, 2, 3), starts_token=True),
    RoutingEvent(0, (1, 2, 3), slot=3),
]

ENGINE_CHECKS = [
    Fault("requests: withdrawn before it was taken", "issuer", "assign available =", "{} & (fault_phase != 0)",
          waits=True),
    Fault("requests: changed before it was taken", "issuer", "level4_0 <=", "{} ^ (fault_phase[0] << 4)", waits=True),
    Fault("requests: an expert or a layer that the model has not", "history", "assign target_layer =",
          "fault_phase == 7 ? 7 : {}"),
    Fault("history: a layer of slot 0 is of this token and not of its sequence", "history", "in_token0 <=", "6'h3f"),
    Fault("history: a layer is written that does not exist", "predictor", ".write", "check & event_errors[0]"),
    Fault("history: a slot is written that does not exist", "predictor", ".write", "check & event_errors[3]"),
    Fault("issuer: a request overtakes a better one", "issuer", "level4_0 <=", "{} & ~(15 << 4)"),
    Fault("issuer: more requests are allowed than there are experts", "issuer", "remaining <=", "31"),
    Fault("issuer: the tree fills for longer than it is deep", "issuer", "to_fill <=", "7"),
    Fault("registers: lookahead out of range", "registers", "settings__lookahead <=", "0"),
    Fault("registers: issue_limit out of range", "registers", "settings__issue_limit <=", "17"),
    Fault("top_k: changed while it must hold still", "registers", "settings__top_k <=", "fault_phase[0] ? 2 : 3"),
    Fault("registers: an answer to no access", "registers", "registers__done =", "1'b1"),
    Fault("scorer: a sum overflows its score", "scorer", "sum0 <=", "15"),
    Fault("sequencer: not in one state", "sequencer", "fsm_state <=", "7"),
    Fault("sequencer: a row is read beyond the event's experts", "sequencer", "index <=", "3"),
    Fault("sequencer: a prediction ends that did not begin", "predictor", ".predict_finishing", "1'b1"),
    Fault("sequencer: a verification ends that did not begin", "predictor", ".verify_finishing", "1'b1"),
    Fault("bus: not in one state", "slave", "fsm_state <=", "7"),
    Fault("bus_b: withdrawn before it was taken", "slave", "bus__bvalid =", "{} & ~bus_b_waits", waits=True),
    Fault("bus_b: changed before it was taken", "slave", "bus__bresp <=", "bus__bvalid & ~bus__bready ? ~{} : {}",
          waits=True),
    Fault("bus_r: withdrawn before it was taken", "slave", "bus__rvalid =", "{} & ~bus_r_waits", waits=True),
    Fault("bus_r: changed before it was taken", "slave", "bus__rdata <=", "bus__rvalid & ~bus__rready ? ~{} : {}",
          waits=True),
    Fault("bus: a register is read and written at once", "slave", "registers__read =", "1'b1"),
    Fault("tables: a row is read that does not exist", "predictor", ".read_address", "127"),
    Fault("tables: a row is written that does not exist", "tables", "write__addr =", "127"),
    Fault("updater: an entry takes two experts", "updater", "assign taken0[1] =", "1'b1"),
    Fault("updater: two entries take the event's expert 0", "updater", "assign taken1[0] =", "taken0[0]"),
    Fault("updater: an entry neither hits nor misses", "updater", "hits <=", "{} + 1"),
]  # fmt: skip

ENGINE_DIFFERENCES = [
    Fault("request", "predictor", "assign requests__payload[6:3] =", "{} ^ 1"),
    Fault("update (address, row)", "updater", "write__row <=", "{} ^ (1 << 4)"),
    Fault("cycles", "predictor", ".verify_finishing", "verified[1]"),
    Fault("counter events", "counters", "values <=", "{} + (fault_phase == 0 && {} != 0)"),
    Fault("read-back of row", "tables", "assign window__read_data =", "{} ^ 1"),
]


def engine_run(monkeypatch: pytest.MonkeyPatch, faults: list[Fault], number: int) -> Any:
    """Lock-step with one of the faults; the other faults are in the text, but off."""
    text = plant(table_engine_verilog(LIMITS), faults)
    monkeypatch.setattr(lock_step, "table_engine_verilog", lambda _: text)
    monkeypatch.setattr(lock_step, "run", partial(lock_step.run, plusargs=[f"+fault={number}"]))
    tables = StMoePredictor.fit(TRACE, aggregation="sum", threshold=1).tables(LIMITS)
    return lock_step.run_lock_step(tables, EVENTS, waits=number > 0 and faults[number - 1].waits)


def test_switched_off_faults_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    result = engine_run(monkeypatch, ENGINE_CHECKS, 0)
    assert result.mismatches == 0, result.first_mismatch
    assert result.counters["rejected"] == 2


@pytest.mark.parametrize("number", some(ENGINE_CHECKS, 9))
def test_a_check_of_the_engine_stops_the_run(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    with pytest.raises(SimulationError) as raised:
        engine_run(monkeypatch, ENGINE_CHECKS, number)
    assert str(raised.value).startswith(f"a check of the circuit failed, {ENGINE_CHECKS[number - 1].shows}: ")


@pytest.mark.parametrize("number", some(ENGINE_DIFFERENCES, 2))
def test_a_fault_that_breaks_no_check_is_a_difference(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    result = engine_run(monkeypatch, ENGINE_DIFFERENCES, number)
    assert result.mismatches > 0
    assert ENGINE_DIFFERENCES[number - 1].shows in result.first_mismatch
    assert "twin" in result.first_mismatch
