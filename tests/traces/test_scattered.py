"""Ids of scattered tokens, against plain indexing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.traces.trace_samples import make_trace, traces
from traces import RoutingTrace, scattered
from traces.scattered import gather_groups, gather_ids


@settings(max_examples=40, deadline=None)
@given(trace=traces(), chunk=st.integers(1, 5), seed=st.integers(0, 99))
def test_ids_come_in_the_order_of_the_tokens_asked_for(trace: RoutingTrace, chunk: int, seed: int) -> None:
    tokens = np.random.default_rng(seed).integers(trace.tokens, size=9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scattered, "CHUNK_TOKENS", chunk)
        ids = gather_ids(trace, tokens)
    assert ids.dtype == trace.expert_ids.dtype
    assert (ids == trace.expert_ids[tokens]).all()


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=12), chunk=st.integers(1, 8))
def test_groups_come_whole_and_as_many_at_a_time_as_fit(sizes: list[int], chunk: int) -> None:
    trace = make_trace((sum(sizes),))
    tokens = np.random.default_rng(0).permutation(trace.tokens)
    offsets = np.cumsum([0, *sizes])
    found, expected = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scattered, "CHUNK_TOKENS", chunk)
        for part in gather_groups(trace, tokens, offsets):
            assert (part.ids == trace.expert_ids[tokens[offsets[part.first] : offsets[part.last]]]).all()
            assert part.offsets.tolist() == (offsets[part.first : part.last + 1] - offsets[part.first]).tolist()
            found.append(list(range(part.first, part.last)))
    for group, size in enumerate(sizes):
        if expected and sum(sizes[i] for i in expected[-1]) + size <= chunk:
            expected[-1].append(group)
        else:
            expected.append([group])
    assert found == expected
