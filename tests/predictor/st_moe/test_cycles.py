"""The cycles of a whole trace are those of the streaming twin, event by event."""

import numpy as np
import pytest

from predictor.issue import issue_sets
from predictor.st_moe.cycles import trace_cycles
from predictor.st_moe.events import RoutingEvent
from predictor.st_moe.parameters import EngineLimits
from predictor.st_moe.predictor import StMoePredictor
from tests.routing import trace_of
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
