"""What must hold of the policies on any routing, in both engines."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from catalog.catalogue import Catalog
from perfmodel.config import SimulationConfig
from perfmodel.simulator import Simulator
from predictor.policies.plan import Missing
from predictor.policies.policy import Eviction, Policy, Prefetch
from staging.events import events_of
from staging.results import Capacity
from staging.simulate import run_policy
from tests.perfmodel.micro import Simulated, make_catalog, make_config, make_trace, simulate
from traces import DECODE, RoutingTrace

LAYERS, EXPERTS, TOP_K = 3, 6, 2
EVERYTHING = LAYERS * EXPERTS
HOSTS = st.sampled_from([{"host_gb_per_s": rate, "host_tflops": 1} for rate in (0.9, 3)])
"""So slow that one expert takes longer there than all of a layer's on the device."""

LRU = Policy(eviction=Eviction.LRU)
STATIC = Policy(eviction=Eviction.STATIC, missing=Missing.HOST)
BELADY = Policy(eviction=Eviction.BELADY)
FETCHING = (
    LRU,
    Policy(eviction=Eviction.FREQUENCY),
    Policy(eviction=Eviction.FREQUENCY, background=True, price=20_000),
    Policy(eviction=Eviction.LRU, prefetch=Prefetch.ST_MOE),
    Policy(eviction=Eviction.LRU, prefetch=Prefetch.PERFECT),
    BELADY,
    Policy(eviction=Eviction.BELADY, prefetch=Prefetch.PERFECT),
)
COMPUTING = (
    STATIC,
    *(
        Policy(eviction=eviction, missing=missing, background=True, price=20_000)
        for eviction in (Eviction.FREQUENCY, Eviction.ORACLE)
        for missing in (Missing.HOST, Missing.SOONER)
    ),
    Policy(eviction=Eviction.FREQUENCY, prefetch=Prefetch.ST_MOE, missing=Missing.SOONER),
)


@functools.cache
def catalog() -> Catalog:
    with tempfile.TemporaryDirectory() as folder:
        return make_catalog(
            Path(folder), layers=LAYERS + 1, dense_layers=[0], experts=EXPERTS, top_k=TOP_K, shared_experts=1
        )


row = st.permutations(range(EXPERTS)).map(lambda ids: ids[:TOP_K])
token = st.lists(row, min_size=LAYERS, max_size=LAYERS)
configs = st.builds(
    make_config,
    scope=st.sampled_from(["layer", "global"]),
    capacity_experts=st.integers(0, EVERYTHING),
    engine_cycles=st.sampled_from([0, 700, 2500, 40_000]),
    link_gb_per_s=st.sampled_from([0.7, 1.0, 5.0, 11.3, 200.0]),
    transfer_latency_us=st.sampled_from([0.0, 1.5]),
    chunk_bytes=st.sampled_from([4096, 10_000, 50_000]),
)


@st.composite
def traces(draw: st.DrawFn) -> RoutingTrace:
    """One or two sequences of a few tokens; the second may begin with prompt tokens."""
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=2))
    ids = draw(st.lists(token, min_size=sum(lengths), max_size=sum(lengths)))
    prompts = draw(st.integers(0, lengths[-1] - 1)) if len(lengths) == 2 else 0
    return make_trace(ids, experts=EXPERTS, sequences=lengths, prompts=range(lengths[0], lengths[0] + prompts))


@st.composite
def guesses(draw: st.DrawFn, trace: RoutingTrace) -> dict[tuple[int, int], list[int]]:
    """Predictions by (step, layer) that are right, wrong or absent as chance has it."""
    named = {}
    decoded = np.flatnonzero(np.asarray(trace.phase) == DECODE)
    for step in range(len(decoded)):
        for layer in range(LAYERS):
            kind = draw(st.sampled_from(["right", "any", "none"]))
            if kind == "right":
                named[step, layer] = trace.expert_ids[decoded[step], layer].tolist()
            elif kind == "any":
                named[step, layer] = draw(st.lists(st.integers(0, EXPERTS - 1), unique=True, max_size=4))
    return named


