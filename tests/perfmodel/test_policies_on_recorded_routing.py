"""Policies on recorded routing of gpt-oss-20b, where the orderings that reports show must hold."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perfmodel.compiled import simulation as compiled
from perfmodel.config import SimulationConfig
from perfmodel.simulator import Simulator
from predictor.policies.parts import Predictors, part_of
from predictor.policies.plan import Missing
from predictor.policies.policy import Eviction, Policy, Prefetch
from predictor.st_moe.predictor import StMoePredictor
from staging.simulate import simulate as simulate_cache
from staging.static import uses_of
from staging.steps import decode_steps, step_experts
from traces import split
from traces.importers import import_trace
from traces.selection import select_sequences

TRAINING_SEQUENCES = 40
LRU = Policy(eviction=Eviction.LRU)
STATIC = Policy(eviction=Eviction.STATIC, missing=Missing.HOST)


@pytest.fixture(scope="module")
def simulator(shared_file: Callable[[str], Path]) -> Simulator:
    """Some test tokens on an A100; at 256 GB/s an expert takes about as long as a layer: prefetching can hide it."""
    trace = import_trace(shared_file("gpt_oss_20b_decode.npz"))
    training, test = split(trace)
    profile = select_sequences(trace, training[:TRAINING_SEQUENCES])
    whole = decode_steps(profile)
    uses = uses_of(whole, step_experts(profile, whole), trace.layers, trace.experts)
    few = select_sequences(trace, test[:1]).token_range(0, 100)
    part = part_of(few, decode_steps(few), Predictors(st_moe=StMoePredictor.fit(profile)))
    config = SimulationConfig(capacity_fraction=0.25, scope="layer", link_gb_per_s=256, host_gb_per_s=300)
    return Simulator.of(part, config, uses, host=True)


def test_orderings_hold_on_a_fast_link(simulator: Simulator) -> None:
    rows = {
        "LRU": LRU,
        "ST-MoE": Policy(eviction=Eviction.LRU, prefetch=Prefetch.ST_MOE),
        "perfect": Policy(eviction=Eviction.LRU, prefetch=Prefetch.PERFECT),
        "least": Policy(eviction=Eviction.BELADY, prefetch=Prefetch.PERFECT),
        "static": STATIC,
        "frequency": Policy(
            eviction=Eviction.FREQUENCY, missing=Missing.SOONER, background=True, price=16_384
        ),
    }  # fmt: skip
    mean_s = {name: simulator.outcome(policy, simulator.run(policy)).tpot.mean_s for name, policy in rows.items()}
    roofline_s = simulator.link_roofline_s
    assert roofline_s is not None
    assert simulator.all_resident_s <= roofline_s <= mean_s["least"]
    assert mean_s["least"] < mean_s["perfect"] < mean_s["ST-MoE"] < mean_s["LRU"]
    assert mean_s["frequency"] < mean_s["static"]


def test_from_an_empty_device_lru_loads_what_the_event_atomic_cache_loads(simulator: Simulator) -> None:
    plan = replace(simulator.plan(LRU), resident=np.zeros(0, np.int64))
    run = compiled.simulate(simulator.workload, simulator.durations, plan)
    cache = simulate_cache(simulator.part.trace, capacity=8)
    outcome = simulator.outcome(LRU, run)
    assert outcome.hit_rate == cache.hit_rate
    assert outcome.moved_bytes == cache.loads * 13_236_480 / 100


def test_the_reference_finds_the_same_on_recorded_routing(simulator: Simulator) -> None:
    for policy in (LRU, STATIC):
        one, other = simulator.run(policy), simulator.run_reference(policy)
        assert np.array_equal(one.step_ps, other.step_ps)
        assert (one.parts, one.counts) == (other.parts, other.counts)
