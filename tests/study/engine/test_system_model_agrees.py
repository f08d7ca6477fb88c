"""The system model and the engine's twin: at a machine's own times every count is equal."""

from dataclasses import replace

import numpy as np
import pytest

from catalog.errors import ForestageError
from perfmodel.config import SimulationConfig
from predictor.engine.environment import LayerTimes
from predictor.engine.scale import replay_times
from predictor.engine.timing import SteadyLink, SteadyPredictor
from predictor.policies.parts import Part, Predictors, part_of
from predictor.policies.plan import Missing
from predictor.policies.policy import Eviction, Policy
from staging.steps import decode_steps
from study.engine.system_model import EngineTimes, compare, machine_times, policies
from tests.learned_samples import identified_trace, random_next_use, random_predictor

LAYERS, EXPERTS, TOP_K = 5, 12, 3
NETWORKS = SteadyPredictor(prefetch=64, values=120, next=160)
MACHINE = EngineTimes(
    layers=LayerTimes(before_gate_cycles=80_000, expert_cycles=10_000),
    link=SteadyLink(chunks=1, chunk_cycles=529_000, latency=500),
    networks=NETWORKS,
)


@pytest.fixture(scope="module")
def predictors() -> Predictors:
    shape = {"layers": LAYERS, "experts": EXPERTS, "top_k": TOP_K}
    next_use = random_next_use(np.random.default_rng(0), ranked=True, **shape)
    return Predictors(next_use=next_use, next_layer=random_predictor(**shape), prefetched=4)


@pytest.fixture(scope="module")
def part(predictors: Predictors) -> Part:
    trace = identified_trace(experts=EXPERTS, layers=LAYERS, top_k=TOP_K, lengths=(70, 1, 80), seed=3)
    return part_of(trace, decode_steps(trace, prompts_decoded=True), predictors)


def uses_of(part: Part) -> np.ndarray:
    ids = part.trace.expert_ids
    return np.stack([np.bincount(ids[:, layer].ravel(), minlength=EXPERTS) for layer in range(LAYERS)])


@pytest.mark.parametrize("policy", list(policies()), ids=lambda policy: policy.name)
def test_loads_hits_and_evictions_are_equal_at_a_machines_times(
    part: Part, predictors: Predictors, policy: Policy
) -> None:
    found = compare(part, policy, predictors, uses_of(part), MACHINE, share=4)
    assert found.differences == {}
    assert found.model["hits"] > 100
    assert found.model["evicted"] > 100
    assert abs(found.relative_time) < 0.001


def test_recency_alone_decides_alike_at_a_replays_times_too(part: Part, predictors: Predictors) -> None:
    times = EngineTimes(
        layers=LayerTimes(before_gate_cycles=300, expert_cycles=40),
        link=SteadyLink(chunks=1, chunk_cycles=2000, latency=50),
        networks=NETWORKS,
    )
    found = compare(part, Policy(eviction=Eviction.LRU), predictors, uses_of(part), times, share=4)
    assert found.differences == {}
    assert abs(found.relative_time) < 0.01


def test_other_networks_would_be_noticed(part: Part, predictors: Predictors) -> None:
    """The engine asks its own networks; the model has arrays of others."""
    shape = {"layers": LAYERS, "experts": EXPERTS, "top_k": TOP_K}
    others = replace(predictors, next_use=random_next_use(np.random.default_rng(9), ranked=True, **shape))
    found = compare(part, Policy(eviction=Eviction.LEARNED), others, uses_of(part), MACHINE, share=4)
    assert "hits" in found.differences


def test_a_machines_proportions_come_from_the_catalogue(part: Part) -> None:
    config = SimulationConfig(
        machine="A100-80GB", sizes_of="gpt-oss-20b", allow_other_shape=True, capacity_experts=8, link_gb_per_s=25
    )
    of = machine_times(part, config)
    assert of.transfer == pytest.approx(13_219_200 / 25, rel=2e-3)
    assert 1_000 < of.before_gate < 300_000
    assert replay_times(of, top_k=TOP_K).layers.before_gate_cycles > 100


def test_what_the_engine_does_not_do_is_refused(part: Part, predictors: Predictors) -> None:
    uses = uses_of(part)
    with pytest.raises(ForestageError, match="fetches what is missing"):
        compare(part, Policy(eviction=Eviction.FREQUENCY), predictors, uses, MACHINE, share=4)
    elsewhere = Policy(eviction=Eviction.LRU, missing=Missing.HOST)
    with pytest.raises(ForestageError, match="fetches what is missing"):
        compare(part, elsewhere, predictors, uses, MACHINE, share=4)
