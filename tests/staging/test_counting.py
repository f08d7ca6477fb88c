"""What is counted, batches as events, and the static null, against plain loops."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import ForestageError
from staging.counting import counting_of, counting_of_batch
from staging.events import batch_events
from staging.results import Capacity
from staging.simulate import counted_events, simulate
from staging.static import run_static
from tests.routing import trace_of
from tests.staging.staging_samples import EMA_SHIFT, plain_cache, plain_events, small_traces
from traces import DECODE
from traces.batch import BatchConfig, make_schedule


def trace_with(prompt):
    ids = np.random.default_rng(0).random((24, 2, 8)).argsort(axis=-1)[..., :2]
    return trace_of(ids, experts=8, lengths=[12, 12], prompt=prompt)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (0, ("decode", "pass", "decode tokens (there are no others)")),
        (
            4,
            ("decode", "pass", "decode tokens; prompts fill the cache uncounted, each as one pass, layer by layer"),
        ),
        (12, ("all", "token", "prompt tokens, token by token as if decoded (there are no decode tokens)")),
    ],
)
def test_the_rule_follows_from_the_phases(prompt, expected):
    counting = counting_of(trace_with(prompt))
    assert (counting.count, counting.prefill, counting.sentence) == expected


def test_the_users_words_come_first_and_the_sentence_follows_them():
    assert counting_of(trace_with(4), "all").sentence == "decode tokens and prompts, each as one pass, layer by layer"
    assert "token by token" in counting_of(trace_with(4), prefill="token").sentence
    passes = counting_of(trace_with(12), prefill="pass")
    assert passes.sentence == "prompt tokens, each as one pass, layer by layer (there are no decode tokens)"
    with pytest.raises(ForestageError, match="count: the trace has no decode event; count all"):
        simulate(trace_with(12), capacity=4, count="decode")


def test_a_trace_of_prompts_alone_has_the_hit_rate_of_one_decoded():
    prompts, decoded = trace_with(12), trace_with(0)
    assert simulate(prompts, capacity=4).hits == simulate(decoded, capacity=4).hits > 0
    # In passes a lone prompt needs each expert once and hits nothing, even with every expert held.
    assert simulate(prompts.sequence(0), capacity=8, prefill="pass").hit_rate == 0


@st.composite
def batches(draw):
    trace = draw(small_traces())
    config = BatchConfig(slots=draw(st.integers(1, 4)), prefill_chunk=draw(st.sampled_from([None, 1, 3])))
    return trace, make_schedule(trace, config)


def plain_batch_events(trace, schedule):
    """[(layer, holds decode, [expert, …])], a step of a layer each."""
    recorded = trace.recorded()
    events = []
    for index in range(schedule.steps):
        tokens = schedule.step(index).token.tolist()
        decode = any(trace.phase[token] == DECODE for token in tokens)
        for layer in range(trace.layers):
            chosen = [int(e) for t in tokens if recorded[t, layer] for e in trace.expert_ids[t, layer]]
            if chosen:
                events.append((layer, decode, list(dict.fromkeys(chosen))))
    return events


@settings(max_examples=60, deadline=None)
@given(batch=batches(), chunk=st.sampled_from([1, 5, 1000]))
def test_a_step_of_a_layer_is_one_event_of_all_its_tokens(batch, chunk):
    trace, schedule = batch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("traces.scattered.CHUNK_TOKENS", chunk)
        events = batch_events(trace, schedule)
    found = [
        (int(layer), bool(decode), [int(key) - int(layer) * trace.experts for key in events.keys[first:last]])
        for layer, decode, first, last in zip(
            events.layer, events.decode, events.offsets[:-1], events.offsets[1:], strict=True
        )
    ]
    assert found == plain_batch_events(trace, schedule)
    lasts = {int(schedule.step(index).token[-1]): index for index in range(schedule.steps)}
    assert np.all(np.diff([lasts[token] for token in events.token.tolist()]) >= 0)


@settings(max_examples=60, deadline=None)
@given(
    batch=batches(),
    capacity=st.integers(1, 9),
    scope=st.sampled_from(["layer", "global"]),
    policy=st.sampled_from(["lru", "lfu", "ema", "belady"]),
)
def test_a_batch_is_simulated_as_by_plain_loops(batch, capacity, scope, policy):
    trace, schedule = batch
    events = plain_batch_events(trace, schedule)
    hits = plain_cache(
        events, capacity=capacity, policy=policy, per_layer=scope == "layer", sizes=[1] * trace.layers
    )  # fmt: skip
    count = counting_of_batch(trace).count
    counted = [(h, e) for h, e in zip(hits, events, strict=True) if count == "all" or e[1]]
    if not counted:  # no decode token has a recorded row
        return
    result = simulate(
        trace, capacity=capacity, scope=scope, policy=policy, schedule=schedule, ema_shift=EMA_SHIFT
    )  # fmt: skip
    assert result.hits == sum(sum(h) for h, _ in counted)
    assert result.lookups == sum(len(e[2]) for _, e in counted)


def test_a_batch_of_one_decodes_as_its_single_requests():
    trace = trace_with(0)
    schedule = make_schedule(trace, BatchConfig(slots=1))
    assert simulate(trace, capacity=4, schedule=schedule) == simulate(trace, capacity=4)
    with pytest.raises(ForestageError, match="a batch's schedule says how prompts run"):
        simulate(trace, capacity=4, schedule=schedule, prefill="pass")


@settings(max_examples=60, deadline=None)
@given(trace=small_traces(), capacity=st.integers(1, 9), scope=st.sampled_from(["layer", "global"]))
def test_the_static_null_holds_the_most_used_experts(trace, capacity, scope):
    events, counting = counted_events(trace, count="all")
    result = run_static(events, Capacity(capacity, scope=scope), count="all").result()
    plain = plain_events(trace, by_token=counting.prefill == "token")
    uses = Counter((layer, expert) for layer, _, experts in plain for expert in experts)
    groups = {None: list(uses.values())}
    if scope == "layer":
        groups = {layer: [n for key, n in uses.items() if key[0] == layer] for layer in range(trace.layers)}
    assert result.hits == sum(sum(sorted(group, reverse=True)[:capacity]) for group in groups.values())
    assert result.lookups == sum(uses.values())


def test_the_static_null_keeps_to_its_bytes():
    # Layer 0's expert takes 3 bytes and is used four times, layer 1's take 2 and are used three and two times.
    ids = [[[0], [1]], [[0], [1]], [[0], [1]], [[0], [2]], [[3], [2]]]
    events, _ = counted_events(trace_of(ids, experts=4))
    room = Capacity(bytes=4, expert_bytes=np.array([3, 2]), scope="global")
    assert run_static(events, room).result().hits == 3 + 2
