"""Issue sets and metrics against a plain counting of sets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from st_moe_samples import routing_trace

from catalog.errors import ForestageError
from predictor import registry
from predictor.issue import issue_sets, perfect_issue_sets
from predictor.metrics import issued_per_layer, precision, recall, tally_predictor
from predictor.ranking import best_experts


@settings(deadline=None)  # the first call compiles
@given(
    scores=st.lists(st.integers(-3, 5), min_size=1, max_size=12),
    threshold=st.integers(-2, 4),
    limit=st.integers(0, 14),
)
def test_best_experts_are_the_first_of_a_stable_sort(scores, threshold, limit):
    best = np.full(limit, 99, np.int16)
    qualified = best_experts(np.array(scores, np.int32), threshold, best)
    expected = sorted((e for e in range(len(scores)) if scores[e] >= threshold), key=lambda e: (-scores[e], e))
    assert qualified == len(expected)
    assert best.tolist() == (expected + [-1] * limit)[:limit]


def plain_counts(scores, trace, limit, threshold, lookahead):
    """(rows, hits, issued) over the trace; ``limit`` None: uncapped."""
    rows = hits = issued = 0
    recorded = trace.recorded()
    for token in range(trace.tokens):
        for layer in range(lookahead, trace.layers):
            if not recorded[token, layer]:
                continue
            row = scores[token, layer]
            order = sorted((e for e in range(len(row)) if row[e] >= threshold), key=lambda e: (-row[e], e))[:limit]
            rows += 1
            hits += len(set(order) & set(trace.expert_ids[token, layer].tolist()))
            issued += len(order)
    return rows, hits, issued


@pytest.mark.parametrize("name", ["markov-spatial", "st-moe"])
@pytest.mark.parametrize("lookahead", [1, 2])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), unrecorded=st.sampled_from([0.0, 0.3]), chunk_tokens=st.integers(1, 20))
def test_tally_equals_plain_counting(name, lookahead, seed, unrecorded, chunk_tokens):
    train = routing_trace(seed=seed, unrecorded=unrecorded)
    test = routing_trace(seed=seed + 1, lengths=(4, 8), unrecorded=unrecorded)
    fitted = registry.fit(name, train, lookahead=lookahead)
    scores = fitted.score_trace(test)
    tally = tally_predictor(fitted, test, (2, 5), chunk_tokens=chunk_tokens).over((0, 1))
    for column, limit in enumerate((2, 5, None)):
        rows, hits, issued = plain_counts(scores, test, limit, fitted.issue_threshold, lookahead)
        assert (tally.rows, tally.hits[column], tally.issued[column]) == (rows, hits, issued)
        assert recall(tally)[column] == hits / (rows * test.top_k)
        assert issued_per_layer(tally)[column] == issued / rows
        if issued:
            assert precision(tally)[column] == hits / issued


def test_tally_by_group_and_layer_adds_up():
    train, test = routing_trace(seed=1), routing_trace(seed=2, lengths=(3, 4, 5))
    fitted = registry.fit("popularity", train)
    whole = tally_predictor(fitted, test, (3,))
    grouped = tally_predictor(fitted, test, (3,), groups=np.array([1, 0, 1]))
    assert grouped.rows[:, 1].tolist() == [4, 8]
    np.testing.assert_array_equal(grouped.over((0,)).hits, whole.hits[0])
    assert not whole.rows[:, 0].any()  # below the lookahead


def test_progress_reaches_the_end():
    seen = []
    test = routing_trace(lengths=(5, 5))
    tally_predictor(registry.fit("popularity", test), test, (2,), progress=lambda *p: seen.append(p), chunk_tokens=4)
    assert seen == [(4, 10), (8, 10), (10, 10)]


def test_everything_issued_recalls_everything():
    test = routing_trace(experts=8, top_k=2, lengths=(40,))
    tally = tally_predictor(registry.fit("popularity", test), test, (8,)).over((0, 1))
    assert recall(tally)[0] == 1


def test_a_metric_without_rows_is_nan():
    test = routing_trace()
    tally = tally_predictor(registry.fit("popularity", test), test, (2,)).over((0,)).at(0)
    assert np.isnan(recall(tally)).all()
    assert np.isnan(precision(tally)).all()


@pytest.mark.parametrize("name", ["previous-token", "st-moe"])
def test_issue_sets_are_what_the_metrics_count(name):
    train, test = routing_trace(seed=1), routing_trace(seed=2, lengths=(9, 3))
    fitted = registry.fit(name, train)
    issued = issue_sets(fitted, test, 4)
    assert issued.dtype == np.int16
    assert issued.shape == (12, test.layers, 4)
    tally = tally_predictor(fitted, test, (4,)).over((0, 1))
    counted = issued[:, 1:]
    hits = (counted[..., None] == test.expert_ids[:, 1:, None, :]).any(axis=-1).sum()
    assert ((counted >= 0).sum(), hits) == (tally.issued[0], tally.hits[0])


def test_perfect_issue_is_the_routing():
    trace = routing_trace(top_k=3, unrecorded=0.2)
    issued = perfect_issue_sets(trace)
    np.testing.assert_array_equal(issued >= 0, np.repeat(trace.recorded()[..., None], 3, axis=2))
    np.testing.assert_array_equal(issued[trace.recorded()], trace.expert_ids[trace.recorded()])
    np.testing.assert_array_equal(perfect_issue_sets(trace, 2), issued[..., :2])
    assert (perfect_issue_sets(trace, 5)[..., 3:] == -1).all()


@pytest.mark.parametrize("limit", [0, 17])
def test_limits_out_of_range_are_refused(limit):
    trace = routing_trace(experts=16)
    fitted = registry.fit("popularity", trace)
    for call in (
        lambda: issue_sets(fitted, trace, limit),
        lambda: perfect_issue_sets(trace, limit),
        lambda: tally_predictor(fitted, trace, (limit,)),
    ):
        with pytest.raises(ForestageError, match=f"issue: {limit} is not in 1…16"):
            call()
