"""Belady's rule is the bound: nothing does better, and something does as well."""

from functools import cache
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from staging.simulate import simulate
from tests.staging.staging_samples import plain_events, small_traces


@pytest.mark.parametrize("policy", ["lru", "lfu", "ema"])
@settings(max_examples=80, deadline=None)
@given(trace=small_traces(), capacity=st.integers(1, 10), scope=st.sampled_from(["layer", "global"]))
def test_no_policy_beats_belady(policy, trace, capacity, scope):
    bound = simulate(trace, capacity=capacity, policy="belady", scope=scope, count="all")
    assert simulate(trace, capacity=capacity, policy=policy, scope=scope, count="all").hits <= bound.hits


@settings(max_examples=80, deadline=None)
@given(trace=small_traces(), capacity=st.integers(1, 10), scope=st.sampled_from(["layer", "global"]))
def test_a_larger_cache_is_no_worse_under_belady(trace, capacity, scope):
    hits = [
        simulate(trace, capacity=room, policy="belady", scope=scope, count="all").hits
        for room in (capacity, capacity + 1)
    ]
    assert hits[0] <= hits[1]


def most_hits(events, capacity):
    """The most hits that any choice of evictions gives, by trying them all (one cache; the event rule)."""

    @cache
    def best(now, resident):
        if now == len(events):
            return 0
        layer, _, experts = events[now]
        event = frozenset((layer, e) for e in experts)
        hits = len(event & resident)
        if len(event) >= capacity:
            choices = combinations(sorted(event), capacity)
            return hits + max(best(now + 1, frozenset(kept)) for kept in choices)
        others = sorted(resident - event)
        kept_others = min(len(others), capacity - len(event))
        return hits + max(best(now + 1, event | set(kept)) for kept in combinations(others, kept_others))

    return best(0, frozenset())


@settings(max_examples=80, deadline=None)
@given(trace=small_traces(max_tokens=7), capacity=st.integers(1, 5))
def test_belady_is_the_optimum_of_every_choice(trace, capacity):
    ours = simulate(trace, capacity=capacity, policy="belady", scope="global", count="all", prefill="pass")
    assert ours.hits == most_hits(tuple((a, b, tuple(c)) for a, b, c in plain_events(trace)), capacity)
