"""The policies on recorded routing of gpt-oss-20b, where the orderings that reports show must hold."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from perfmodel.config import SimulationConfig
from perfmodel.policies import policy_names
from perfmodel.simulate import compute_bounds, simulate
from predictor.issue import issue_sets
from predictor.st_moe.predictor import StMoePredictor
from staging.simulate import simulate as simulate_cache
from traces import RoutingTrace, split
from traces.importers import import_trace
from traces.selection import select_sequences

TRAINING_SEQUENCES = 40


@pytest.fixture(scope="module")
def parts(shared_file: Callable[[str], Path]) -> tuple[RoutingTrace, RoutingTrace]:
    """Some training sequences, and the test sequences."""
    trace = import_trace(shared_file("gpt_oss_20b_decode.npz"))
    training, test = split(trace)
    return select_sequences(trace, training[:TRAINING_SEQUENCES]), select_sequences(trace, test)


@pytest.mark.parametrize("lookahead", [1, 3])
def test_orderings_hold_on_a_fast_link(parts: tuple[RoutingTrace, RoutingTrace], lookahead: int) -> None:
    training, test = parts
    trace = test.token_range(0, 100)
    sets = issue_sets(StMoePredictor.fit(training, lookahead=lookahead), trace, 6)
    # At 256 GB/s an expert takes about as long as a layer: prefetching can hide it.
    config = SimulationConfig(capacity_fraction=0.25, lookahead=lookahead, link_gb_per_s=256)
    results = {policy: simulate(trace, policy, config, issue_sets=sets) for policy in policy_names()}
    mean_s = {policy: result.tpot.mean_s for policy, result in results.items()}
    assert mean_s["all_resident"] < mean_s["perfect_prefetch"] < mean_s["st_moe_prefetch"] < mean_s["lru_cache"]
    assert mean_s["lru_cache"] < mean_s["on_demand"]
    bounds = compute_bounds(trace, config, perfect=results["perfect_prefetch"])
    assert bounds.link_roofline_s is not None
    assert bounds.link_roofline_s <= min(mean_s[policy] for policy in ("lru_cache", "st_moe_prefetch"))
    cache = simulate_cache(trace, capacity=8)
    assert results["lru_cache"].experts.hit_rate == cache.hit_rate == bounds.lru_hit_rate
    assert results["lru_cache"].bytes.total == cache.loads * 13_236_480


@pytest.mark.long
@pytest.mark.parametrize("policy", policy_names())
def test_2000_tokens_take_less_than_20_seconds(parts: tuple[RoutingTrace, RoutingTrace], policy: str) -> None:
    training, test = parts
    trace = test.token_range(0, 2000)
    sets = issue_sets(StMoePredictor.fit(training), trace, 6)
    begin_s = time.process_time()
    simulate(trace, policy, SimulationConfig(capacity_fraction=0.5, engine_cycles=100), issue_sets=sets)
    assert time.process_time() - begin_s < 20
