"""Events of a trace: their order, and what each field says."""

import numpy as np
import pytest

from catalog.errors import ForestageError
from predictor.engine.events import Gate, Release, Token, event_arrays, trace_events
from tests.learned_samples import identified_trace
from tests.st_moe_samples import routing_trace


def test_a_lone_sequence_is_told_token_by_token_and_layer_by_layer() -> None:
    trace = identified_trace()
    recorded = trace.recorded()
    told = list(trace_events(trace).events())
    per_token = 1 + 2 * trace.layers
    assert len(told) == trace.tokens * per_token
    for token in range(trace.tokens):
        of = told[token * per_token : (token + 1) * per_token]
        starts = token in trace.sequence_offsets
        assert of[0] == Token(0, starts_sequence=starts, identity=int(trace.token_hash[token]))
        for layer in range(trace.layers):
            ids = tuple(trace.expert_ids[token, layer].tolist()) if recorded[token, layer] else None
            assert of[1 + 2 * layer] == Gate(0, layer, ids)
            assert of[2 + 2 * layer] == Release(0, layer)


def test_a_running_batch_tells_each_layer_of_all_its_slots_together() -> None:
    trace = routing_trace(lengths=(3, 1, 2))
    told = list(trace_events(trace, slots=2, domains=np.array([0, 1, 2])).events())
    # Slot 1 is free after one token and takes the third sequence.
    steps = [[0, 3], [1, 4], [2, 5]]
    at = 0
    for step in steps:
        for slot, token in enumerate(step):
            domain = trace.sequence_index()[token]
            starts = token in trace.sequence_offsets
            assert told[at] == Token(slot, slot == 0, slot == 1, starts, domain=domain)
            at += 1
        for layer in range(trace.layers):
            for slot, token in enumerate(step):
                ids = tuple(trace.expert_ids[token, layer].tolist())
                assert told[at + slot] == Gate(slot, layer, ids, slot == 0, slot == 1)
                assert told[at + 2 + slot] == Release(slot, layer, slot == 0, slot == 1)
            at += 4
    assert at == len(told)


def test_slots_that_have_nothing_left_are_not_in_a_step() -> None:
    trace = routing_trace(lengths=(3, 1))
    told = [event for event in trace_events(trace, slots=2).events() if isinstance(event, Token)]
    assert [(of.slot, of.first, of.last) for of in told] == [
        (0, True, False), (1, False, True), (0, True, True), (0, True, True),
    ]  # fmt: skip


def test_arrays_of_events_are_the_events() -> None:
    trace = identified_trace()
    rows = np.arange(trace.tokens) - 1
    arrays = trace_events(trace, slots=3, rows=rows)
    again = event_arrays(list(arrays.events()), trace.top_k)
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(arrays, again, strict=True))
    assert list(arrays.part(5, 9).events()) == list(arrays.events())[5:9]


def test_what_the_fields_do_not_hold_is_refused() -> None:
    trace = routing_trace()
    with pytest.raises(ForestageError, match="slots: 0"):
        trace_events(trace, slots=0)
    with pytest.raises(ForestageError, match="table bank outside 0…7"):
        trace_events(trace, domains=np.array([0, 1, 8]))
    with pytest.raises(ValueError, match="a gate of 2 experts"):
        event_arrays([Gate(0, 0, (1, 2))], 3)
