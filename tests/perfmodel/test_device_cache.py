"""Slots that are reserved before they are filled."""

import pytest

from perfmodel.device_cache import DeviceCache

Key = tuple[int, int]


def cache_with(keys: list[Key], *, capacity: int, evicted: list[Key] | None = None) -> DeviceCache:
    cache = DeviceCache(
        layers=2, capacity=capacity, scope="global", evicted=[].append if evicted is None else evicted.append
    )
    for key in keys:
        assert cache.reserve(key, insist=False)
        cache.fill(key)
    return cache


def test_an_expert_is_resident_when_its_place_is_filled() -> None:
    cache = DeviceCache(layers=2, capacity=2, scope="global")
    assert cache.reserve((0, 1), insist=False)
    assert (0, 1) not in cache
    cache.fill((0, 1))
    assert (0, 1) in cache


def test_a_reserved_place_is_taken_and_given_back() -> None:
    evicted: list[Key] = []
    cache = cache_with([(0, 0)], capacity=2, evicted=evicted)
    assert cache.reserve((0, 1), insist=False)
    assert cache.reserve((0, 2), insist=True)
    assert evicted == [(0, 0)]
    assert not cache.reserve((0, 3), insist=True)  # both places are on the way
    cache.release((0, 1))
    assert cache.reserve((0, 3), insist=False)
    assert evicted == [(0, 0)]


def test_the_least_recently_used_gives_way_and_filling_counts_as_use() -> None:
    evicted: list[Key] = []
    cache = cache_with([(0, 0), (0, 1), (0, 2)], capacity=3, evicted=evicted)
    cache.begin_use([(0, 0)])
    cache.end_use()
    for expert in (3, 4):
        cache.reserve((0, expert), insist=False)
        cache.fill((0, expert))
    assert evicted == [(0, 1), (0, 2)]


def test_experts_in_use_are_never_evicted() -> None:
    cache = cache_with([(0, 0), (0, 1)], capacity=2)
    cache.begin_use([(0, 0), (0, 1)])
    assert not cache.reserve((0, 2), insist=True)
    cache.end_use()
    assert cache.reserve((0, 2), insist=False)


def test_protected_experts_give_way_only_to_who_insists_and_one_at_a_time() -> None:
    evicted: list[Key] = []
    cache = cache_with([(0, 0), (1, 1), (1, 2)], capacity=3, evicted=evicted)
    cache.begin_use([(0, 0)])
    cache.protect([(1, 1), (1, 2), (1, 5)])
    assert not cache.reserve((0, 3), insist=False)
    assert cache.reserve((0, 3), insist=True)
    assert evicted == [(1, 1)]
    assert not cache.reserve((0, 4), insist=False)  # (1, 2) is still protected
    cache.unprotect([(1, 1), (1, 2), (1, 5)])
    assert cache.reserve((0, 4), insist=False)
    assert evicted == [(1, 1), (1, 2)]


def test_each_layer_has_places_of_its_own_or_all_share() -> None:
    apart = DeviceCache(layers=2, capacity=3, scope="layer")
    together = DeviceCache(layers=2, capacity=3, scope="global")
    assert (apart.places, together.places) == (1, 3)
    for cache in (apart, together):
        for key in ((0, 0), (1, 0), (0, 1)):
            cache.reserve(key, insist=False)
            cache.fill(key)
    assert [(0, 0) in apart, (1, 0) in apart, (0, 1) in apart] == [False, True, True]
    assert all(key in together for key in ((0, 0), (1, 0), (0, 1)))


def test_what_is_not_reserved_is_not_filled() -> None:
    cache = cache_with([(0, 0)], capacity=2)
    with pytest.raises(KeyError):
        cache.fill((0, 1))
    with pytest.raises(KeyError):
        cache.release((0, 0))
