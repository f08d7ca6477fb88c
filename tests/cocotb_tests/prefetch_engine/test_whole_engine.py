"""The whole engine under Verilator, small, in lock-step with its twin: modes, several sequences, waits, faults."""

from typing import Any

import numpy as np
import pytest

from catalog.errors import ForestageError
from cocotb_tests.build import require_tools
from cocotb_tests.models.files import CUT, LAST, RESPONSE, WRITE, Fault
from cocotb_tests.prefetch_engine.replay import EngineReplayResult, Replay, replay_engine
from predictor.engine.environment import LayerTimes
from predictor.engine.events import EngineError, EventArrays, Gate, Release, Token, event_arrays, trace_events
from predictor.engine.limits import HeadsLimits, PrefetchEngineLimits
from predictor.engine.settings import LinkSettings, Missing, Mode, PrefetchEngineSettings
from predictor.row_network.limits import HeadLimits
from predictor.st_moe.parameters import EngineConfiguration
from predictor.st_moe.tables import StMoeTables
from rtl.prefetch.limits import table_limits
from staging.stager.limits import StagerSettings
from staging.transfer.timing import MemoryTiming
from tests.learned_samples import identified_trace, random_next_use, random_predictor

pytestmark = pytest.mark.long  # its build takes a minute or more

LAYERS, EXPERTS, TOP_K = 4, 8, 2
LIMITS = PrefetchEngineLimits(
    slots_max=2,
    layers_max=LAYERS,
    experts_max=EXPERTS,
    top_k_max=TOP_K,
    candidates_max=2,
    places=60,
    spare=20,
    queue_depth=8,
    stager_lanes=4,
    net=HeadsLimits(
        lanes=64,
        prefetched_max=8,
        next_layer=HeadLimits(hidden=64, row_words=2048, previous=2, decays=3, identities=2, matched=8),
        next_use=HeadLimits(hidden=64, questions=2, row_words=2048, previous=2, decays=3, identities=1, matched=8),
    ),
)
PLAIN = {"identities": 0, "identity_rows": 0, "ngram_tables": (), "continuation_windows": ()}


@pytest.fixture(autouse=True, scope="module")
def _tools() -> None:
    try:
        require_tools()
    except ForestageError as error:
        pytest.skip(str(error))


def settings(mode: Mode, **changes: Any) -> PrefetchEngineSettings:
    """Shares of three experts a layer."""
    stager = {"shares": (3,) * LAYERS, "chance_scale": 2, "price": 20_000, "by_recency": False}
    return PrefetchEngineSettings(
        **{
            "mode": mode,
            "layers": LAYERS,
            "experts": EXPERTS,
            "top_k": TOP_K,
            "prefetched": 3,
            "threshold": 9000,
            "stager": StagerSettings(**(stager if mode is Mode.LEARNED else {"shares": (3,) * LAYERS})),
            **changes,
        }
    )


def random_events(tokens: int, slots: int, seed: int = 0) -> EventArrays:
    """Gates at random."""
    generator = np.random.default_rng(seed)
    together = [(slot, slot == 0, slot == slots - 1) for slot in range(slots)]
    events: list[Any] = []
    for token in range(tokens):
        events += [Token(slot, first, last, token == 0) for slot, first, last in together]
        for layer in range(LAYERS):
            for slot, first, last in together:
                chosen = generator.choice(EXPERTS, TOP_K, replace=False)
                events.append(Gate(slot, layer, tuple(chosen.tolist()), first, last))
            events += [Release(slot, layer, first, last) for slot, first, last in together]
    return event_arrays(events, TOP_K)


def run(chosen: PrefetchEngineSettings, events: EventArrays, **changes: Any) -> EngineReplayResult:
    """With the defaults of these tests."""
    return replay_engine(
        Replay(
            **{
                "limits": LIMITS,
                "settings": chosen,
                "events": events,
                "times": LayerTimes(before_gate_cycles=20, layer_cycles=50),
                "memory": MemoryTiming(latency=20),
                "seed": 5,
                **changes,
            }
        )
    )


