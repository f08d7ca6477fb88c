"""What training sees of a trace: the twin's own sources, in floating point."""

from dataclasses import replace

import numpy as np
import pytest

from predictor.next_layer.predictor import NextLayerPredictor
from predictor.row_network.config import NetworkConfig
from predictor.row_network.inputs import CHECKPOINT, Examples
from tests.learned_samples import identified_trace, random_next_use, random_predictor
from tests.routing import trace_of

NO_TOKENS = np.empty(0, np.uint32)
PLAIN = {"identity_rows": 0, "identities": 0, "ngram_tables": (), "layers_back": 0, "previous": (), "decays": ()}


def examples_of(trace, **config):
    return Examples.of(
        trace, NetworkConfig(**{**PLAIN, **config}), ranked=trace.metadata.ranked, identity_tokens=NO_TOKENS
    )


@pytest.mark.parametrize("ngram_by", ["identity", "routing"])
@pytest.mark.parametrize("unrecorded", [0.0, 0.3])
@pytest.mark.parametrize("lookahead", [0, 1, 3])
def test_inputs_are_the_twins_sources(unrecorded, ngram_by, lookahead):
    """With tables of small integers, no rounding and no decay, the float sums are the twin's own."""
    plain = {"decays": (), "previous": ((1, 1), (0, 0)), "ngram_by": ngram_by}
    if lookahead:
        bank = {"nearest": 1, "farthest": 3, "layers_back": 4, "identity_rows": 0, "identities": 0}
        predictor = random_predictor(seed=5, ranked=False, adaptation=False, lookahead=lookahead, **plain, **bank)
    else:
        predictor = random_next_use(np.random.default_rng(5), layers=5, experts=9, top_k=3, at_match=True, **plain)
    network = predictor.network
    trace = identified_trace(layers=5, experts=9, lengths=(27, 3), unrecorded=unrecorded, seed=5)
    examples = Examples.of(trace, network.config, ranked=False, identity_tokens=NO_TOKENS)
    assert (examples.named >= 0).any(axis=1).all()
    every = np.arange(trace.tokens)
    inputs = examples.inputs(every, np.full(trace.tokens, lookahead)).reshape(5, trace.tokens, -1)
    shifted = network.tables.rows.astype(np.int64) << network.tables.source_shifts[:, :, None, None]
    sums = np.einsum("lti,lih->tlh", inputs, shifted.reshape(5, -1, network.config.hidden))
    recorded = trace.recorded()
    for token in range(trace.tokens):
        if token in trace.sequence_offsets:
            predictor.start_sequence()
        predictor.start_token(int(trace.token_hash[token]))
        for target in range(lookahead):
            np.testing.assert_array_equal(network._state.now[target], sums[token, target])
        for layer in range(5):
            predictor.observe(layer, trace.expert_ids[token, layer] if recorded[token, layer] else None)
            if layer < 4 and layer + lookahead < 5:
                np.testing.assert_array_equal(network._state.now[layer + lookahead], sums[token, layer + lookahead])


def test_any_tokens_may_be_asked_in_any_order():
    """Decayed sums are carried on from the nearest checkpoint, of this sequence or its start."""
    lengths = (CHECKPOINT + 5, 3, 2 * CHECKPOINT)
    trace = identified_trace(layers=3, experts=6, top_k=2, lengths=lengths, unrecorded=0.2)
    examples = examples_of(trace, decays=((2, 1), (5, 0)), previous=((0, 0),), layers_back=1)
    every = np.arange(trace.tokens)
    whole = examples.inputs(every, np.ones(trace.tokens, np.int64))
    order = np.random.default_rng(1).permutation(trace.tokens)
    np.testing.assert_array_equal(examples.inputs(order, np.ones(trace.tokens, np.int64)), whole[:, order])
    state = np.zeros((3, 6))
    rank_weights = np.array([2.0, 0.5])
    for token in range(trace.tokens):
        if token in trace.sequence_offsets:
            state[:] = 0
        # The last source: shift 5, whose sums have a gain of 4.
        np.testing.assert_allclose(whole[:, token, -1], 4 * state, rtol=1e-4, atol=1e-6)
        for layer in range(3):
            fresh = np.zeros(6)
            if examples.held[token, layer, 0] >= 0:
                fresh[examples.held[token, layer]] = rank_weights
            state[layer] += (fresh - state[layer]) / 32


