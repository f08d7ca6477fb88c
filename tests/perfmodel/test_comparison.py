"""Policies compared on one machine: what is chosen, what is best, and the bounds beside it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from catalog.errors import ForestageError
from perfmodel.comparison import compare
from perfmodel.config import SimulationConfig
from perfmodel.simulator import Simulator
from predictor.measure.bootstrap import Bootstrap, interval
from predictor.measure.metrics import Ratio
from predictor.policies.parts import Part, Predictors, part_of, within
from predictor.policies.plan import Missing
from predictor.policies.policy import Eviction, Policy, Prefetch, plan_of
from predictor.policies.rows import BASELINES, rows_of
from staging.static import uses_of
from staging.steps import batch_steps, decode_steps, verification_steps
from tests.learned_samples import random_next_use, random_predictor
from tests.perfmodel.micro import make_catalog, make_config
from tests.routing import trace_of
from traces.batch import BatchConfig, make_schedule

LAYERS, EXPERTS, TOP_K = 3, 8, 2


def routing(seed: int, tokens: int = 60) -> Any:
    """Experts that are often the last token's again, one of eight much liked."""
    random = np.random.default_rng(seed)
    ids = np.empty((tokens, LAYERS, TOP_K), np.int64)
    weights = np.array([8, 4, 2, 1, 1, 1, 1, 1]) / 19
    for token in range(tokens):
        for layer in range(LAYERS):
            again = token > 0 and random.random() < 0.6
            ids[token, layer] = (
                ids[token - 1, layer] if again else random.choice(EXPERTS, TOP_K, replace=False, p=weights)
            )
    trace = trace_of(ids, experts=EXPERTS, lengths=[20, 20, 20], model="micro")
    return replace(trace, token_hash=random.integers(8, 12, tokens).astype(np.uint32))


def made(seed: int, drafted: int = 1, **predictors: Any) -> Part:
    trace = routing(seed)
    steps = verification_steps(trace, drafted) if drafted > 1 else decode_steps(trace)
    return part_of(trace, steps, Predictors(**predictors))


def uses(part: Part) -> Any:
    return uses_of(part.steps, part.needed, LAYERS, EXPERTS)


def learned() -> dict[str, Any]:
    random = np.random.default_rng(0)
    shape = {"layers": LAYERS, "experts": EXPERTS, "top_k": TOP_K}
    return {
        "next_use": random_next_use(random, **shape),
        "next_layer": random_predictor(**shape),
    }


@pytest.fixture
def catalog(tmp_path) -> Any:
    return make_catalog(tmp_path, layers=LAYERS, experts=EXPERTS, top_k=TOP_K)


def config(**values: Any) -> SimulationConfig:
    host = {"host_gb_per_s": 0.05, "host_tflops": 0.01}
    return make_config(**{"capacity_fraction": 0.5, "link_gb_per_s": 0.02, "scope": "global", **host, **values})


def test_each_row_is_the_fastest_of_its_candidates_on_the_tuning_tokens(catalog) -> None:
    tuning, test = made(1), made(2)
    found = compare(tuning, test, config(), uses(tuning), host=True, catalog=catalog)
    trial = Simulator.of(tuning, config(), uses(tuning), host=True, catalog=catalog)
    real = Simulator.of(test, config(), uses(tuning), host=True, catalog=catalog)
    rows = {row.name: row for row in rows_of(test, host=True)}
    assert [line.name for line in found.lines] == list(rows)
    for line in found.lines:
        for tried in line.tried:
            assert tried.step_s == int(trial.run(tried.policy).step_ps.sum()) / 60 / 1e12
        told = {tried.policy for tried in line.tried}
        for candidate in rows[line.name].candidates:
            assert {candidate.policy.model_copy(update={"price": price}) for price in candidate.prices} <= told
        assert line.tuning_s == min(tried.step_s for tried in line.tried)
        assert line.policy in {tried.policy for tried in line.tried if tried.step_s == line.tuning_s}
        assert line.outcome == real.outcome(line.policy, real.run(line.policy))


def test_each_rows_gain_is_over_the_baseline_of_its_family(catalog) -> None:
    tuning, test = made(1), made(2)
    found = compare(tuning, test, config(), uses(tuning), host=True, catalog=catalog)
    for line in found.lines:
        baseline = found.line(BASELINES[line.family])
        if line is baseline:
            assert line.gain is None
            continue
        assert line.gain is not None
        assert line.gain.over == baseline.name
        assert line.gain.ratio == pytest.approx(baseline.outcome.tpot.mean_s / line.outcome.tpot.mean_s)
        assert line.gain.low is not None


