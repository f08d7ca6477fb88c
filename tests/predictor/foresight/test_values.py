"""Values are the predictors' own answers, and the future as plain Python counts it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import ForestageError, SettingError
from predictor.foresight import parts
from predictor.foresight.frequency_values import decayed_frequency
from predictor.foresight.learned_values import learned_values
from predictor.foresight.oracle_values import belady_values, oracle_next_use, oracle_uses
from staging.frequency import DecayedCounters
from staging.steps import batch_steps, decode_steps, step_experts, verification_steps
from tests.learned_samples import identified_trace, random_next_use
from traces import DECODE, PREFILL
from traces.batch import BatchConfig, make_schedule

SHAPE = {"layers": 4, "experts": 9, "top_k": 3}
CERTAIN = 65535


def sample(prompt=2, seed=0, lengths=(7, 1, 9, 5)):
    """Sequences whose first ``prompt`` tokens are a prompt."""
    trace = identified_trace(**SHAPE, lengths=lengths, seed=seed)
    return replace(trace, phase=np.where(trace.position < prompt, PREFILL, DECODE).astype(np.uint8))


def streamed(predictor, trace):
    """Chances [tokens, layers, horizons, experts], asked one by one at each layer's own gate."""
    rows = np.empty((trace.tokens, trace.layers, predictor.config.questions, trace.experts), np.int64)
    starts = set(trace.sequence_offsets.tolist())
    for token in range(trace.tokens):
        if token in starts:
            predictor.start_sequence()
        predictor.start_token(int(trace.token_hash[token]))
        for layer in range(trace.layers):
            predictor.observe(layer, trace.expert_ids[token, layer])
            rows[token, layer] = predictor.chances(layer)
    return rows


def latest_rows(trace, steps, rows):
    """Of each step the latest rows of the sequences that have begun, those ended before it left out."""
    sequence, latest, found = trace.sequence_index(), {}, []
    last = set((trace.sequence_offsets[1:] - 1).tolist())
    for step in range(len(steps)):
        latest = {who: token for who, token in latest.items() if token not in last}
        for token in steps.tokens[steps.offsets[step] : steps.offsets[step + 1]].tolist():
            latest[sequence[token]] = token
        found.append(np.array([rows[token] for token in latest.values()]))
    return found


def any_of(chances, order):
    """Values of one step: the chance that any of the sequences wants an expert, of the root of this order."""
    unwanted = np.prod(1 - chances / CERTAIN, axis=0) ** (1 / order)
    return (CERTAIN * (1 - unwanted)).sum(axis=1)


def steps_of_kind(kind, trace):
    if kind == "decode":
        return decode_steps(trace)
    if kind == "verification":
        return verification_steps(trace, 3)
    return batch_steps(trace, make_schedule(trace, BatchConfig(slots=3, prefill_chunk=1, order="shuffled")))


@pytest.mark.parametrize("kind", ["decode", "verification"])
def test_learned_values_of_one_sequence_are_the_streaming_predictors_priorities(kind):
    trace = sample()
    predictor = random_next_use(np.random.default_rng(3), **SHAPE)
    steps = steps_of_kind(kind, trace)
    values = learned_values(predictor, trace, steps)
    rows = latest_rows(trace, steps, streamed(predictor, trace))
    np.testing.assert_array_equal(values.rows, np.array([row.sum(axis=(0, 2)) for row in rows]))
    assert values.rows.max() <= values.most == 2 * CERTAIN
    assert values.at_step_end == (kind == "verification")


