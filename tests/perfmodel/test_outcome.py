"""What a simulation says it found."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfmodel.outcome import Outcome
from perfmodel.results import TokenTime
from perfmodel.simulator import Simulator
from perfmodel.units import PS_PER_S
from predictor.policies.parts import Predictors, part_of
from predictor.policies.plan import Missing
from predictor.policies.policy import Eviction, Policy, Prefetch
from staging.steps import decode_steps
from tests.perfmodel.micro import EXPERT_BYTES, make_catalog, make_config, make_trace, simulate

LRU = Policy(eviction=Eviction.LRU)
ROWS = [[[0, 1], [2, 3]], [[1, 2], [3, 0]], [[1, 3], [2, 0]]]


@pytest.fixture
def catalog(tmp_path: Path) -> Any:
    return make_catalog(tmp_path, layers=2, experts=4, top_k=2)


def test_a_percentile_is_the_time_of_the_token_that_so_many_do_not_exceed() -> None:
    times = TokenTime.of([PS_PER_S * n for n in range(200, 0, -1)])
    assert (times.mean_s, times.p50_s, times.p95_s, times.p99_s) == (100.5, 100, 190, 198)


def test_an_outcome_is_of_the_mean_step_and_its_parts_sum_to_it(catalog: Any) -> None:
    found = simulate(make_trace(ROWS, experts=4), LRU, make_config(capacity_experts=6), catalog)
    outcome = found.simulator.outcome(LRU, found.run)
    assert sum(outcome.parts_s.values()) == pytest.approx(outcome.tpot.mean_s, rel=1e-12)
    assert outcome.tpot.mean_s == pytest.approx(sum(found.step_ps) / 3 / PS_PER_S, rel=1e-12)
    # Three places a layer. Layer 0: 0 1 | 1 2 | 1 3: four loads. Layer 1: 2 3 | 3 0 | 2 0: three.
    assert (outcome.hit_rate, outcome.moved, outcome.fetched) == (5 / 12, 7 / 3, 7 / 3)
    assert outcome.moved_bytes == 7 * EXPERT_BYTES / 3
    assert outcome.link_busy == found.run.link_busy_ps / sum(found.step_ps)
    assert Outcome.model_validate_json(outcome.model_dump_json()) == outcome


def test_the_links_roofline_is_beladys_loads_less_what_is_there_at_the_start(catalog: Any) -> None:
    # Belady's rule loads four and three; with a place for each of six at the start one load is left.
    part = part_of(make_trace(ROWS, experts=4), decode_steps(make_trace(ROWS, experts=4)), Predictors())
    uses = np.ones((2, 4), np.int64)
    slow = make_config(capacity_experts=6, link_gb_per_s=0.001)
    assert Simulator.of(part, slow, uses, host=False, catalog=catalog).link_roofline_s == 1 * 30_000 / 1e6 / 3
    fast = Simulator.of(part, make_config(capacity_experts=6, link_gb_per_s=1000), uses, host=False, catalog=catalog)
    assert fast.link_roofline_s == fast.all_resident_s
    none = make_config(capacity_experts=1)  # of two layers: none has a place
    found = Simulator.of(part, none, uses, host=False, catalog=catalog)
    assert (found.places, found.link_roofline_s) == (0, None)


def test_the_reference_tells_how_far_it_is(catalog: Any) -> None:
    trace = make_trace(ROWS, experts=4, prompts=[0])
    part = part_of(trace, decode_steps(trace), Predictors())
    simulator = Simulator.of(
        part, make_config(capacity_experts=4), np.ones((2, 4), np.int64), host=False, catalog=catalog
    )
    seen: list[tuple[int, int]] = []
    simulator.run_reference(LRU, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 3), (3, 3)]


def test_a_part_for_one_policy_knows_what_it_needs_and_no_more() -> None:
    trace = make_trace(ROWS, experts=4)
    steps = decode_steps(trace)
    for policy in (
        LRU,
        Policy(eviction=Eviction.FREQUENCY, prefetch=Prefetch.PERFECT),
        Policy(eviction=Eviction.ORACLE, missing=Missing.HOST, background=True),
    ):
        whole, part = part_of(trace, steps, Predictors()), part_of(trace, steps, Predictors(), only=policy)
        assert set(part.values) == {policy.eviction} & set(whole.values)
        assert set(part.predictions) == {policy.prefetch} & set(whole.predictions)
        for kind, values in part.values.items():
            assert np.array_equal(values.rows, whole.values[kind].rows)
