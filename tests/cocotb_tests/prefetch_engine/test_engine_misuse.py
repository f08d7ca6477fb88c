"""Software that does everything wrong, and a memory of the text that fails: it is told, and the engine goes on."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from catalog.errors import ForestageError
from cocotb_tests.build import require_tools
from cocotb_tests.models.files import RESPONSE, Fault
from cocotb_tests.prefetch_engine import coverage, misuse_test
from cocotb_tests.prefetch_engine.learned_memory import LearnedMemory, learned_memory
from cocotb_tests.prefetch_engine.replay import EngineReplayResult
from cocotb_tests.prefetch_engine.run import run_engine
from predictor.engine.counters import EngineCounter
from predictor.engine.environment import LayerTimes
from predictor.engine.events import EngineError, EventKind, trace_events
from predictor.engine.limits import BEAT_BYTES
from predictor.engine.notices import NoticeKind
from predictor.engine.settings import Mode
from staging.transfer.timing import MemoryTiming
from tests.cocotb_tests.prefetch_engine.test_whole_engine import (
    EXPERTS,
    LAYERS,
    LIMITS,
    TOP_K,
    check,
    random_events,
    run,
    settings,
)
from tests.learned_samples import identified_trace, random_next_use, random_predictor

pytestmark = pytest.mark.long  # its build takes a minute or more; it is that of ``test_whole_engine``

SHAPE: dict[str, Any] = {"layers": LAYERS, "experts": EXPERTS, "top_k": TOP_K}


@pytest.fixture(autouse=True, scope="module")
def _tools() -> None:
    try:
        require_tools()
    except ForestageError as error:
        pytest.skip(str(error))


def networks() -> dict[str, Any]:
    """Random ones, with identities and texts."""
    return {
        "next-layer": random_predictor(**SHAPE).network,
        "next-use": random_next_use(np.random.default_rng(0), ranked=True, **SHAPE).network,
    }


def with_a_bad_copy(memory: LearnedMemory) -> LearnedMemory:
    """Elsewhere, the first section with another last bit."""
    begin = memory.sections[0]
    size = BEAT_BYTES
    while begin + size in memory.words and begin + size not in memory.sections:
        size += BEAT_BYTES
    copy = {misuse_test.SPOILED + at: memory.words[begin + at] for at in range(0, size, BEAT_BYTES)}
    last = misuse_test.SPOILED + size - BEAT_BYTES
    copy[last] = copy[last][:-1] + bytes([copy[last][-1] ^ 1])
    return replace(memory, words={**memory.words, **copy})


def _told(mode: Mode, result: EngineReplayResult, errors: EngineError) -> None:
    """The script clears what it has looked at; here it counts again."""
    one = coverage.seen(
        mode, EXPERTS, counters=result.counters, errors=int(errors), waits=0, run=f"{__name__} {mode} {errors!r}"
    )
    coverage.leave(one)


def test_bad_settings_and_writes_while_events_are_in_work_are_refused_and_told() -> None:
    result = run(settings(Mode.OFF), random_events(40, 2), script=misuse_test.MODULE)
    check(result)
    assert result.errors == 0


def test_bad_images_are_refused_and_told_and_a_good_one_is_loaded_after_them() -> None:
    trace = identified_trace(seed=0, unrecorded=0.05, **SHAPE)
    of = networks()
    rows = of["next-layer"].identity_index(np.asarray(trace.token_hash).astype(np.int64))
    result = run(
        settings(Mode.LEARNED, identity_rows=6),
        trace_events(trace, slots=2, rows=rows),
        times=LayerTimes(before_gate_cycles=20, layer_cycles=150),
        networks=of,
        in_order=True,
        script=misuse_test.MODULE,
        spoil=with_a_bad_copy,
    )
    check(result)
    assert result.errors == 0
    _told(Mode.LEARNED, result, EngineError.IMAGE_SHAPE | EngineError.IMAGE_CHECKSUM)


def test_texts_that_cannot_be_read_are_told_and_every_gate_is_served() -> None:
    """What is predicted is then another; what the twin says without faults is not compared."""
    trace = identified_trace(seed=0, unrecorded=0.05, **SHAPE)
    of = networks()
    rows = of["next-layer"].identity_index(np.asarray(trace.token_hash).astype(np.int64))
    chosen = settings(Mode.LEARNED, identity_rows=6)
    events = trace_events(trace, slots=2, rows=rows)
    memory = learned_memory(LIMITS, chosen, of)
    loading = 60  # bursts of the images, and more
    done = run_engine(
        LIMITS,
        chosen,
        events,
        LayerTimes(before_gate_cycles=20, layer_cycles=150),
        learned=memory,
        memory=MemoryTiming(latency=20),
        faults={"text": [Fault(RESPONSE, burst, 0, 2 + burst % 2) for burst in range(loading, 1000, 3)]},
    )
    assert done.errors == EngineError.TEXT
    assert done.breaches == 0
    gates = int((events.kind == EventKind.GATE).sum())
    assert done.counters[EngineCounter.GATES] == gates
    ready = (done.logs["notices"].fields()["kind"] == NoticeKind.READY).sum()
    assert ready == gates
