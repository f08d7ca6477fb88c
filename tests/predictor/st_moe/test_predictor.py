"""ST-MoE's tables as a predictor: batch against streaming, profile, and the published-trace figures."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import ForestageError
from predictor.base import stream_trace
from predictor.st_moe.events import routing_events
from predictor.st_moe.predictor import EngineLimits, StMoeParameters, StMoePredictor
from tests.routing import trace_of
from tests.st_moe_samples import routing_trace

PARAMETERS = st.fixed_dictionaries(
    {
        "candidates": st.sampled_from([None, 1, 5]),
        "aggregation": st.sampled_from(["max", "sum"]),
        "ht_confidence": st.integers(0, 3),
        "initial_confidence": st.integers(0, 3),
        "replacement": st.sampled_from(["none", "ranked", "reversed"]),
        "replacement_confidence": st.integers(0, 3),
    }
)


@settings(max_examples=40, deadline=None)
@given(
    parameters=PARAMETERS,
    lookahead=st.integers(1, 3),
    unrecorded=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 1000),
    chunk=st.integers(1, 20),
)
def test_batch_equals_streaming(
    parameters: dict[str, object], lookahead: int, unrecorded: float, seed: int, chunk: int
) -> None:
    trace = routing_trace(unrecorded=unrecorded, seed=seed)
    predictor = StMoePredictor.fit(trace, lookahead=lookahead, **parameters)
    batch = np.concatenate([scores for _, scores in predictor.score_chunks(trace, chunk_tokens=chunk)])
    assert (batch == stream_trace(predictor, trace)).all()
    assert (batch == predictor.score_trace(trace)).all()


@settings(max_examples=25, deadline=None)
@given(
    parameters=PARAMETERS, lookahead=st.integers(1, 3), unrecorded=st.sampled_from([0.0, 0.3]), limit=st.integers(0, 16)
)
def test_requests_are_the_batch_scores_that_reach_the_threshold(
    parameters: dict[str, object], lookahead: int, unrecorded: float, limit: int
) -> None:
    """The twin, fed with events, requests exactly what the batch scores say, in a larger engine too."""
    trace = routing_trace(unrecorded=unrecorded)
    predictor = StMoePredictor.fit(trace, lookahead=lookahead, **parameters)
    twin = predictor.tables(EngineLimits(), issue_limit=limit)
    requests = [(r.layer, r.expert, r.score) for event in routing_events(trace) for r in twin.step(event).requests]
    expected = []
    for token, scores in enumerate(predictor.score_trace(trace)):
        for source in np.flatnonzero(trace.recorded()[token]):
            if (target := source + lookahead) < trace.layers:
                best = [e for e in np.argsort(-scores[target], kind="stable") if scores[target, e] >= 2][:limit]
                expected += [(target, e, scores[target, e]) for e in best]
    assert requests == expected


def test_events_mark_tokens_and_sequences() -> None:
    trace = routing_trace(lengths=(4, 3), unrecorded=0.5, seed=3)
    events = list(routing_events(trace))
    assert len(events) == trace.recorded().sum()
    tokens = np.repeat(np.arange(7), trace.recorded().sum(axis=1))
    starts = [event.starts_token for event in events]
    assert starts == [True, *(tokens[1:] != tokens[:-1]).tolist()]
    assert [n for n, event in enumerate(events) if event.starts_sequence] == [0, int(np.argmax(tokens >= 4))]


def test_profile_keeps_the_most_often_co_selected() -> None:
    trace = routing_trace(experts=6, layers=2, top_k=1, lengths=(30,), seed=5)
    profile = StMoePredictor.fit(trace, candidates=3).profile
    pairs = np.zeros((6, 6), int)
    for below, above in trace.expert_ids[:, :, 0]:
        pairs[below, above] += 1
    for expert in range(6):
        best = sorted(range(6), key=lambda e: (-pairs[expert, e], e))[:3]
        assert profile.candidates[0, expert].tolist() == best
        assert profile.confidences[0, expert].tolist() == [2 if pairs[expert, e] else 0 for e in best]


def test_nothing_is_predicted_below_the_lookahead() -> None:
    trace = routing_trace()
    scores = StMoePredictor.fit(trace, lookahead=2, threshold=1).score_trace(trace)
    assert not scores[:, :2].any()
    assert scores[:, 2:].any(axis=2).all()


def test_tables_of_an_engine_too_small_name_the_remedy() -> None:
    predictor = StMoePredictor.fit(routing_trace(experts=128))
    with pytest.raises(ForestageError, match="--experts-max 128"):
        predictor.tables(EngineLimits())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"confidence": 1}, "nearest known key is 'ht_confidence'"),
        ({"threshold": 0}, "threshold"),
        ({"candidates": 17}, "candidates: 17 exceeds the model's 16 experts"),
    ],
)
def test_bad_parameters_are_one_line(parameters: dict[str, int], message: str) -> None:
    with pytest.raises(ForestageError, match=message):
        StMoePredictor.fit(routing_trace(), **parameters)


def test_defaults_are_the_papers() -> None:
    assert StMoeParameters() == StMoeParameters(
        candidates=None, aggregation="max", ht_confidence=1, threshold=2, initial_confidence=2
    )


@pytest.mark.parametrize(
    ("parameters", "recall", "precision", "issued"),
    [({}, 0.764, 0.499, 6.1), ({"aggregation": "sum"}, 0.773, 0.495, 6.2)],
)
def test_figures_of_gpt_oss(
    shared_file: Callable[[str], Path], parameters: dict[str, str], recall: float, precision: float, issued: float
) -> None:
    """Recall, precision and issue of the reference measurement, whose split is unknown: hence the tolerance."""
    from predictor.measure.evaluate import evaluate
    from traces.importers import import_trace

    trace = import_trace(shared_file("gpt_oss_20b_decode.npz"))
    result = evaluate(trace, "st-moe", issue=(4,), parameters=parameters)
    assert result.recall["own"] == pytest.approx(recall, abs=0.01)
    assert result.precision["own"] == pytest.approx(precision, abs=0.01)
    assert result.issued_per_layer == pytest.approx(issued, abs=0.1)


def test_a_sequence_starts_with_its_first_recorded_event() -> None:
    """The second sequence's first token is recorded in no layer: its second token's first event starts the sequence."""
    ids = routing_trace(lengths=(2, 2)).expert_ids.copy()
    ids[2] = np.iinfo(ids.dtype).max
    events = list(routing_events(trace_of(ids, experts=16, lengths=[2, 2])))
    assert len(events) == 3 * 4
    assert [n for n, event in enumerate(events) if event.starts_sequence] == [0, 8]
    assert [n for n, event in enumerate(events) if event.starts_token] == [0, 4, 8]
