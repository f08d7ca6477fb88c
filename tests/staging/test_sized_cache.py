"""The indexed heap against a plain dictionary."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from staging.sized_cache import push, remove

KEYS = 40


@settings(deadline=None)  # the first call compiles
@given(seed=st.integers(0, 1 << 16), spread=st.sampled_from([3, 1000]))
def test_the_top_is_the_least_after_every_change(seed, spread):
    generator = np.random.default_rng(seed)
    changes = zip(generator.integers(KEYS, size=300), generator.integers(spread, size=300), strict=True)
    heap, place = np.empty(KEYS, np.int32), np.full(KEYS, -1, np.int32)
    rank = np.zeros(KEYS, np.int64)
    size, plain = 0, {}
    for key, new_rank in ((int(key), int(rank)) for key, rank in changes):
        if key in plain:  # present: take it out; absent: put it in
            size = remove(heap, place, rank, size, key)
            del plain[key]
        else:
            rank[key] = plain[key] = new_rank
            size = push(heap, place, rank, size, key)
        assert size == len(plain)
        assert {int(key) for key in heap[:size]} == set(plain)
        assert all(heap[place[key]] == key for key in plain)
        assert all(place[key] == -1 for key in range(KEYS) if key not in plain)
        if plain:
            assert rank[heap[0]] == min(plain.values())
