"""The oracle of short sight against its definition, token by token."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from staging.frequency import COUNTER_BITS, DecayedCounters
from staging.oracle import oracle_chunks
from tests.staging.staging_samples import EMA_SHIFT, small_traces


@settings(max_examples=40, deadline=None)
@given(trace=small_traces(), horizon=st.integers(1, 6), chunk=st.integers(1, 9))
def test_an_oracle_knows_the_next_tokens_and_not_one_more_or_less(trace, horizon, chunk):
    recorded = trace.recorded()
    counters = DecayedCounters(trace.layers, trace.experts, EMA_SHIFT)
    expected = np.empty((trace.tokens, trace.layers, trace.experts), np.int64)
    for token in range(trace.tokens):
        for layer in range(trace.layers):
            if recorded[token, layer]:
                counters.observe(layer, trace.expert_ids[token, layer])
            expected[token, layer] = counters.values[layer]
            for distance in range(horizon, 0, -1):
                later = token + distance
                if later < trace.tokens and recorded[later, layer]:
                    expected[token, layer, trace.expert_ids[later, layer]] = (1 << COUNTER_BITS) + horizon - distance
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("staging.oracle.CHUNK_TOKENS", chunk)
        chunks = [(first, part.copy()) for first, part, _ in oracle_chunks(trace, horizon, ema_shift=EMA_SHIFT)]
    assert [first for first, _ in chunks] == list(range(0, trace.tokens, chunk))
    assert np.concatenate([part for _, part in chunks]).tolist() == expected.tolist()
