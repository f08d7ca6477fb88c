"""The streaming cache."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import ForestageError
from staging.priority_cache import EmaCache
from staging.residency import LruCache
from staging.simulate import simulate
from tests.staging.staging_samples import plain_events, small_traces


def test_least_recent_gives_way():
    cache = LruCache(2)
    assert cache.insert(0, 1) is None
    assert cache.insert(0, 2) is None
    cache.touch(0, 1)
    assert cache.insert(1, 2) == (0, 2)
    assert list(cache) == [(0, 1), (1, 2)]
    assert cache.insert(0, 1) is None  # resident: used again
    assert list(cache) == [(1, 2), (0, 1)]
    assert len(cache) == 2


def test_lookup_changes_nothing():
    cache = LruCache(2)
    cache.insert(0, 1)
    cache.insert(0, 2)
    assert cache.lookup(0, [1, 3]).tolist() == [True, False]
    assert cache.contains(0, 1)
    assert not cache.contains(1, 1)
    assert (0, 2) in cache
    assert cache.insert(0, 5) == (0, 1)


def test_touching_an_absent_expert_is_a_fault():
    with pytest.raises(KeyError):
        LruCache(2).touch(0, 1)


def test_pinned_experts_stay():
    cache = LruCache(2)
    cache.pin(0, 1)
    cache.insert(0, 1)
    cache.insert(0, 2)
    assert cache.insert(0, 3) == (0, 2)
    cache.pin(0, 3)
    cache.pin(0, 3)
    assert cache.insert(0, 4) == (0, 4)  # nothing may give way: it passes through
    assert not cache.contains(0, 4)
    cache.unpin(0, 3)
    assert cache.insert(0, 4) == (0, 4)
    cache.unpin(0, 3)
    assert cache.insert(0, 4) == (0, 3)
    with pytest.raises(ValueError, match="expert 3 of layer 0 is not pinned"):
        cache.unpin(0, 3)


def test_unused_prefetches_are_counted_when_they_leave():
    cache = LruCache(2)
    cache.insert_prefetched(0, 1)
    cache.insert_prefetched(0, 2)
    cache.touch(0, 1)
    assert cache.insert_prefetched(0, 1) is None
    assert cache.insert(0, 3) == (0, 2)
    assert cache.unused_prefetches == 1
    assert cache.insert(0, 4) == (0, 1)  # it was used
    assert cache.unused_prefetches == 1


def test_prefetching_a_resident_expert_does_not_refresh_it():
    cache = LruCache(2)
    cache.insert(0, 1)
    cache.insert(0, 2)
    cache.insert_prefetched(0, 1)
    assert cache.insert(0, 3) == (0, 1)


def test_capacity_zero_keeps_nothing():
    cache = LruCache(0)
    assert cache.insert(0, 1) == (0, 1)
    assert cache.access(0, [1, 2]).tolist() == [False, False]
    with pytest.raises(ForestageError, match="capacity: -1 experts"):
        LruCache(-1)


def test_an_event_does_not_evict_what_it_needs():
    cache = LruCache(3)
    for expert in (1, 2, 3):
        cache.insert(0, expert)
    # 1 is the least recent, but the event needs it: 2 and 3 give way to 4 and 5.
    assert cache.access(0, [4, 5, 1]).tolist() == [False, False, True]
    assert list(cache) == [(0, 4), (0, 5), (0, 1)]


def test_an_event_larger_than_the_cache_keeps_its_last():
    cache = LruCache(2)
    cache.insert(0, 1)
    assert cache.access(0, [1, 2, 3]).tolist() == [True, False, False]
    assert list(cache) == [(0, 2), (0, 3)]


def test_a_prefetched_expert_that_the_event_needs_is_used():
    cache = LruCache(2)
    cache.insert_prefetched(0, 1)
    cache.insert(0, 2)
    assert cache.access(0, [3, 1]).tolist() == [False, True]
    assert cache.unused_prefetches == 0
    cache.insert(0, 4)
    cache.insert(0, 5)
    assert cache.unused_prefetches == 0


def test_an_event_of_pinned_experts_fills_no_more_than_fits():
    cache = LruCache(2)
    cache.insert(0, 1)
    for expert in (1, 2, 3):
        cache.pin(0, expert)
    assert cache.access(0, [2, 3]).tolist() == [False, False]
    assert list(cache) == [(0, 1), (0, 2)]


@settings(max_examples=100, deadline=None)
@given(
    trace=small_traces(),
    capacity=st.integers(1, 10),
    scope=st.sampled_from(["layer", "global"]),
    policy=st.sampled_from(["lru", "ema"]),
)
def test_streaming_equals_simulation(trace, capacity, scope, policy):
    shape = {"layers": trace.layers, "experts": trace.experts}
    caches = [LruCache(capacity) if policy == "lru" else EmaCache(capacity, **shape) for _ in range(trace.layers)]
    hits = lookups = 0
    for layer, _, experts in plain_events(trace):
        mask = caches[layer if scope == "layer" else 0].access(layer, experts)
        hits += mask.sum()
        lookups += len(mask)
    result = simulate(trace, capacity=capacity, policy=policy, scope=scope, count="all", prefill="pass")
    assert (result.hits, result.lookups) == (hits, lookups)
