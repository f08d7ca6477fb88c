"""What must hold of the policies on any trace."""

import functools
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.catalogue import Catalog
from perfmodel.closed_form import token_times_ps
from perfmodel.config import SimulationConfig
from perfmodel.costs_of import resolve_costs
from perfmodel.policies import policy_names
from perfmodel.results import SimulationResult
from perfmodel.simulate import compute_bounds, simulate
from predictor.issue import perfect_issue_sets
from staging.simulate import simulate as simulate_cache
from tests.perfmodel.micro import EXPERT_BYTES, issue, make_catalog, make_config, make_trace
from traces import RoutingTrace

LAYERS, EXPERTS, TOP_K = 3, 6, 2
EVERYTHING = LAYERS * EXPERTS


@functools.cache
def catalog() -> Catalog:
    with tempfile.TemporaryDirectory() as folder:
        return make_catalog(
            Path(folder), layers=LAYERS + 1, dense_layers=[0], experts=EXPERTS, top_k=TOP_K, shared_experts=1
        )


row = st.permutations(range(EXPERTS)).map(lambda ids: ids[:TOP_K])
token = st.lists(row, min_size=LAYERS, max_size=LAYERS)
# From the least that a prefetching policy takes.
caches = st.tuples(st.just("layer"), st.integers(LAYERS * (TOP_K + 1), EVERYTHING)) | st.tuples(
    st.just("global"), st.integers(TOP_K + 1, EVERYTHING)
)
configs = st.builds(
    lambda cache, **values: make_config(scope=cache[0], capacity_experts=cache[1], **values),
    caches,
    lookahead=st.integers(1, 2),
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
def predictions(draw: st.DrawFn, trace: RoutingTrace):  # type: ignore[no-untyped-def]
    """Issue sets that are right, wrong or empty as chance has it."""
    named = {}
    for where in np.ndindex(trace.tokens, trace.layers):
        kind = draw(st.sampled_from(["right", "any", "none"]))
        if kind == "right":
            named[where] = trace.expert_ids[where].tolist()
        elif kind == "any":
            named[where] = draw(st.lists(st.integers(0, EXPERTS - 1), unique=True, max_size=4))
    return issue(trace, named, limit=4)


def run(trace: RoutingTrace, policy: str, config: SimulationConfig, sets=None) -> SimulationResult:  # type: ignore[no-untyped-def]
    return simulate(trace, policy, config, issue_sets=sets, catalog=catalog())


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_policy_keeps_its_books_and_the_bounds(data: st.DataObject) -> None:
    # The simulation itself asserts that parts sum to times, kinds to bytes, and fates to prefetches.
    trace, config = data.draw(traces()), data.draw(configs)
    sets = data.draw(predictions(trace))
    results = {policy: run(trace, policy, config, sets) for policy in policy_names()}
    needed = results["on_demand"].experts.lookups
    for policy, result in results.items():
        assert result.experts.lookups == needed
        parts = result.breakdown.model_dump()
        assert parts.pop("total_ps") == sum(parts.values())
        assert parts["compute_ps"] == results["all_resident"].breakdown.compute_ps
        assert parts["hbm_ps"] == results["all_resident"].breakdown.hbm_ps
        assert all(0 <= share <= 1 for share in result.utilisation.values())
        counts = result.experts
        if policy in ("lru_cache", "st_moe_prefetch", "perfect_prefetch"):
            fetched = result.bytes.demand // EXPERT_BYTES + counts.late
            assert counts.hits + fetched == counts.lookups
        assert result.bytes.prefetch_useful == counts.useful * EXPERT_BYTES
        assert result.bytes.prefetch_late == counts.late * EXPERT_BYTES
        assert counts.used_at_target <= counts.useful + counts.late <= counts.issued <= counts.predicted
    oracle = results["perfect_prefetch"]
    assert oracle.bytes.demand <= oracle.experts.refused * EXPERT_BYTES  # it names everything, where there is room


@settings(max_examples=40, deadline=None)
@given(traces(), configs)
def test_the_closed_form_equals_the_engine(trace: RoutingTrace, config: SimulationConfig) -> None:
    costs, dense_layers = resolve_costs(trace, config, catalog())
    for policy in ("on_demand", "lru_cache", "all_resident"):
        expected = token_times_ps(trace, policy, config, costs, dense_layers)
        result = run(trace, policy, config)
        assert result.breakdown.total_ps == sum(expected)
        assert result.tpot.p99_s == max(expected) / 1e12


@settings(max_examples=40, deadline=None)
@given(traces(), configs)
def test_the_cache_hits_as_the_event_atomic_one_does(trace: RoutingTrace, config: SimulationConfig) -> None:
    assert config.capacity_experts is not None
    each = config.capacity_experts // LAYERS if config.scope == "layer" else config.capacity_experts
    expected = simulate_cache(trace, capacity=each, scope=config.scope)
    counts = run(trace, "lru_cache", config).experts
    assert (counts.hits, counts.lookups) == (expected.hits, expected.lookups)


@settings(max_examples=40, deadline=None)
@given(traces(), configs)
def test_predicting_nothing_is_the_cache_alone(trace: RoutingTrace, config: SimulationConfig) -> None:
    nothing = run(trace, "st_moe_prefetch", config, issue(trace, {}))
    cache = run(trace, "lru_cache", config)
    assert nothing.breakdown == cache.breakdown
    assert nothing.bytes == cache.bytes
    assert nothing.experts.hits == cache.experts.hits


@settings(max_examples=40, deadline=None)
@given(traces(), configs)
def test_the_oracle_is_the_policy_with_perfect_issue_sets_and_a_free_engine(
    trace: RoutingTrace, config: SimulationConfig
) -> None:
    free = config.model_copy(update={"engine_cycles": 0})
    told = run(trace, "st_moe_prefetch", free, perfect_issue_sets(trace))
    oracle = run(trace, "perfect_prefetch", config)
    assert told.breakdown == oracle.breakdown
    assert told.bytes == oracle.bytes


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_orderings(data: st.DataObject) -> None:
    trace, config = data.draw(traces()), data.draw(configs)
    bounds = compute_bounds(trace, config, catalog=catalog())
    sets = data.draw(predictions(trace))
    mean_s = {policy: run(trace, policy, config, sets).tpot.mean_s for policy in policy_names()}
    assert bounds.on_demand_s == mean_s["on_demand"]
    assert bounds.no_prefetch_s == mean_s["lru_cache"]
    assert bounds.perfect_prefetch_s == mean_s["perfect_prefetch"]
    assert bounds.all_resident_s == mean_s["all_resident"]
    assert mean_s["all_resident"] == min(mean_s.values())
    assert mean_s["perfect_prefetch"] <= mean_s["on_demand"]
    assert mean_s["lru_cache"] <= mean_s["on_demand"]


@settings(max_examples=40, deadline=None)
@given(traces(), configs)
def test_more_bandwidth_never_hurts_without_prediction(trace: RoutingTrace, config: SimulationConfig) -> None:
    for policy in ("on_demand", "lru_cache"):
        times = [
            run(trace, policy, config.model_copy(update={"link_gb_per_s": gb_per_s})).breakdown.total_ps
            for gb_per_s in (0.5, 1.0, 4.0, 64.0)
        ]
        assert times == sorted(times, reverse=True)


@settings(max_examples=40, deadline=None)
@given(traces(), configs)
def test_a_cache_that_holds_everything_fetches_each_expert_once(trace: RoutingTrace, config: SimulationConfig) -> None:
    full = config.model_copy(update={"capacity_experts": EVERYTHING})
    result = run(trace, "lru_cache", full)
    decoded = np.asarray(trace.phase) == 1
    layers = np.arange(LAYERS)[:, None] * EXPERTS
    used = set((trace.expert_ids[decoded] + layers).ravel().tolist())
    warmed = set((trace.expert_ids[~decoded] + layers).ravel().tolist())
    assert len(used - warmed) * EXPERT_BYTES <= result.bytes.demand <= len(used) * EXPERT_BYTES


@settings(max_examples=20, deadline=None)
@given(st.lists(token, min_size=1, max_size=4), configs)
def test_once_everything_is_there_the_cache_is_as_good_as_hbm(ids, config: SimulationConfig) -> None:  # type: ignore[no-untyped-def]
    full = config.model_copy(update={"capacity_experts": EVERYTHING})
    everything = [[[expert, expert + 1]] * LAYERS for expert in range(0, EXPERTS, TOP_K)]
    prompts = range(len(everything))
    trace = make_trace(everything + ids, experts=EXPERTS, prompts=prompts)
    for policy in ("lru_cache", "perfect_prefetch"):
        result = run(trace, policy, full)
        assert result.breakdown == run(trace, "all_resident", full).breakdown
        assert result.bytes.total == 0