def check(result: EngineReplayResult) -> None:
    """No difference, and something was looked at."""
    assert result.mismatches == 0, result.first_mismatch
    assert result.compared["command (cycle, kind, layer, experts, chances, deadline, option)"] == result.commands > 0
    assert result.compared["bytes"] > 0


@pytest.mark.parametrize(("slots", "waits"), [(1, 0), (2, 0), (2, 100)])
def test_demands_are_moved_without_a_predictor(slots: int, waits: int) -> None:
    result = run(settings(Mode.OFF), random_events(60, slots), waits=waits)
    check(result)
    assert result.counters["bytes"] == 1024 * result.counters["waits"]


@pytest.mark.parametrize(("slots", "waits", "chunk_bytes"), [(1, 0, 1 << 16), (2, 0, 128), (2, 100, 128)])
def test_tables_predict(slots: int, waits: int, chunk_bytes: int) -> None:
    generator = np.random.default_rng(1)
    configuration = EngineConfiguration(experts=EXPERTS, layers=LAYERS, top_k=TOP_K, candidates=2, issue_limit=8)
    candidates = np.array(
        [[generator.choice(EXPERTS, 2, replace=False) for _ in range(EXPERTS)] for _ in range(LAYERS)], np.int16
    )
    confidences = generator.integers(0, 4, candidates.shape).astype(np.int8)
    tables = StMoeTables(table_limits(LIMITS), configuration, candidates, confidences)
    chosen = settings(Mode.TABLES, link=LinkSettings(chunk_bytes=chunk_bytes))
    result = run(chosen, random_events(100, slots), waits=waits, tables=tables)
    check(result)
    assert result.counters["predictions"] > 50
    assert result.counters["updates"] > 50


@pytest.mark.parametrize(
    ("slots", "waits", "distance", "plain"),
    [(1, 0, 1, True), (2, 0, 2, True), (1, 0, 1, False), (2, 0, 1, False), (2, 100, 1, False)],
)
def test_nets_predict(slots: int, waits: int, distance: int, plain: bool) -> None:
    """Without text and identities cycle by cycle; with them in the hardware's order."""
    shape = {"layers": LAYERS, "experts": EXPERTS, "top_k": TOP_K}
    config: dict[str, Any] = PLAIN if plain else {}
    next_layer = random_predictor(lookahead=distance, **shape, **config).network
    next_use = random_next_use(np.random.default_rng(0), ranked=True, **shape, **config).network
    trace = identified_trace(seed=0, unrecorded=0.05, **shape)
    rows = None if plain else next_layer.identity_index(np.asarray(trace.token_hash).astype(np.int64))
    chosen = settings(Mode.LEARNED, distance=distance, identity_rows=0 if plain else 6)
    result = run(
        chosen,
        trace_events(trace, slots=slots, rows=rows),
        times=LayerTimes(before_gate_cycles=20, layer_cycles=150),
        networks={"next-layer": next_layer, "next-use": next_use},
        waits=waits,
        in_order=not plain,
    )
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
    result = run(settings(Mode.OFF), random_events(20, 2), faults=faults)
    check(result)
    assert EngineError(result.errors) == errors
    assert result.counters["retried"] + result.counters["failed"] == len(next(iter(faults.values())))


def test_what_is_missing_is_computed_elsewhere() -> None:
    preloaded = tuple((layer, expert, False) for layer in range(LAYERS) for expert in range(3))
    result = run(settings(Mode.OFF, missing=Missing.ELSEWHERE), random_events(20, 2), preloaded=preloaded)
    assert result.mismatches == 0, result.first_mismatch
    assert result.counters["elsewhere"] > result.counters["waits"] == 0


def test_a_bad_event_is_refused_and_the_engine_goes_on() -> None:
    events = list(random_events(12, 1))
    bad = np.zeros(len(events) + 3, np.bool_)
    events.insert(2, Gate(0, 3, (0, 1)))
    events.insert(8, Release(0, 0))
    events.insert(20, Token(0))
    bad[[2, 8, 20]] = True
    result = run(settings(Mode.OFF), event_arrays(events, TOP_K), bad=bad)
    check(result)
    assert EngineError(result.errors) == EngineError.ORDER
    assert result.counters["rejected"] == 3
