"""Issue sets and metrics against a plain counting of sets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import ForestageError
from predictor import registry
from predictor.foresight.issued_predictions import issued_predictions
from predictor.measure.metrics import exact_set, issued_per_layer, precision, recall, tally_predictor, wasted_per_layer
from predictor.measure.ranking import best_experts, ranks_of_chosen
from staging.steps import decode_steps
from tests.issue_sets import issue_sets
from tests.routing import trace_of
from tests.st_moe_samples import routing_trace
from traces.selection import select_sequences


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


@settings(deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(-3, 5), min_size=6, max_size=6), min_size=1, max_size=4),
    threshold=st.integers(-2, 4),
    chosen=st.permutations(range(6)),
    recorded=st.booleans(),
)
def test_ranks_are_places_in_the_order_of_issue(rows, threshold, chosen, recorded):
    scores = np.array(rows, np.int32)[None]
    ids = np.broadcast_to(np.array(chosen[:3], np.int32), (1, len(rows), 3)).copy()
    ranks = np.full(ids.shape, -7, np.int32)
    qualified = np.full(ids.shape[:2], -7, np.int32)
    known = np.full(ids.shape[:2], recorded)
    ranks_of_chosen(scores, threshold, ids, known, ranks, qualified)
    for layer, row in enumerate(scores[0]):
        best = np.empty(6, np.int16)
        count = best_experts(row, threshold, best) if recorded else 0
        order = best.tolist()[:count]
        assert qualified[0, layer] == count
        assert ranks[0, layer].tolist() == [order.index(e) if e in order else 6 for e in chosen[:3]]


def plain_counts(scores, trace, limit, threshold, lookahead):
    """(rows, hits, issued, exact sets) over layers ≥ lookahead; ``limit`` None: uncapped."""
    rows = hits = issued = exact = 0
    recorded = trace.recorded()
    for token in range(trace.tokens):
        for layer in range(lookahead, trace.layers):
            if not recorded[token, layer]:
                continue
            row = scores[token, layer]
            order = sorted((e for e in range(len(row)) if row[e] >= threshold), key=lambda e: (-row[e], e))
            needed = set(trace.expert_ids[token, layer].tolist())
            rows += 1
            hits += len(set(order[:limit]) & needed)
            issued += len(order[:limit])
            exact += set(order[: trace.top_k]) == needed
    return rows, hits, issued, exact


@pytest.mark.parametrize("name", ["markov-spatial", "st-moe"])
@pytest.mark.parametrize("lookahead", [1, 2])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), unrecorded=st.sampled_from([0.0, 0.3]), chunk_tokens=st.integers(1, 20))
def test_tally_equals_plain_counting(name, lookahead, seed, unrecorded, chunk_tokens):
    train = routing_trace(seed=seed, unrecorded=unrecorded)
    test = routing_trace(seed=seed + 1, lengths=(4, 8), unrecorded=unrecorded)
    fitted = registry.fit(name, train, lookahead=lookahead)
    scores = fitted.score_trace(test)
    counted = tally_predictor(fitted, test, (2, 5), chunk_tokens=chunk_tokens)
    tally = counted.overall().over(0)
    for column, limit in enumerate((2, 5, None)):
        rows, hits, issued, exact = plain_counts(scores, test, limit, fitted.issue_threshold, lookahead)
        assert (tally.rows, tally.hits[column], tally.issued[column], tally.exact) == (rows, hits, issued, exact)
        assert recall(tally).values()[column] == hits / (rows * test.top_k)
        assert issued_per_layer(tally).values()[column] == issued / rows
        assert wasted_per_layer(tally).values()[column] == (issued - hits) / rows
        assert exact_set(tally).values() == exact / rows
        if issued:
            assert precision(tally).values()[column] == hits / issued
    curve = counted.curve.over(0)
    for limit in range(1, test.experts + 1):
        rows, hits, issued, exact = plain_counts(scores, test, limit, fitted.issue_threshold, lookahead)
        found = (curve.rows, curve.hits[limit - 1], curve.issued[limit - 1], curve.exact)
        assert found == (rows, hits, issued, exact)


def test_sequences_are_counted_apart_and_add_up():
    train, test = routing_trace(seed=1), routing_trace(seed=2, lengths=(3, 4, 5))
    fitted = registry.fit("st-moe", train, lookahead=2)
    whole = tally_predictor(fitted, test, (3,), chunk_tokens=4)
    for index in range(test.sequences):
        assert whole.by_layer.rows[index].tolist() == [[3, 4, 5][index]] * test.layers
    # Tables adapt from one sequence to the next, so only the first stands for itself.
    alone = tally_predictor(fitted, select_sequences(test, [0]), (3,))
    for mine, theirs in ((whole.by_layer, alone.by_layer), (whole.curve, alone.curve)):
        np.testing.assert_array_equal(mine.hits[:1], theirs.hits)
        np.testing.assert_array_equal(mine.issued[:1], theirs.issued)
        np.testing.assert_array_equal(mine.exact[:1], theirs.exact)


def test_layers_below_the_lookahead_are_counted_by_layer_alone():
    test = routing_trace(lengths=(6, 4))
    tally = tally_predictor(registry.fit("popularity", test, lookahead=2), test, (5,))
    assert tally.by_layer.rows.sum(axis=0).tolist() == [10] * test.layers
    assert tally.by_layer.hits[:, 0].any()
    assert tally.overall().rows.tolist() == [6 * (test.layers - 2), 4 * (test.layers - 2)]
    assert tally.curve.rows.tolist() == tally.overall().rows.tolist()


def test_progress_reaches_the_end():
    seen = []
    test = routing_trace(lengths=(5, 5))
    tally_predictor(registry.fit("popularity", test), test, (2,), progress=lambda *p: seen.append(p), chunk_tokens=4)
    assert seen == [(4, 10), (8, 10), (10, 10)]


def test_everything_issued_recalls_everything():
    test = routing_trace(experts=8, top_k=2, lengths=(40,))
    tally = tally_predictor(registry.fit("popularity", test), test, (8,)).overall().over(0)
    assert recall(tally).values()[0] == 1


def test_a_metric_without_rows_is_nan():
    test = routing_trace(unrecorded=1.0)
    tally = tally_predictor(registry.fit("popularity", routing_trace()), test, (2,)).overall().over(0)
    for metric in (recall, precision, issued_per_layer, exact_set):
        assert np.isnan(metric(tally).values()).all()


def test_a_short_issue_is_no_exact_set():
    """What is issued must be the chosen set, not a part of it."""
    test = trace_of([[[0, 1], [0, 1]]] * 8, experts=4)
    fitted = registry.fit("previous-token", test, parameters={"fill": "none"})
    tally = tally_predictor(fitted, test, (1, 2)).overall().over(0)
    assert tally.rows == 8
    assert tally.exact == 7  # all but the first, for which nothing is issued
    assert recall(tally).values()[0] == pytest.approx(7 / 16)


@pytest.mark.parametrize("name", ["previous-token", "st-moe"])
def test_issue_sets_are_what_the_metrics_count(name):
    train, test = routing_trace(seed=1), routing_trace(seed=2, lengths=(9, 3))
    fitted = registry.fit(name, train)
    issued = issue_sets(fitted, test, 4)
    tally = tally_predictor(fitted, test, (4,)).overall().over(0)
    counted = issued[:, 1:]
    hits = (counted[..., None] == test.expert_ids[:, 1:, None, :]).any(axis=-1).sum()
    assert ((counted >= 0).sum(), hits) == (tally.issued[0], tally.hits[0])


@pytest.mark.parametrize("limit", [0, 17])
def test_limits_out_of_range_are_refused(limit):
    trace = routing_trace(experts=16)
    fitted = registry.fit("popularity", trace)
    for call in (
        lambda: issued_predictions(fitted, trace, decode_steps(trace), limit),
        lambda: tally_predictor(fitted, trace, (limit,)),
    ):
        with pytest.raises(ForestageError, match=f"issue: {limit} is not in 1…16"):
            call()
