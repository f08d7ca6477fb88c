"""Every predictor is one algorithm in two forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor import registry
from predictor.base import stream_trace
from tests.st_moe_samples import routing_trace

KINDS = [
    *((name, {}) for name in registry.profiled_names()),
    ("previous-token", {"fill": "recency"}),
    ("previous-token", {"fill": "none"}),
]


@pytest.mark.parametrize(("name", "parameters"), KINDS)
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    lookahead=st.integers(1, 4),
    top_k=st.integers(1, 5),
    unrecorded=st.sampled_from([0.0, 0.3]),
    chunk_tokens=st.integers(1, 30),
)
def test_batch_equals_streaming(name, parameters, seed, lookahead, top_k, unrecorded, chunk_tokens):
    shape = {"layers": 5, "experts": 9, "top_k": top_k, "unrecorded": unrecorded}
    train = routing_trace(seed=seed, lengths=(20, 5), **shape)
    test = routing_trace(seed=seed + 1, lengths=(6, 1, 1, 11), **shape)
    fitted = registry.fit(name, train, lookahead=lookahead, parameters=parameters)
    streamed = stream_trace(fitted, test)
    # The streaming state is now at the trace's end: the batch form must start from the profile all the same.
    batch = np.empty_like(streamed)
    for first, scores in fitted.score_chunks(test, chunk_tokens=chunk_tokens):
        batch[first : first + len(scores)] = scores
    np.testing.assert_array_equal(batch, streamed)
    np.testing.assert_array_equal(fitted.score_trace(test), streamed)
    np.testing.assert_array_equal(stream_trace(fitted, test), streamed, err_msg="reset does not return to the profile")


@pytest.mark.parametrize(("name", "parameters"), KINDS)
@pytest.mark.parametrize("lookahead", [1, 3])
def test_the_answer_does_not_depend_on_when_it_is_asked(name, parameters, lookahead):
    shape = {"layers": 6, "experts": 9, "top_k": 3, "unrecorded": 0.2}
    test = routing_trace(seed=2, lengths=(8, 4), **shape)
    fitted = registry.fit(
        name, routing_trace(seed=1, lengths=(30,), **shape), lookahead=lookahead, parameters=parameters
    )
    earliest = stream_trace(fitted, test)
    fitted.reset()
    recorded = test.recorded()
    latest = np.empty_like(earliest)
    for token in range(test.tokens):
        if token in test.sequence_offsets:
            fitted.start_sequence()
        for layer in range(test.layers):
            latest[token, layer] = fitted.predict(layer)
            fitted.observe(layer, test.expert_ids[token, layer] if recorded[token, layer] else None)
    np.testing.assert_array_equal(latest, earliest)


@pytest.mark.parametrize("name", registry.profiled_names())
def test_a_longer_future_does_not_change_the_past(name):
    """No predictor looks at what it is to predict: a prefix of a trace scores as it does within the whole."""
    train = routing_trace(seed=1, lengths=(30,))
    test = routing_trace(seed=2, lengths=(10,))
    fitted = registry.fit(name, train)
    np.testing.assert_array_equal(fitted.score_trace(test.token_range(0, 6)), fitted.score_trace(test)[:6])
