"""The compiled simulation against the reference engine, time for time and count for count."""

import numpy as np
import pytest

from catalog.errors import ForestageError
from perfmodel import engine
from perfmodel.compiled import simulation as compiled
from perfmodel.run import Run
from predictor.policies.plan import Missing
from tests.perfmodel.random_cases import random_case

QUICK = 400
LONG = 20_000


def same(one: Run, other: Run) -> bool:
    """Whether two runs found the same."""
    return (
        np.array_equal(one.step_ps, other.step_ps)
        and (one.parts, one.counts) == (other.parts, other.counts)
        and (one.link_busy_ps, one.host_busy_ps) == (other.link_busy_ps, other.host_busy_ps)
    )


def differing(seeds: range, missing: Missing | None = None) -> list[int]:
    """Seeds whose case the two engines run differently."""
    found = []
    for seed in seeds:
        case = random_case(seed, missing=missing)
        if not same(engine.simulate(*case), compiled.simulate(*case)):
            found.append(seed)
    return found


@pytest.mark.parametrize("missing", Missing)
def test_both_engines_agree_to_the_picosecond(missing: Missing) -> None:
    assert not differing(range(QUICK), missing)


@pytest.mark.long
def test_both_engines_agree_on_many_cases() -> None:
    assert not differing(range(QUICK, LONG))


def test_the_comparison_meets_what_it_should_compare() -> None:
    counts = [compiled.simulate(*random_case(seed, missing=Missing.FETCH)).counts for seed in range(QUICK)]
    for name in ("hits", "demands", "late", "ahead", "useful", "wasted", "dropped", "refused", "abandoned_bytes"):
        assert sum(getattr(of, name) for of in counts) > QUICK // 10, name
    runs = [compiled.simulate(*random_case(seed, missing=Missing.SOONER)) for seed in range(QUICK)]
    mixed = [run for run in runs if run.counts.computed and run.counts.fetched]
    assert len(mixed) > QUICK // 20
    assert sum(run.parts.host_wait > 0 for run in runs) > QUICK // 20


def test_a_stager_of_another_shape_is_refused() -> None:
    workload, durations, plan = random_case(0)
    _, _, other = next(case for case in map(random_case, range(1, 50)) if case[2].limits.layers != plan.limits.layers)
    with pytest.raises(ForestageError, match=r"stager: .* layers of .* experts"):
        compiled.simulate(workload, durations, other)
