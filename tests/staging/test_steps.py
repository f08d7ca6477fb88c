"""Steps over a trace, and what each needs, against plain loops; events hold the same experts in the same order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import ForestageError, SettingError
from staging.events import batch_events, events_of
from staging.static import hottest, uses_of
from staging.steps import batch_steps, decode_steps, recorded_experts, step_experts, verification_steps
from tests.staging.staging_samples import small_traces, trace_of
from traces import DECODE
from traces.batch import BatchConfig, make_schedule

IDS = np.array([[[0, 1], [2, 3]], [[1, 4], [2, 5]], [[0, 1], [3, 2]], [[4, 5], [6, 7]], [[5, 0], [7, 6]]])


def events_by_step(steps, needed, trace):
    """[(layer, timed, [expert, …])] without what needs nothing."""
    found = []
    for event in range(len(steps) * trace.layers):
        chosen = needed.experts[needed.offsets[event] : needed.offsets[event + 1]].tolist()
        if chosen:
            found.append((event % trace.layers, bool(steps.timed[event // trace.layers]), chosen))
    return found


def as_lists(events):
    uses = [events.keys[a:b] for a, b in zip(events.offsets[:-1], events.offsets[1:], strict=True)]
    return [
        (int(layer), bool(decode), (keys % events.experts).tolist())
        for layer, decode, keys in zip(events.layer, events.decode, uses, strict=True)
    ]


def plain_counts(trace, steps):
    """{(step, layer): {expert: tokens that chose it}}."""
    found = {}
    recorded = trace.recorded()
    for step in range(len(steps)):
        for token in steps.tokens[steps.offsets[step] : steps.offsets[step + 1]].tolist():
            for layer in range(trace.layers):
                counts = found.setdefault((step, layer), {})
                for expert in trace.expert_ids[token, layer].tolist() if recorded[token, layer] else ():
                    counts[expert] = counts.get(expert, 0) + 1
    return found


def check_counts(trace, steps, needed):
    for (step, layer), counts in plain_counts(trace, steps).items():
        event = slice(*needed.offsets[step * trace.layers + layer :][:2])
        pairs = zip(needed.experts[event].tolist(), needed.tokens_of[event].tolist(), strict=True)
        assert list(pairs) == list(counts.items())


@settings(max_examples=40, deadline=None)
@given(small_traces(unrecorded=False), st.booleans(), st.sampled_from([1, 5, 1000]))
def test_decode_steps_hold_the_events_of_the_trace(trace, prompts_decoded, chunk):
    steps = decode_steps(trace, prompts_decoded=prompts_decoded)
    if not steps.timed.any():
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("traces.scattered.CHUNK_TOKENS", chunk)
        needed = step_experts(trace, steps)
    found = [(layer, experts) for layer, _, experts in events_by_step(steps, needed, trace)]
    events = as_lists(events_of(trace, by_token=prompts_decoded))
    assert found == [(layer, experts) for layer, _, experts in events]
    if not prompts_decoded:
        assert events_by_step(steps, needed, trace) == events
    check_counts(trace, steps, needed)


@settings(max_examples=40, deadline=None)
@given(small_traces(unrecorded=False), st.integers(1, 4), st.sampled_from([None, 2]))
def test_a_batch_runs_prompt_tokens_untimed_before_its_decode_tokens(trace, slots, chunk):
    schedule = make_schedule(trace, BatchConfig(slots=slots, prefill_chunk=chunk, order="shuffled"))
    steps = batch_steps(trace, schedule)
    expected = []
    for index in range(schedule.steps):
        tokens = schedule.step(index).token
        for decode in (False, True):
            part = tokens[(trace.phase[tokens] == DECODE) == decode].tolist()
            expected += [(decode, part)] if part else []
    found = [
        (bool(timed), steps.tokens[a:b].tolist())
        for timed, a, b in zip(steps.timed, steps.offsets[:-1], steps.offsets[1:], strict=True)
    ]
    assert found == expected
    if not steps.timed.any():
        return
    needed = step_experts(trace, steps)
    check_counts(trace, steps, needed)
    if len(steps) == schedule.steps:  # no step holds both
        assert events_by_step(steps, needed, trace) == as_lists(batch_events(trace, schedule))


@settings(max_examples=40, deadline=None)
@given(small_traces(), st.integers(1, 4), st.sampled_from([None, 2]), st.sampled_from([1, 5, 1000]))
def test_a_batch_without_prompts_apart_runs_the_steps_of_its_schedule(trace, slots, prefill_chunk, chunk):
    schedule = make_schedule(trace, BatchConfig(slots=slots, prefill_chunk=prefill_chunk, order="shuffled"))
    steps = batch_steps(trace, schedule, prompts_apart=False)
    assert len(steps) == schedule.steps
    for index in range(schedule.steps):
        tokens = schedule.step(index).token
        assert steps.tokens[steps.offsets[index] : steps.offsets[index + 1]].tolist() == tokens.tolist()
        assert steps.timed[index] == (trace.phase[tokens] == DECODE).any()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("traces.scattered.CHUNK_TOKENS", chunk)
        experts, offsets = recorded_experts(trace, steps)
    for (step, layer), counts in plain_counts(trace, steps).items():
        first, last = offsets[step * trace.layers + layer :][:2]
        assert experts[first:last].tolist() == list(counts)


def test_verification_takes_consecutive_tokens_of_a_sequence_and_leaves_a_shorter_rest():
    phase = [0, 0, 1, 1, 1, 1, 0, 1, 1, 1]
    trace = trace_of(np.tile(IDS, (2, 1, 1)), lengths=[8, 2], phase=phase)
    steps = verification_steps(trace, 3)
    assert steps.offsets.tolist() == [0, 2, 5, 6, 7, 8, 10]
    assert steps.timed.tolist() == [False, True, True, False, True, True]
    assert steps.sequential
    check_counts(trace, steps, step_experts(trace, steps))


def test_verifying_one_token_is_decoding():
    trace = trace_of(IDS, prompt=2)
    one, decode = verification_steps(trace, 1), decode_steps(trace)
    assert one.offsets.tolist() == decode.offsets.tolist()
    assert not one.sequential
    with pytest.raises(SettingError, match="drafted: 0: choose 1"):
        verification_steps(trace, 0)


def test_a_decode_row_that_was_not_recorded_is_refused_and_a_prompts_is_skipped(monkeypatch):
    ids = IDS.copy()
    ids[1, 1] = 255
    in_prompt = trace_of(ids, prompt=2)
    needed = step_experts(in_prompt, decode_steps(in_prompt))
    assert needed.experts[needed.offsets[1] : needed.offsets[2]].tolist() == [2, 3]
    in_decode = trace_of(ids)
    for chunk in (1, 1000):
        monkeypatch.setattr("traces.scattered.CHUNK_TOKENS", chunk)
        with pytest.raises(ForestageError, match=r"expert_ids\[1, 1\]: not recorded"):
            step_experts(in_decode, decode_steps(in_decode))


def test_a_trace_of_prompts_is_refused_unless_it_is_taken_as_decoded():
    trace = trace_of(IDS, prompt=5)
    with pytest.raises(ForestageError, match="no decode token"):
        step_experts(trace, decode_steps(trace))
    assert len(decode_steps(trace, prompts_decoded=True)) == 5


def test_the_hottest_experts_come_last_and_ties_go_to_the_first():
    trace = trace_of(IDS, prompt=1)
    steps = decode_steps(trace)
    uses = uses_of(steps, step_experts(trace, steps), 2, 8)
    assert uses.tolist() == [[2, 2, 0, 0, 2, 2, 0, 0], [0, 0, 2, 1, 0, 1, 2, 2]]
    assert hottest(uses, 3).tolist() == [4, 1, 0]
    assert hottest(uses, 2, "layer").tolist() == [14, 10, 1, 0]
    with pytest.raises(SettingError, match="held: 17"):
        hottest(uses, 17)
