"""What holds of every run: the engine's own assertions, and what its figures must say of each other."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.engine import simulate
from predictor.policies.plan import Missing
from tests.perfmodel.random_cases import random_case


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), missing=st.sampled_from([Missing.FETCH, Missing.HOST, Missing.IN_MEMORY]))
def test_accounts_are_whole_in_every_case(seed: int, missing: Missing) -> None:
    workload, durations, plan = random_case(seed, missing=missing)
    run = simulate(workload, durations, plan)
    steps, parts, counts = np.flatnonzero(workload.timed), run.parts, run.counts

    assert (run.step_ps[~workload.timed] == 0).all()
    spent = parts.compute + parts.hbm + parts.demand_wait + parts.late_wait + parts.host_wait
    assert spent == run.step_ps.sum()
    needed = np.diff(workload.offsets).reshape(-1, workload.layers)[steps]
    assert counts.lookups == needed.sum() == counts.hits + counts.fetched + counts.computed
    assert counts.fetched == counts.demands + counts.late
    assert (counts.computed if missing.may_fetch else counts.fetched) == 0
    assert max(run.link_busy_ps, run.host_busy_ps) <= spent
    # Whatever waits, a step takes no less than its kernels before gates and its shared experts.
    least = workload.before_gate_ps[steps].sum() + workload.shared_ps[steps].sum() * workload.layers
    assert parts.compute + parts.hbm >= least


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_run_is_reproducible(seed: int) -> None:
    first = simulate(*random_case(seed, missing=Missing.FETCH))
    again = simulate(*random_case(seed, missing=Missing.FETCH))
    assert (first.parts, first.counts, first.link_busy_ps) == (again.parts, again.counts, again.link_busy_ps)
    assert (first.step_ps == again.step_ps).all()
