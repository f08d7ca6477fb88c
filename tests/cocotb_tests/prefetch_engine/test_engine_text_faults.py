"""Reads and writes of the port ``text`` that are refused, on the whole engine: told, and what follows is what must."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cocotb_tests.models.files import RESPONSE, WRITE, Fault
from cocotb_tests.prefetch_engine.learned_memory import learned_memory
from cocotb_tests.prefetch_engine.replay import replay_engine
from cocotb_tests.prefetch_engine.run import IMAGE_FAULT_SCRIPT, Run, run_in_turn
from predictor.engine.counters import EngineCounter
from predictor.engine.events import NO_ROW, EngineError, EventKind, Gate, Token
from predictor.engine.notices import NoticeKind
from predictor.row_network.text_traffic import TextTraffic
from rtl.prefetch.limits import text_limits
from staging.transfer.timing import MemoryTiming
from tests.cocotb_tests.prefetch_engine.small_engines import SMALL, Model, replay_of, skip_without_tools

pytestmark = pytest.mark.long  # its build takes a minute or more; it is that of ``test_whole_engine``

MODEL = Model()
SLVERR, DECERR = 2, 3
REFUSED = {9: SLVERR, 60: DECERR}
"""By the number of the write burst."""


@pytest.fixture(autouse=True, scope="module")
def _tools() -> None:
    skip_without_tools()


def without_text(of: dict[str, Any]) -> NDArray[np.bool_]:
    """Which TOKENs find their slot's text off, by the twin of the memory of the text."""
    events, memory = of["events"], learned_memory(SMALL, of["settings"], of["networks"])
    rows = of["networks"]["next-layer"].tables.identity_rows
    traffic = TextTraffic(text_limits(SMALL), memory.text, rows)
    written = 0

    def refuses(_: int) -> bool:
        nonlocal written
        written += 1
        return written - 1 in REFUSED

    traffic.write_fails = refuses
    off = np.zeros(events.size, np.bool_)
    for nth, event in enumerate(events.events()):
        if isinstance(event, Token):
            row = NO_ROW if event.row is None else event.row
            work = traffic.token(event.slot, starts=event.starts_sequence, identity=event.identity, row=row)
            off[nth] = not any(work.keys)
        elif isinstance(event, Gate):
            traffic.gate(event.slot, event.layer, event.experts)
    assert written > max(REFUSED)
    return off


def test_after_a_refused_write_a_slot_has_no_text_until_its_next_sequence() -> None:
    """A token without identity looks nothing up, and nothing finds it: so the twin hears of those."""
    of = MODEL.learned(MODEL.trace(lengths=(20, 18, 22, 16, 20, 18), unrecorded=0.0))
    events, off = of["events"], without_text(of)
    tokens = events.kind == EventKind.TOKEN
    starts = events.starts_sequence & tokens
    assert off.sum() > 10, "few tokens are without text"
    last_off = np.flatnonzero(off)[-1]
    assert (starts[last_off:]).any(), "no sequence begins after the last of them"
    heard = events._replace(known=events.known & ~off, identity=np.where(off, 0, events.identity).astype(np.uint32))
    faults = {"text": [Fault(WRITE, burst, 0, response) for burst, response in REFUSED.items()]}
    result = replay_engine(replay_of(**of, heard=heard, faults=faults))
    assert result.mismatches == 0, result.first_mismatch
    assert result.compared["scores"] > 1000
    assert EngineError(result.errors) == EngineError.TEXT


def test_an_image_that_cannot_be_read_is_not_loaded_and_told() -> None:
    faults = {"text": [Fault(RESPONSE, burst, 0, SLVERR + burst % 2) for burst in (0, 9)]}
    result = replay_engine(replay_of(**MODEL.learned(), faults=faults, script=IMAGE_FAULT_SCRIPT))
    assert result.mismatches == 0, result.first_mismatch
    assert result.counters["predictions"] > 20
    assert result.errors == 0


def test_texts_that_cannot_be_read_are_told_and_every_gate_is_served() -> None:
    """What is predicted is then another; what the twin says without faults is not compared."""
    of = MODEL.learned()
    events = of["events"]
    loading = 60  # bursts of the images, and more
    run = Run(
        settings=of["settings"],
        events=events,
        times=of["times"],
        learned=learned_memory(SMALL, of["settings"], of["networks"]),
        faults={"text": [Fault(RESPONSE, burst, 0, 2 + burst % 2) for burst in range(loading, 1000, 3)]},
    )
    (done,) = run_in_turn(SMALL, [run], memory=MemoryTiming(latency=20))
    assert done.errors == EngineError.TEXT
    assert done.breaches == 0
    gates = int((events.kind == EventKind.GATE).sum())
    assert done.counters[EngineCounter.GATES] == gates
    ready = (done.logs["notices"].fields()["kind"] == NoticeKind.READY).sum()
    assert ready == gates
