"""The cycles of a whole trace are those of the streaming twin, event by event."""

import numpy as np
import pytest

from catalog.errors import ForestageError
from predictor.issue import issue_sets
from predictor.st_moe.cycles import trace_cycles
from predictor.st_moe.events import RoutingEvent, routing_events
from predictor.st_moe.parameters import EngineLimits
from predictor.st_moe.predictor import StMoePredictor
from predictor.st_moe.tables import OFF_CYCLES
from tests.routing import trace_of
from tests.st_moe_samples import routing_trace
from traces import RoutingTrace


def random_trace(layers: int = 5, experts: int = 8, top_k: int = 2, tokens: int = 40) -> RoutingTrace:
    """Two sequences of random routing that leans on few experts, so that some events issue nothing."""
    generator = np.random.default_rng(5)
    weights = generator.random((tokens, layers, experts)) * np.linspace(1, 3, experts)
    ids = weights.argsort(axis=-1)[..., : -top_k - 1 : -1]
    return trace_of(ids, experts=experts, lengths=[tokens // 2, tokens // 2])


@pytest.mark.parametrize("lookahead", [1, 2])
@pytest.mark.parametrize("limit", [2, 4])
def test_equal_to_the_streaming_twin(lookahead: int, limit: int) -> None:
    trace = random_trace()
    predictor = StMoePredictor.fit(trace.sequence(0), lookahead=lookahead)
    limits = EngineLimits(experts_max=16, layers_max=8, top_k_max=4, candidates_max=4)
    twin = predictor.tables(limits, issue_limit=limit)
    expected = np.zeros((trace.tokens, trace.layers), np.int64)
    for token in range(trace.tokens):
        for layer in range(trace.layers):
            event = RoutingEvent(
                layer,
                tuple(trace.expert_ids[token, layer].tolist()),
                starts_sequence=layer == 0 and token in trace.sequence_offsets,
                starts_token=layer == 0,
            )
            expected[token, layer] = twin.step(event).cycles
    issued = issue_sets(predictor, trace, limit)
    assert np.array_equal(trace_cycles(limits, predictor.configuration(limit), trace, issued), expected)
    assert len(np.unique(expected)) > 2


@pytest.mark.parametrize("lookahead", [1, 2])
def test_rows_that_are_not_recorded_are_no_events(lookahead: int) -> None:
    """The twin steps recorded rows only; the others take the cycles of an engine that is off."""
    trace = routing_trace(experts=8, layers=5, top_k=2, lengths=(12, 2, 9), unrecorded=0.3, seed=4)
    predictor = StMoePredictor.fit(trace, lookahead=lookahead)
    limits = EngineLimits(experts_max=16, layers_max=8, top_k_max=4, candidates_max=4)
    twin = predictor.tables(limits, issue_limit=3)
    recorded = trace.recorded()
    expected = np.full(recorded.shape, OFF_CYCLES)
    expected[recorded] = [twin.step(event).cycles for event in routing_events(trace)]
    issued = issue_sets(predictor, trace, 3)
    assert np.array_equal(trace_cycles(limits, predictor.configuration(3), trace, issued), expected)
    assert not recorded.all()


def test_sets_of_another_lookahead_or_limit_are_refused() -> None:
    trace = random_trace()
    predictor = StMoePredictor.fit(trace, lookahead=2)
    issued = issue_sets(predictor, trace, 3)
    configuration = predictor.configuration(3)
    for change, message in (
        ({"lookahead": 1}, "lookahead: the issue sets were made for 2, they are used at 1; make them for 1"),
        ({"issue_limit": 4}, "issue_limit: 4 asked for, the issue sets hold at most 3; make them with a limit of 4"),
    ):
        with pytest.raises(ForestageError, match=message):
            trace_cycles(EngineLimits(), configuration.model_copy(update=change), trace, issued)
