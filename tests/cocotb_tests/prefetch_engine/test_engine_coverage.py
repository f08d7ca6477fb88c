"""The regression that fills the bins of coverage: every mode, class of shapes, back-pressure and error, in lock-step.

One engine, generated for the widest shape, is configured for all of them.
"""

from typing import Any

import numpy as np
import pytest

from catalog.errors import ForestageError
from cocotb_tests.build import require_tools
from cocotb_tests.models.files import LAST, RESPONSE, WRITE, Fault
from cocotb_tests.prefetch_engine import coverage
from cocotb_tests.prefetch_engine.coverage import Error, Seen
from cocotb_tests.prefetch_engine.replay import EngineReplayResult, Replay, replay_engine
from predictor.engine.environment import LayerTimes
from predictor.engine.events import EngineError, EventArrays, EventKind, trace_events
from predictor.engine.limits import HeadsLimits, PrefetchEngineLimits
from predictor.engine.settings import Mode, PrefetchEngineSettings
from predictor.row_network.limits import HeadLimits
from predictor.st_moe.parameters import EngineConfiguration
from predictor.st_moe.tables import StMoeTables
from rtl.prefetch.limits import table_limits
from staging.stager.limits import StagerSettings
from staging.transfer.timing import MemoryTiming
from tests.learned_samples import identified_trace, random_next_use, random_predictor

pytestmark = pytest.mark.long  # its build takes minutes

LAYERS, TOP_K, SLOTS = 3, 2, 2
LIMITS = PrefetchEngineLimits(
    slots_max=SLOTS,
    layers_max=LAYERS,
    experts_max=128,
    top_k_max=TOP_K,
    candidates_max=2,
    places=60,
    spare=20,
    queue_depth=8,
    stager_lanes=16,
    net=HeadsLimits(
        lanes=64,
        prefetched_max=8,
        next_layer=HeadLimits(hidden=64, row_words=8192, previous=2, decays=3, identities=2, matched=8),
        next_use=HeadLimits(hidden=64, questions=2, row_words=8192, previous=2, decays=3, identities=1, matched=8),
    ),
)
FAULTS = {
    "far": [*(Fault(RESPONSE, burst, 3, 2) for burst in (3, 11)), Fault(LAST, 17, 2), Fault(LAST, 26, 15)],
    "staging": [Fault(WRITE, burst, 0, 2) for burst in (5, 21)],
}
HARMED = EngineError.READ | EngineError.WRITE | EngineError.LAST | EngineError.LAYER | EngineError.ORDER
RUNS: list[Seen] = []


@pytest.fixture(autouse=True, scope="module")
def _tools() -> None:
    try:
        require_tools()
    except ForestageError as error:
        pytest.skip(str(error))


def with_bad_events(events: EventArrays, experts: int) -> tuple[EventArrays, Any]:
    """Before some gates comes one with an expert, or of a layer, that there is not; which are bad."""
    gates = np.flatnonzero((events.kind == EventKind.GATE) & events.known)[[2, 9, 20]]
    order = np.sort(np.concatenate([np.arange(len(events.kind)), gates]), kind="stable")
    bad = np.zeros(len(order), np.bool_)
    bad[gates + np.arange(len(gates))] = True
    told = EventArrays(*(column[order].copy() for column in events))
    first, *others = np.flatnonzero(bad)
    # A number beyond 128 experts does not fit its bits; there one is named twice.
    told.experts[others, 1] = experts if experts < LIMITS.experts_max else told.experts[others, 0]
    told.layer[first] = LAYERS
    return told, bad


def tables(experts: int) -> StMoeTables:
    """Of random candidates."""
    generator = np.random.default_rng(1)
    configuration = EngineConfiguration(experts=experts, layers=LAYERS, top_k=TOP_K, candidates=2, issue_limit=8)
    candidates = np.array(
        [[generator.choice(experts, 2, replace=False) for _ in range(experts)] for _ in range(LAYERS)], np.int16
    )
    return StMoeTables(
        table_limits(LIMITS), configuration, candidates, generator.integers(0, 4, candidates.shape).astype(np.int8)
    )


def replay(mode: Mode, experts: int, waits: int, *, harmed: bool) -> EngineReplayResult:
    """Two sequences together."""
    shape = {"layers": LAYERS, "experts": experts, "top_k": TOP_K}
    learned = mode is Mode.LEARNED
    networks = None
    trace = identified_trace(seed=0, unrecorded=0.05, lengths=(30, 26), **shape)
    rows = None
    if learned:
        next_layer = random_predictor(**shape).network
        networks = {
            "next-layer": next_layer,
            "next-use": random_next_use(np.random.default_rng(0), ranked=True, **shape).network,
        }
        rows = next_layer.identity_index(np.asarray(trace.token_hash).astype(np.int64))
    events = trace_events(trace, slots=SLOTS, rows=rows)
    bad = None
    if harmed:
        events, bad = with_bad_events(events, experts)
    stager = {"chance_scale": 2, "price": 20_000, "by_recency": False} if learned else {}
    return replay_engine(
        Replay(
            limits=LIMITS,
            settings=PrefetchEngineSettings(
                mode=mode,
                **shape,
                prefetched=3,
                threshold=9000,
                identity_rows=6 if learned else 0,
                stager=StagerSettings(shares=(max(3, experts // 8),) * LAYERS, **stager),
            ),
            events=events,
            times=LayerTimes(before_gate_cycles=20, layer_cycles=150),
            memory=MemoryTiming(latency=20),
            networks=networks,
            tables=tables(experts) if mode is Mode.TABLES else None,
            bad=bad,
            faults=FAULTS if harmed else None,
            waits=waits,
            seed=7,
            in_order=learned or harmed,
        )
    )


@pytest.mark.parametrize("experts", [8, 32, 128])
@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("waits", [0, 90])
@pytest.mark.parametrize("harmed", [False, True])
def test_every_mode_and_shape_is_in_lock_step_with_and_without_harm(
    mode: Mode, experts: int, waits: int, harmed: bool
) -> None:
    result = replay(mode, experts, waits, harmed=harmed)
    assert result.mismatches == 0, result.first_mismatch
    assert result.breaches == 0
    bad_expert = EngineError.EXPERT if experts < LIMITS.experts_max else EngineError.DUPLICATE
    assert EngineError(result.errors) == (HARMED | bad_expert if harmed else EngineError(0))
    one = coverage.seen(
        mode, experts, counters=result.counters, errors=result.errors, waits=waits, run=f"{harmed} {waits}"
    )
    RUNS.append(one)


def test_every_bin_that_this_regression_can_fill_is_filled() -> None:
    """Bad images are told of by ``test_engine_misuse``."""
    merged = coverage.merge(RUNS)
    print(coverage.table(merged))
    images = f" {Error.IMAGE.name.lower()}"
    empty = [one for one in merged.empty if not one.endswith(images)]
    assert not empty, f"{len(empty)} bins are empty: {', '.join(empty)}"