def run(trace: RoutingTrace, policy: Policy, config: SimulationConfig, **given_: Any) -> Simulated:
    return simulate(trace, policy, config, catalog(), **given_)


def held(config: SimulationConfig) -> list[int]:
    """Keys for every place: the first experts of each layer, or of the first layers."""
    assert config.capacity_experts is not None
    if config.scope == "global":
        return list(range(config.capacity_experts))
    share = config.capacity_experts // LAYERS
    return [layer * EXPERTS + expert for layer in range(LAYERS) for expert in range(share)]


def after_gate(missing: int, simulator: Simulator) -> int:
    """Time from a gate to the layer's end where nothing is predicted: what is missing crosses an idle link."""
    times, of_step = simulator.durations, int(np.flatnonzero(simulator.workload.timed)[0])
    free_ps = int(simulator.workload.shared_ps[of_step]) + (TOP_K - missing) * int(times.expert_ps[1])
    for nth in range(1, missing + 1):
        free_ps = max(free_ps, nth * int(times.chunk_ps[-1])) + int(times.expert_ps[1])
    return free_ps


def without_link(missing: int, simulator: Simulator) -> int:
    """The same, where the host computes what is missing."""
    times, of_step = simulator.durations, int(np.flatnonzero(simulator.workload.timed)[0])
    device_ps = int(simulator.workload.shared_ps[of_step]) + (TOP_K - missing) * int(times.expert_ps[1])
    host_ps = times.host_before_ps + missing * -(-times.host_work // int(times.host_free_rate[1])) + times.host_after_ps
    return max(device_ps, host_ps if missing else 0)


def expected_ps(found: Simulated, missing: NDArray[np.int64], after: Any) -> list[int]:
    """Step times where ``missing[step, layer]`` is all that a layer's time depends on."""
    before = found.simulator.workload.before_gate_ps[found.simulator.workload.timed]
    of = [after(count, found.simulator) for count in range(TOP_K + 1)]
    return (before + np.array(of)[missing]).sum(axis=1).tolist()


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_every_policy_keeps_its_books_and_no_policy_beats_a_bound(data: st.DataObject) -> None:
    trace, alone = data.draw(traces()), data.draw(configs)
    hosted = alone.model_copy(update=data.draw(HOSTS))
    named = data.draw(guesses(trace))
    needed = int((np.asarray(trace.phase) == DECODE).sum()) * LAYERS * TOP_K
    for policy in (*FETCHING, *COMPUTING):
        config = hosted if policy in COMPUTING else alone
        found = run(trace, policy, config, named=named, resident=held(config))
        counts, parts = found.run.counts, found.run.parts
        total = sum(found.step_ps)
        assert sum(vars(parts).values()) == total
        assert counts.lookups == needed == counts.hits + counts.fetched + counts.computed
        assert counts.fetched == counts.demands + counts.late
        assert counts.useful + counts.wasted <= counts.ahead
        assert max(found.run.link_busy_ps, found.run.host_busy_ps) <= total
        assert total >= found.simulator.all_resident_ps
        if policy in FETCHING:
            assert (counts.computed, parts.host_wait, found.run.host_busy_ps) == (0, 0, 0)
            assert parts.compute + parts.hbm == found.simulator.all_resident_ps
            roofline_s = found.simulator.link_roofline_s
            assert roofline_s is None or total / len(found.step_ps) / 1e12 >= roofline_s * (1 - 1e-12)
        if policy.missing is Missing.HOST:
            assert (counts.fetched, parts.demand_wait, parts.late_wait) == (0, 0, 0)


@settings(max_examples=40, deadline=None)
@given(traces(), configs)
def test_an_lru_cache_misses_what_an_event_atomic_cache_does_and_its_misses_alone_make_its_time(
    trace: RoutingTrace, config: SimulationConfig
) -> None:
    found = run(trace, LRU, config)
    assert config.capacity_experts is not None
    share = config.capacity_experts // LAYERS if config.scope == "layer" else config.capacity_experts
    missing = np.full((len(found.step_ps), LAYERS), TOP_K)
    if share:
        events = events_of(trace)
        hit = run_policy(events, "lru", Capacity(share, scope=config.scope)).hit
        missing = np.add.reduceat(~hit, events.offsets[:-1], dtype=np.int64)[events.decode].reshape(missing.shape)
    assert found.run.counts.fetched == missing.sum()
    assert found.step_ps == expected_ps(found, missing, after_gate)


@settings(max_examples=40, deadline=None)
@given(traces(), configs, HOSTS)
def test_what_a_static_placement_lacks_alone_makes_its_time(
    trace: RoutingTrace, alone: SimulationConfig, host: dict[str, float]
) -> None:
    config = alone.model_copy(update=host)
    found = run(trace, STATIC, config, resident=held(config))
    decoded = np.asarray(trace.expert_ids[np.asarray(trace.phase) == DECODE], np.int64)
    keys = decoded + np.arange(LAYERS)[None, :, None] * EXPERTS
    missing = (~np.isin(keys, held(config))).sum(axis=2)
    assert found.step_ps == expected_ps(found, missing, without_link)
    assert found.run.link_busy_ps == 0


@settings(max_examples=30, deadline=None)
@given(traces(), configs)
def test_predicting_nothing_is_the_cache_alone(trace: RoutingTrace, config: SimulationConfig) -> None:
    nothing = run(trace, Policy(eviction=Eviction.LRU, prefetch=Prefetch.ST_MOE), config, named={})
    alone = run(trace, LRU, config)
    assert nothing.step_ps == alone.step_ps
    assert (nothing.run.parts, nothing.run.counts) == (alone.run.parts, alone.run.counts)


@settings(max_examples=20, deadline=None)
@given(traces(), configs)
def test_a_faster_link_is_never_slower_without_prediction(trace: RoutingTrace, config: SimulationConfig) -> None:
    for policy in (LRU, BELADY):
        times = [
            sum(run(trace, policy, config.model_copy(update={"link_gb_per_s": gb_per_s})).step_ps)
            for gb_per_s in (0.5, 1.0, 4.0, 64.0)
        ]
        assert times == sorted(times, reverse=True)


@settings(max_examples=20, deadline=None)
@given(traces(), configs, HOSTS)
def test_more_places_are_never_slower_for_lru_and_for_a_static_placement(
    trace: RoutingTrace, alone: SimulationConfig, host: dict[str, float]
) -> None:
    for policy, config in ((LRU, alone), (STATIC, alone.model_copy(update=host))):
        times = []
        for places in range(0, EVERYTHING + 1, LAYERS):
            larger = config.model_copy(update={"capacity_experts": places})
            resident = held(larger) if policy is STATIC else []
            times.append(sum(run(trace, policy, larger, resident=resident).step_ps))
        assert times == sorted(times, reverse=True)


@settings(max_examples=25, deadline=None)
@given(traces(), configs)
def test_perfect_prefetch_is_never_slower_than_keeping_and_foreseeing_nothing(
    trace: RoutingTrace, config: SimulationConfig
) -> None:
    free = config.model_copy(update={"engine_cycles": 0})
    nothing = sum(run(trace, LRU, free.model_copy(update={"capacity_experts": 0})).step_ps)
    for eviction in (Eviction.LRU, Eviction.BELADY):
        assert sum(run(trace, Policy(eviction=eviction, prefetch=Prefetch.PERFECT), free).step_ps) <= nothing


@settings(max_examples=25, deadline=None)
@given(traces(), configs)
def test_a_device_with_room_for_everything_loads_each_expert_once(
    trace: RoutingTrace, config: SimulationConfig
) -> None:
    full = config.model_copy(update={"capacity_experts": EVERYTHING})
    decoded = np.asarray(trace.phase) == DECODE
    keys = np.asarray(trace.expert_ids, np.int64) + np.arange(LAYERS)[None, :, None] * EXPERTS
    used, warmed = set(keys[decoded].ravel().tolist()), set(keys[~decoded].ravel().tolist())
    counts = run(trace, LRU, full).run.counts
    assert len(used - warmed) <= counts.demands <= len(used)
    for policy in FETCHING:
        found = run(trace, policy, full, resident=range(EVERYTHING), named={(0, 1): [0, 1]})
        assert sum(found.step_ps) == found.simulator.all_resident_ps
        assert found.run.link_busy_ps == 0
