"""Caches driven by priorities from outside: by hand, streaming against compiled, and with an oracle's priorities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from staging.events import events_of
from staging.frequency import DecayedCounters, decayed_counts
from staging.results import Capacity
from staging.simulate import run_policy, run_priorities
from tests.staging.staging_samples import at_zero_time, small_traces, streaming, trace_of


def next_use_priorities(trace):
    """−(tokens until the next use) of every expert after every token, i32 ``[tokens, layers, experts]``."""
    priorities = np.full((trace.tokens, trace.layers, trace.experts), -1000, np.int32)
    recorded = trace.recorded()
    upcoming = np.full((trace.layers, trace.experts), 1000)
    for token in range(trace.tokens - 1, -1, -1):
        priorities[token] = -(upcoming - token)
        for layer in np.flatnonzero(recorded[token]):
            upcoming[layer, trace.expert_ids[token, layer]] = token
    return priorities


def in_chunks(chunk_tokens, rows, ahead=None):
    for first in range(0, len(rows), chunk_tokens):
        part = slice(first, first + chunk_tokens)
        yield first, rows[part], None if ahead is None else ahead[part]


def check_streaming_equals_compiled(trace, capacity, scope, chunk, seed, lookahead):
    """Random priorities, where ties are common; those set ahead too with a ``lookahead``."""
    generator = np.random.default_rng(seed)
    shape = (trace.tokens, trace.layers, trace.experts)
    rows, ahead = generator.integers(-4, 4, size=(2, *shape)).astype(np.int32)
    ahead = ahead if lookahead else None
    events = events_of(trace, by_token=True)
    shares = (capacity,) * (trace.layers if scope == "layer" else 1)
    stager = streaming(trace.layers, trace.experts, shares, by_recency=False)
    hits = []
    for token, layer in zip(events.token.tolist(), events.layer.tolist(), strict=True):
        stager.set_values(layer, rows[token, layer])
        if ahead is not None and layer + lookahead < trace.layers:
            stager.set_values(layer + lookahead, ahead[token, layer + lookahead])
        hits += at_zero_time(stager, layer, trace.expert_ids[token, layer].tolist())
    sizes = np.full(trace.layers, 3)
    rooms = [Capacity(capacity, scope=scope), Capacity(bytes=3 * capacity + 2, expert_bytes=sizes, scope=scope)]
    runs = run_priorities(
        events, "given", in_chunks(chunk, rows, ahead), rooms, lookahead=lookahead, count="all"
    )  # in places, and in bytes where all experts are of one size
    assert [run.hit.tolist() for run in runs] == [hits, hits]


@settings(max_examples=100, deadline=None)
@given(
    trace=small_traces(),
    capacity=st.integers(1, 10),
    scope=st.sampled_from(["layer", "global"]),
    chunk=st.integers(1, 9),
    seed=st.integers(0, 1 << 16),
    lookahead=st.integers(0, 2),
)
def test_streaming_equals_compiled(trace, capacity, scope, chunk, seed, lookahead):
    check_streaming_equals_compiled(trace, capacity, scope, chunk, seed, lookahead)


@pytest.mark.parametrize("lookahead", [1, 2, 3])
def test_a_refreshed_layer_is_ranked_anew(lookahead):
    """A shared cache of many layers: that of a layer ahead was mostly ranked already, by others that needed room."""
    ids = np.random.default_rng(lookahead).random((150, 5, 8)).argsort(axis=-1)[..., :2]
    check_streaming_equals_compiled(trace_of(ids), 16, "global", 40, lookahead, lookahead)


@settings(max_examples=60, deadline=None)
@given(trace=small_traces(), capacities=st.lists(st.integers(1, 8), min_size=1, max_size=3))
def test_an_oracles_priorities_are_beladys(trace, capacities):
    events = events_of(trace, by_token=True)
    rooms = [Capacity(capacity) for capacity in capacities]
    runs = run_priorities(events, "oracle", in_chunks(7, next_use_priorities(trace)), rooms, count="all")
    for room, run in zip(rooms, runs, strict=True):
        # Ties (never needed again) are all alike: the hits agree, though not who stays.
        assert run.result().hits == run_policy(events, "belady", room, count="all").result().hits


def test_a_refresh_saves_what_the_own_gate_could_not_foresee():
    # One cache of 2; layer 1's experts 0 and 1 were both used, then layer 0 needs a place: who of layer 1 stays?
    trace = trace_of([[[0], [0]], [[0], [1]], [[1], [0]]])
    events = events_of(trace, by_token=True)
    rows = np.zeros((3, 2, 8), np.int32)
    rows[:, 0] = -9
    rows[1, 1, :2] = (1, 2)  # after its own gate, token 1 keeps expert 1 of layer 1
    ahead = np.zeros_like(rows)
    ahead[2, 1, :2] = (5, 3)  # the gate of layer 0 of token 2 tells that 0 is wanted
    room = [Capacity(2, scope="global")]
    (blind,) = run_priorities(events, "blind", [(0, rows, None)], room)
    (told,) = run_priorities(events, "told", [(0, rows, ahead)], room, lookahead=1)
    # Uses: (0,0) (1,0) | (0,0) (1,1) | (0,1) (1,0). Token 1 leaves (1,0) and (1,1); (0,1) takes the place of either.
    assert blind.hit.tolist() == [False, False, True, False, False, False]
    assert told.hit.tolist() == [False, False, True, False, False, True]


def test_hits_by_sequence_add_up():
    trace = trace_of([[[1, 2]], [[1, 3]], [[2, 3]], [[1, 3]]], lengths=[1, 3], prompt=1)
    run = run_policy(events_of(trace), "lru", Capacity(3), count="all")
    lookups, hits = run.by_sequence(trace.sequence_offsets)
    assert lookups.tolist() == [2, 6]
    assert hits.tolist() == [0, 5]
    decode = run_policy(events_of(trace), "lru", Capacity(3))
    assert decode.by_sequence(trace.sequence_offsets)[0].tolist() == [0, 4]
    assert decode.result().lookups == 4


def test_an_event_knows_its_token():
    trace = trace_of([[[1], [5]], [[2], [5]], [[1], [255]], [[3], [6]]], prompt=3)
    assert events_of(trace).token.tolist() == [2, 2, 3, 3]
    assert events_of(trace, by_token=True).token.tolist() == [0, 0, 1, 1, 2, 3, 3]


@pytest.mark.parametrize("shift", [1, 2, 5, 15])
@settings(max_examples=20, deadline=None)
@given(trace=small_traces())
def test_compiled_counters_are_the_streaming_ones(shift, trace):
    events = events_of(trace)
    counters = DecayedCounters(trace.layers, trace.experts, shift)
    wanted = np.split(events.keys % trace.experts, events.offsets[1:-1])
    expected = [counters.observe(layer, experts).tolist() for layer, experts in zip(events.layer, wanted, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("staging.frequency._CHUNK_BYTES", 4 * trace.experts * 7)  # seven events
        counted = [row for rows in decayed_counts(events, shift) for row in rows.tolist()]
    assert counted == expected


@pytest.mark.parametrize("shift", [1, 5, 15])
def test_a_counter_never_outgrows_sixteen_bits(shift):
    counters = DecayedCounters(1, 3, shift)
    previous = -1
    while (value := int(counters.observe(0, [1])[1])) != previous:
        assert value > previous
        previous = value
        if value > 40_000 and shift == 15:  # it rises by one a time from here on
            break
    assert previous <= 65535
    assert shift == 15 or previous > 65535 - (1 << shift)
    assert counters.values[0, 0] == 0