def test_the_recommended_row_knows_no_future_and_its_gains_are_ratios_of_times(catalog) -> None:
    tuning, test = made(1), made(2)
    found = compare(tuning, test, config(), uses(tuning), host=True, catalog=catalog)
    best = found.line(found.recommended)
    honest = [line for line in found.lines if not line.is_oracle]
    assert best.tuning_s == min(line.tuning_s for line in honest)
    assert {gain.over for gain in found.gains} == {line.name for line in honest} - {best.name}
    real = Simulator.of(test, config(), uses(tuning), host=True, catalog=catalog)
    fastest = real.by_sequence(real.run(best.policy))
    for gain in found.gains:
        other = found.line(gain.over)
        assert gain.ratio == pytest.approx(other.outcome.tpot.mean_s / best.outcome.tpot.mean_s)
        ends = interval(Ratio(real.by_sequence(real.run(other.policy)), fastest), Bootstrap())
        assert (gain.low, gain.high) == ends


def test_no_policy_beats_its_bound(catalog) -> None:
    tuning, test = made(1), made(2)
    for fraction in (0.25, 0.5, 1.0):
        found = compare(
            tuning, test, config(capacity_fraction=fraction), uses(tuning), host=True, catalog=catalog,
            bootstrap=Bootstrap(resamples=0),
        )  # fmt: skip
        assert found.link_roofline_s is not None
        assert found.link_roofline_s >= found.all_resident_s
        for line in found.lines:
            assert line.outcome.tpot.mean_s >= found.all_resident_s
            if line.family == "fetch":
                assert line.outcome.tpot.mean_s >= found.link_roofline_s
        assert all(gain.low is None for gain in found.gains)
    assert found.all_resident_s == pytest.approx(found.line("LRU").outcome.tpot.mean_s)


def test_learned_rows_come_with_their_predictors_and_host_rows_with_a_host(catalog) -> None:
    assert {row.name for row in rows_of(made(1, **learned()), host=True)} - {
        row.name for row in rows_of(made(1), host=True)
    } == {"learned eviction", "learned prefetch", "learned", "background, learned"}
    assert {row.family for row in rows_of(made(1), host=False)} == {"fetch"}
    part = made(1, **learned())
    found = compare(part, made(2, **learned()), config(), uses(part), host=True, catalog=catalog)
    assert found.line("learned").policy.is_learned


def test_a_step_that_several_sequences_share_gives_no_interval_over_sequences(catalog) -> None:
    trace = routing(1)
    steps = batch_steps(trace, make_schedule(trace, BatchConfig(slots=2)))
    part = part_of(trace, steps, Predictors())
    assert part.mixes_sequences
    assert not made(1).mixes_sequences
    assert not made(1, drafted=4).mixes_sequences
    found = compare(part, part, config(), uses(made(1)), host=True, catalog=catalog)
    assert {line.gain.low for line in found.lines if line.gain is not None} == {None}
    assert {gain.low for gain in found.gains} == {None}


def test_verification_predicts_nothing_of_its_own_tokens(catalog) -> None:
    part = made(1, drafted=4, **learned())
    assert not {Prefetch.LEARNED, Prefetch.ST_MOE} & set(part.predictions)
    assert part.values[Eviction.LEARNED].at_step_end
    found = compare(part, part, config(), uses(part), host=True, catalog=catalog)
    assert found.link_roofline_s is None
    assert found.line("LRU").outcome.steps == 15
    assert found.line("LRU").outcome.tokens == 60


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"eviction": "static"}, "fetches nothing"),
        ({"eviction": "static", "missing": "host", "background": True}, "moves nothing"),
        ({"eviction": "lru", "background": True}, "recency is none"),
    ],
)
def test_policies_that_contradict_themselves_are_refused(values: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Policy.model_validate(values)


def test_a_policy_whose_foresight_is_not_given_is_refused() -> None:
    shape: dict[str, Any] = {"layers": 1, "experts": 2, "most_needed": 1, "places": 1, "scope": "global"}
    given: dict[str, Any] = {"hottest": np.zeros(0, np.int64), "values": {}, "predictions": {}}
    for policy, why in (
        (Policy(eviction=Eviction.LEARNED), "values of 'learned'"),
        (Policy(eviction=Eviction.LRU, prefetch=Prefetch.ST_MOE), "predictions of 'st-moe'"),
    ):
        with pytest.raises(ForestageError, match=why):
            plan_of(policy, **shape, **given)


def test_a_host_whose_arithmetic_is_unknown_is_refused(catalog) -> None:
    part = made(1)
    unknown = make_config(capacity_fraction=0.5, link_gb_per_s=0.02, scope="global", host_gb_per_s=0.05)
    with pytest.raises(ForestageError, match="host_tflops"):
        compare(part, part, unknown, uses(part), host=True, catalog=catalog)


def test_distances_beyond_the_model_are_left_out_and_none_is_refused() -> None:
    assert within((1, 2, 5), 3) == (1, 2)
    with pytest.raises(ForestageError, match="3 layers"):
        within((3, 5), 3)


def test_missing_experts_are_all_computed_by_the_host_beside_a_static_placement(catalog) -> None:
    part = made(1)
    simulator = Simulator.of(part, config(), uses(part), host=True, catalog=catalog)
    run = simulator.run(Policy(eviction=Eviction.STATIC, missing=Missing.HOST))
    assert run.counts.lookups == run.counts.hits + run.counts.computed
    assert run.counts.computed > 0
    assert run.link_busy_ps == 0