@pytest.mark.parametrize(("slots", "order"), [(2, 1), (3, 1), (4, 2), (17, 4)])
def test_learned_values_of_a_batch_are_the_chance_that_any_of_its_sequences_wants_an_expert(slots, order):
    trace = sample(lengths=(6, 1, 5, 3) * ((slots + 3) // 4 + 1))
    predictor = random_next_use(np.random.default_rng(3), **SHAPE)
    steps = batch_steps(trace, make_schedule(trace, BatchConfig(slots=slots, prefill_chunk=1, order="shuffled")))
    values = learned_values(predictor, trace, steps)
    rows = latest_rows(trace, steps, streamed(predictor, trace))
    assert max(len(row) for row in rows) == slots
    expected = np.array([any_of(row, order) for row in rows])
    np.testing.assert_allclose(values.rows, expected, atol=1.5)
    assert values.rows.max() <= values.most == 2 * CERTAIN
    assert not values.at_step_end


def test_learned_values_of_a_decoded_token_are_its_own_row():
    trace = sample(prompt=0)
    predictor = random_next_use(np.random.default_rng(3), **SHAPE)
    rows = streamed(predictor, trace).sum(axis=2)
    np.testing.assert_array_equal(learned_values(predictor, trace, decode_steps(trace)).rows, rows)


def test_learned_values_refuse_another_lookahead_another_shape_and_other_steps():
    trace, generator = sample(), np.random.default_rng(0)
    steps = decode_steps(trace)
    with pytest.raises(ForestageError, match="give one of lookahead 0"):
        learned_values(random_next_use(generator, **SHAPE, lookahead=1), trace, steps)
    with pytest.raises(ForestageError, match="train one on a trace of the same model"):
        learned_values(random_next_use(generator, **{**SHAPE, "layers": 5}), trace, steps)
    other = sample(lengths=(7, 1, 9, 4))
    with pytest.raises(ForestageError, match="make them from this trace"):
        learned_values(random_next_use(generator, **SHAPE), other, steps)
    swapped = replace(steps, tokens=steps.tokens[::-1].copy())
    with pytest.raises(ForestageError, match="make them from this trace"):
        learned_values(random_next_use(generator, **SHAPE), trace, swapped)


@pytest.mark.parametrize("kind", ["decode", "verification", "batch"])
def test_decayed_frequency_is_the_streaming_counters_which_rest_where_nothing_was_recorded(kind, monkeypatch):
    monkeypatch.setattr(parts, "PART_BYTES", 300)
    trace = sample()
    ids = trace.expert_ids.copy()
    ids[trace.position < 2, 1] = 255
    trace = replace(trace, expert_ids=ids, metadata=trace.metadata.model_copy(update={"has_unrecorded": True}))
    steps = steps_of_kind(kind, trace)
    needed = step_experts(trace, steps)
    values = decayed_frequency(trace, needed, 3)
    counters = DecayedCounters(trace.layers, trace.experts, 3)
    for event in range(len(steps) * trace.layers):
        chosen = needed.experts[needed.offsets[event] : needed.offsets[event + 1]]
        step, layer = divmod(event, trace.layers)
        if len(chosen):
            counters.observe(layer, chosen)
        np.testing.assert_array_equal(values.rows[step, layer], counters.values[layer])
    assert not values.at_step_end


def plain_future(trace, steps, needed):
    """{(layer, expert): steps that need it}."""
    found = {}
    for event in range(len(steps) * trace.layers):
        for expert in needed.experts[needed.offsets[event] : needed.offsets[event + 1]].tolist():
            found.setdefault((event % trace.layers, expert), []).append(event // trace.layers)
    return found


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 30), st.integers(0, 3), st.sampled_from(["decode", "batch"]))
def test_oracles_count_the_timed_steps_to_come(seed, horizon, prompt, kind):
    trace = sample(prompt=prompt, seed=seed, lengths=(6, 2, 9))
    steps = steps_of_kind(kind, trace)
    needed = step_experts(trace, steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "PART_BYTES", 500)
        uses = oracle_uses(trace, steps, needed, horizon)
        next_use = oracle_next_use(trace, steps, needed, (1, horizon))
        belady = belady_values(trace, steps, needed)
    assert uses.most == CERTAIN * horizon
    assert next_use.most == 2 * CERTAIN
    future = plain_future(trace, steps, needed)
    for step in range(len(steps)):
        coming = [later for later in range(step + 1, len(steps)) if steps.timed[later]]
        for layer in range(trace.layers):
            for expert in range(trace.experts):
                when = future.get((layer, expert), [])
                timed = [number for number, later in enumerate(coming, start=1) if later in when]
                after = [later for later in when if later > step]
                assert uses.rows[step, layer, expert] == CERTAIN * sum(number <= horizon for number in timed)
                within = sum(bool(timed) and timed[0] <= asked for asked in (1, horizon))
                assert next_use.rows[step, layer, expert] == CERTAIN * within
                events = len(steps) * trace.layers
                expected = events - (after[0] * trace.layers + layer) if after else 0
                assert belady.rows[step, layer, expert] == expected


def test_oracles_refuse_a_horizon_out_of_range():
    trace = sample()
    steps = decode_steps(trace)
    needed = step_experts(trace, steps)
    for horizon in (0, 4097):
        with pytest.raises(SettingError, match=f"horizon: {horizon}"):
            oracle_uses(trace, steps, needed, horizon)
    with pytest.raises(SettingError, match="horizons: give one"):
        oracle_next_use(trace, steps, needed, ())
