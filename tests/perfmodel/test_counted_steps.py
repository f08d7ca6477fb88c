"""Of a run of which only the later steps are counted: what came before is a run of its own."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.engine import simulate
from predictor.policies.plan import Missing
from tests.perfmodel.random_cases import random_case


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), missing=st.sampled_from([Missing.FETCH, Missing.HOST]), share=st.floats(0, 1))
def test_the_first_steps_run_alone_as_they_do_in_the_whole(seed: int, missing: Missing, share: float) -> None:
    workload, durations, plan = random_case(seed, missing=missing)
    first = round(share * len(workload.timed))
    whole, before = simulate(workload, durations, plan), simulate(workload.head(first), durations, plan)
    assert np.array_equal(whole.step_ps[:first], before.step_ps)
    rest = whole.less(before)
    assert not rest.step_ps[:first].any()
    assert sum(vars(rest.parts).values()) == rest.step_ps.sum() == whole.step_ps[first:].sum()
    counts = rest.counts
    needed = np.diff(workload.offsets).reshape(-1, workload.layers)[first:][workload.timed[first:]]
    assert counts.lookups == needed.sum() == counts.hits + counts.fetched + counts.computed
    # Every byte over the link is whole transfers', or given up; what was on its way in between belongs to both.
    assert counts.fetched == counts.demands + counts.late
    assert 0 <= rest.link_busy_ps <= rest.step_ps.sum()
    assert 0 <= rest.host_busy_ps <= rest.step_ps.sum()
