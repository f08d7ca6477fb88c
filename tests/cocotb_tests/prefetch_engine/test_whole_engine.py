"""The whole engine under Verilator, small, in lock-step with its twin: modes, several sequences, waits, faults."""

from typing import Any

import numpy as np
import pytest

from cocotb_tests.models.files import CUT, LAST, RESPONSE, WRITE, Fault
from cocotb_tests.prefetch_engine.replay import EngineReplayResult, replay_engine
from predictor.engine.events import EngineError, EventArrays, Gate, Release, Token, event_arrays
from predictor.engine.settings import LinkSettings, Missing, Mode, PrefetchEngineSettings
from tests.cocotb_tests.prefetch_engine.small_engines import SMALL, TOP_K, Model, replay_of, skip_without_tools

pytestmark = pytest.mark.long  # its build takes a minute or more

MODEL = Model()


@pytest.fixture(autouse=True, scope="module")
def _tools() -> None:
    skip_without_tools()


def run(chosen: PrefetchEngineSettings, events: EventArrays, **changes: Any) -> EngineReplayResult:
    """As ``replay_of``."""
    return replay_engine(replay_of(settings=chosen, events=events, **changes))


def check(result: EngineReplayResult) -> None:
    """No difference, and something was looked at."""
    assert result.mismatches == 0, result.first_mismatch
    assert result.compared["command (cycle, kind, layer, experts, chances, deadline, option)"] == result.commands > 0
    assert result.compared["bytes"] > 0


@pytest.mark.parametrize(("slots", "waits"), [(1, 0), (2, 0), (2, 100)])
def test_demands_are_moved_without_a_predictor(slots: int, waits: int) -> None:
    result = run(MODEL.settings(Mode.OFF), MODEL.random_events(60, slots), waits=waits)
    check(result)
    assert result.counters["bytes"] == 1024 * result.counters["waits"]


@pytest.mark.parametrize(("slots", "waits", "chunk_bytes"), [(1, 0, 1 << 16), (2, 0, 128), (2, 100, 128)])
def test_tables_predict(slots: int, waits: int, chunk_bytes: int) -> None:
    chosen = MODEL.settings(Mode.TABLES, link=LinkSettings(chunk_bytes=chunk_bytes))
    result = run(chosen, MODEL.random_events(100, slots), waits=waits, tables=MODEL.tables(SMALL))
    check(result)
    assert result.counters["predictions"] > 50
    assert result.counters["updates"] > 50


@pytest.mark.parametrize(
    ("slots", "waits", "distance", "plain"),
    [(1, 0, 1, True), (2, 0, 2, True), (1, 0, 1, False), (2, 0, 1, False), (2, 100, 1, False)],
)
def test_nets_predict(slots: int, waits: int, distance: int, plain: bool) -> None:
    """Without text and identities cycle by cycle; with them in the hardware's order."""
    result = replay_engine(replay_of(**MODEL.learned(slots=slots, distance=distance, plain=plain), waits=waits))
    check(result)
    assert result.counters["predictions"] >= result.counters["values"] > 20


FAULTS: dict[str, tuple[dict[str, list[Fault]], EngineError]] = {
    "a read is refused": (
        {"far": [Fault(RESPONSE, burst, 3, 2) for burst in (3, *range(10, 17), 30)]},
        EngineError.READ | EngineError.GAVE_UP,
    ),
    "a beat says that it is the last": ({"far": [Fault(LAST, 5, 2)]}, EngineError.LAST),
    "beats are missing": ({"far": [Fault(CUT, 5, 2)]}, EngineError.LAST),
    "a write is refused": ({"staging": [Fault(WRITE, burst, 0, 2) for burst in (4, 9, 20)]}, EngineError.WRITE),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_is_told_and_the_demand_tried_again(what: str) -> None:
    faults, errors = FAULTS[what]
    result = run(MODEL.settings(Mode.OFF), MODEL.random_events(20, 2), faults=faults)
    check(result)
    assert EngineError(result.errors) == errors
    assert result.counters["retried"] + result.counters["failed"] == len(next(iter(faults.values())))


def test_what_is_missing_is_computed_elsewhere() -> None:
    preloaded = tuple((layer, expert, False) for layer in range(MODEL.layers) for expert in range(3))
    result = run(MODEL.settings(Mode.OFF, missing=Missing.ELSEWHERE), MODEL.random_events(20, 2), preloaded=preloaded)
    assert result.mismatches == 0, result.first_mismatch
    assert result.counters["elsewhere"] > result.counters["waits"] == 0


def test_a_bad_event_is_refused_and_the_engine_goes_on() -> None:
    events = MODEL.random_list(12, 1)
    bad = np.zeros(len(events) + 3, np.bool_)
    events.insert(2, Gate(0, 3, (0, 1)))
    events.insert(8, Release(0, 0))
    events.insert(20, Token(0))
    bad[[2, 8, 20]] = True
    result = run(MODEL.settings(Mode.OFF), event_arrays(events, TOP_K), bad=bad)
    check(result)
    assert EngineError(result.errors) == EngineError.ORDER
    assert result.counters["rejected"] == 3
