"""The unlearned predictors against figures worked out by hand."""

from functools import partial

import numpy as np
import pytest

from catalog.errors import ForestageError
from predictor import registry
from predictor.base import stream_trace
from predictor.baselines.popularity import PopularityPredictor
from predictor.baselines.profile import RATE_ONE
from tests import routing

UNKNOWN = 255

trace_of = partial(routing.trace_of, experts=4)


def one(share):
    """``share`` of a layer's tokens as a floor-rounded fixed-point rate."""
    return int(share * RATE_ONE)


def test_popularity_is_the_share_of_recorded_tokens():
    train = trace_of([[[0], [1]], [[0], [UNKNOWN]], [[2], [1]], [[3], [2]]])
    fitted = registry.fit("popularity", train)
    assert fitted.predict(0).tolist() == [one(2 / 4), 0, one(1 / 4), one(1 / 4)]
    assert fitted.predict(1).tolist() == [0, one(2 / 3), one(1 / 3), 0]


def test_previous_token_ranks_by_age_then_popularity():
    train = trace_of([[[3], [0]]] * 2 + [[[2], [0]]])
    recency = registry.fit("previous-token", train, parameters={"fill": "recency"})
    popular = registry.fit("previous-token", train)
    bare = registry.fit("previous-token", train, parameters={"fill": "none"})
    for fitted in (recency, popular, bare):
        for expert in (0, 1):
            fitted.observe(0, np.array([expert]))
            fitted.observe(1, np.array([expert]))
    assert np.argsort(-recency.predict(0), kind="stable").tolist() == [1, 0, 3, 2]
    assert np.argsort(-popular.predict(0), kind="stable").tolist() == [1, 3, 2, 0]
    assert np.flatnonzero(bare.predict(0)).tolist() == [1]
    # Expert 0 has popularity 0 and was last used two tokens ago.
    assert popular.predict(0)[0] == 0
    assert recency.predict(0)[0] > RATE_ONE


def test_recency_ages_saturate():
    train = trace_of([[[3], [0]]] * 2)
    fitted = registry.fit("previous-token", train, parameters={"fill": "recency"})
    fitted.observe(0, np.array([0]))
    for _ in range(1023):
        fitted.observe(0, np.array([1]))
    assert fitted.predict(0)[0] > RATE_ONE - 1  # age 1024 is the oldest told apart
    assert fitted.predict(0)[1] == fitted.predict(0).max() > 0
    fitted.observe(0, np.array([1]))
    assert fitted.predict(0)[0] == 0


def test_spatial_markov_sums_conditional_rates():
    train = trace_of([[[0, 1], [2, 3]], [[0, 2], [2, 1]], [[0, 1], [UNKNOWN, UNKNOWN]]])
    fitted = registry.fit("markov-spatial", train)
    fitted.observe(0, np.array([0, 1]))
    # Expert 0 of layer 0 was followed by 2 (twice of two recorded), 3 and 1 (once); expert 1 by 2 and 3.
    assert fitted.predict(1).tolist() == [0, one(1 / 2), RATE_ONE + RATE_ONE, one(1 / 2) + RATE_ONE]
    assert not fitted.predict(0).any()
    fitted.observe(1, np.array([0, 1]))
    fitted.observe(0, None)
    assert not fitted.predict(1).any()


def test_spatial_markov_spans_the_lookahead():
    train = trace_of([[[0], [1], [2]], [[1], [1], [3]]])
    fitted = registry.fit("markov-spatial", train, lookahead=2)
    fitted.observe(0, np.array([1]))
    assert fitted.predict(2).tolist() == [0, 0, 0, RATE_ONE]
    assert not fitted.predict(1).any()


def test_temporal_markov_follows_the_last_recorded_token_of_the_sequence():
    train = trace_of(
        [[[0], [0]], [[UNKNOWN], [1]], [[1], [2]], [[0], [0]], [[3], [1]]],
        lengths=[3, 2],
    )
    fitted = registry.fit("markov-temporal", train)
    fitted.observe(0, np.array([0]))
    # Layer 0: 0 → 1 over the unrecorded token, 0 → 3 in the second sequence; not 1 → 0 across the boundary.
    assert fitted.predict(0).tolist() == [0, one(1 / 2), 0, one(1 / 2)]
    fitted.observe(0, None)
    assert fitted.predict(0).tolist() == [0, one(1 / 2), 0, one(1 / 2)]
    fitted.observe(0, np.array([1]))
    assert not fitted.predict(0).any()
    fitted.observe(0, np.array([0]))
    fitted.start_sequence()
    assert not fitted.predict(0).any()


def test_unrecorded_layer_leaves_the_history_as_it_was():
    train = trace_of([[[0], [0]]] * 3)
    fitted = registry.fit("previous-token", train)
    test = trace_of([[[1], [2]], [[UNKNOWN], [3]], [[0], [0]]])
    scores = stream_trace(fitted, test)
    assert scores[2, 0].argmax() == 1
    assert scores[2, 1].argmax() == 3


def test_faults_are_named():
    train = trace_of([[[0], [0]]] * 3)
    with pytest.raises(ForestageError, match=r"unknown name 'popularty'; the nearest known name is 'popularity'"):
        registry.kind("popularty")
    with pytest.raises(ForestageError, match=r"predictor 'previous-token': unknown key 'fil'.*'fill'"):
        registry.fit("previous-token", train, parameters={"fil": "none"})
    with pytest.raises(ForestageError, match=r"predictor 'previous-token': fill"):
        registry.fit("previous-token", train, parameters={"fill": "luck"})
    with pytest.raises(ForestageError, match=r"lookahead: 2 is not in 1…1"):
        registry.fit("popularity", train, lookahead=2)
    with pytest.raises(ForestageError, match=r"fitted to .*\(2, 4, 1\).*\(2, 5, 1\)"):
        next(registry.fit("popularity", train).score_chunks(trace_of([[[0], [0]]], experts=5)))
    with pytest.raises(ForestageError, match="issue sets hold ids up to 32767"):
        PopularityPredictor(np.zeros((2, 40_000), np.int32), top_k=1, lookahead=1)


def test_resolved_parameters_are_json_values():
    assert registry.resolved_parameters("previous-token") == {"fill": "popularity"}
    assert registry.resolved_parameters("popularity") == {}