def test_decayed_inputs_by_hand():
    """One expert chosen at the first token alone: 2^-2 of it, then three quarters of that, times a gain of 2."""
    examples = examples_of(trace_of([[[0]], [[1]], [[1]]], experts=2), decays=((2, 0),))
    found = examples.inputs(np.arange(3), np.ones(3, np.int64))
    np.testing.assert_allclose(found[0, :, 0, 0], [0, 2 * 0.25 * 0.5, 2 * 0.1875 * 0.5])


def test_what_followed_by_hand():
    """One layer of 8 experts; windows of the matched token, of the next, and of the second and third after it."""
    ids = [[[e]] for e in (0, 1, 2, 3, 255, 5, 6, 7)]
    trace = trace_of(ids, experts=8, lengths=[7, 1])
    # Token by token the words stand for: a b a b c b b | a, so that what is named is 0, 1, then 3 and 5.
    trace = replace(trace, token_hash=np.array([1, 2, 1, 2, 3, 2, 2, 1], np.uint32))

    def followed(log_tokens: int) -> list[list[list[int]]]:
        examples = examples_of(
            trace, ngram_tables=(1,), at_match=False, continuation_windows=((0, 0), (1, 1), (2, 3)),
            log_tokens=log_tokens,
        )  # fmt: skip
        found = examples.inputs(np.arange(8), np.ones(8, np.int64))[0]
        return [[np.flatnonzero(column).tolist() for column in token] for token in found]

    # Token 4 was not recorded; what is not older than the token itself has not happened.
    none = [[], [], []]
    assert followed(8) == [none, none, [[0], [1], []], [[1], [2], []], none, [[3], [], []], [[5], [], []], none]
    # A log of 2 holds this token and the one before it.
    assert followed(2) == [none, none, [[], [1], []], [[], [2], []], none, none, [[5], [], []], none]


def test_an_expert_that_followed_twice_counts_twice():
    trace = trace_of([[[0]], [[1]], [[1]], [[2]]], experts=4)
    trace = replace(trace, token_hash=np.array([7, 8, 9, 7], np.uint32))
    examples = examples_of(trace, ngram_tables=(1,), at_match=False, continuation_windows=((1, 2),))
    weight = examples.rank_weights[0]
    assert examples.inputs(np.array([3]), np.ones(1, np.int64))[0, 0, 0].tolist() == [0, 2 * weight, 0, 0]


def test_matches_by_hand():
    """Tokens 5 and 7; one entry a table, so that every token takes the entry of the one before it."""
    trace = trace_of(np.zeros((7, 1, 1), int), experts=2, lengths=[5, 2])
    trace = replace(trace, token_hash=np.array([5, 7, 5, 7, 7, 7, 7], np.uint32))
    found = examples_of(trace, ngram_tables=(1, 2)).named.tolist()
    assert found[:2] == [[-1, -1, 0, 1, 3, -1, 5], [-1, -1, -1, 1, -1, -1, -1]]
    found = examples_of(trace, ngram_tables=(1, 2), ngram_entries=1).named.tolist()
    assert found[:2] == [[-1, -1, -1, -1, 3, -1, 5], [-1] * 7]


def test_training_and_twin_mean_the_same_rows_of_identity():
    """Those of all others, and none before a sequence begins."""
    predictor: NextLayerPredictor = random_predictor()
    trace = identified_trace(layers=5, experts=9, lengths=(6, 4))
    examples = Examples.of(trace, predictor.config, ranked=True, identity_tokens=predictor.tables.identity_tokens)
    now, before = examples.identities(np.arange(10))
    expected = predictor.network.identity_index(np.asarray(trace.token_hash).astype(np.int64))
    np.testing.assert_array_equal(now, expected)
    assert set(now) == {0, 1, 4}
    assert before.tolist() == [5, *now[:5], 5, *now[6:9]]
