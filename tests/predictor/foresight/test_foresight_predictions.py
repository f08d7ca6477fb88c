"""Predictions are the predictors' own answers, merged over a step's tokens as plain Python merges them."""

from fractions import Fraction

import numpy as np
import pytest

from catalog.errors import ForestageError, SettingError
from predictor import registry
from predictor.base import stream_trace
from predictor.foresight import parts
from predictor.foresight.issued_predictions import issued_predictions
from predictor.foresight.learned_predictions import learned_predictions
from predictor.foresight.perfect_predictions import perfect_predictions
from staging.steps import batch_steps, decode_steps, step_experts, verification_steps
from tests.issue_sets import issue_sets
from tests.learned_samples import random_predictor
from tests.predictor.foresight.test_values import CERTAIN, SHAPE, sample
from traces.batch import BatchConfig, make_schedule
from traces.mapping import IN_MEMORY_BYTES, new_array, release


def batch_of(trace, slots=3):
    return batch_steps(trace, make_schedule(trace, BatchConfig(slots=slots, order="shuffled")))


def tokens_of(steps, step):
    return sorted(steps.tokens[steps.offsets[step] : steps.offsets[step + 1]].tolist())


def streamed_chances(predictor, trace):
    """Chances i64 [tokens, layers, experts] of the streaming form."""
    scores = stream_trace(predictor, trace)
    return np.stack(
        [predictor.network.chances_of(layer, scores[:, layer, None])[:, 0] for layer in range(trace.layers)], axis=1
    ).astype(np.int64)


def merged(chances):
    """1 − Π(1 − p) with the stated rounding."""
    found = 0
    for chance in chances:
        found = CERTAIN - ((CERTAIN - found) * (CERTAIN - int(chance)) + CERTAIN // 2) // CERTAIN
    return found


def best(row, most):
    order = sorted((expert for expert in range(len(row)) if row[expert]), key=lambda expert: (-row[expert], expert))
    return [(expert, row[expert]) for expert in order[:most]]


def held(predictions, step, target, index):
    row, chances = predictions.experts[step, target, index].tolist(), predictions.chances[step, target, index].tolist()
    pairs = [(expert, chance) for expert, chance in zip(row, chances, strict=True) if expert >= 0]
    assert row == [expert for expert, _ in pairs] + [-1] * (len(row) - len(pairs))
    return pairs


@pytest.mark.parametrize("batched", [False, True])
def test_learned_predictions_are_the_streaming_predictors_merged_over_a_steps_tokens(batched, monkeypatch):
    monkeypatch.setattr(parts, "PART_BYTES", 300)
    trace = sample()
    bank = random_predictor(**SHAPE, lookahead=1, nearest=1, farthest=3)
    predictors = [bank.at(1), bank.at(3)]
    steps = batch_of(trace) if batched else decode_steps(trace)
    found = learned_predictions(predictors, trace, steps, 5)
    chances = [streamed_chances(predictor, trace) for predictor in predictors]
    assert found.distances == (1, 3)
    for step in range(len(steps)):
        for target in range(trace.layers):
            for index, nearer in enumerate((0, 1)):
                expected = []
                if steps.timed[step] and target >= nearer:
                    rows = chances[index][tokens_of(steps, step), target]
                    expected = best([merged(rows[:, expert]) for expert in range(trace.experts)], 5)
                assert held(found, step, target, index) == expected


def test_a_merged_chance_is_that_of_independent_choices_but_for_rounding():
    chances = [20_000, 1, 0, 65_000, 300]
    exact = CERTAIN * (1 - np.prod([Fraction(CERTAIN - chance, CERTAIN) for chance in chances]))
    assert abs(merged(chances) - exact) < 2
    assert merged([777]) == 777
    assert merged([CERTAIN, 5]) == CERTAIN


def test_predictions_are_refused_where_a_steps_tokens_follow_each_other():
    trace = sample()
    steps = verification_steps(trace, 2)
    fitted = registry.fit("st-moe", trace)
    with pytest.raises(ForestageError, match="later tokens of a verification"):
        learned_predictions([random_predictor(**SHAPE)], trace, steps, 4)
    with pytest.raises(ForestageError, match="later tokens of a verification"):
        issued_predictions(fitted, trace, steps, 4)
    perfect_predictions(trace, steps, step_experts(trace, steps), (1,))


def test_distances_and_sizes_out_of_range_are_refused():
    trace = sample()
    steps = decode_steps(trace)
    needed = step_experts(trace, steps)
    for distances in ((), (0, 1), (2, 1), (1, 1), (4,)):
        with pytest.raises(SettingError, match="distances"):
            perfect_predictions(trace, steps, needed, distances)
    with pytest.raises(SettingError, match="most: 10"):
        learned_predictions([random_predictor(**SHAPE)], trace, steps, 10)
    with pytest.raises(ForestageError, match="trace of the same model"):
        learned_predictions([random_predictor(layers=5, experts=9)], trace, steps, 4)


@pytest.mark.parametrize("name", ["st-moe", "previous-token"])
@pytest.mark.parametrize("lookahead", [1, 2])
def test_issued_predictions_of_single_tokens_are_the_issue_sets_each_certain(name, lookahead):
    trace = sample()
    predictor = registry.fit(name, trace, lookahead=lookahead)
    steps = decode_steps(trace)
    sets = issue_sets(predictor, trace, 4)
    found = issued_predictions(predictor, trace, steps, 4)
    assert found.distances == (lookahead,)
    assert any(held(found, step, 2, 0) for step in range(len(steps)))
    for step in np.flatnonzero(steps.timed).tolist():
        (token,) = tokens_of(steps, step)
        for target in range(trace.layers):
            expected = [(expert, CERTAIN) for expert in sets[token, target].tolist() if expert >= 0]
            assert held(found, step, target, 0) == expected
    assert (found.experts[~steps.timed] == -1).all()


def test_issued_predictions_of_a_batch_know_nothing_of_other_sequences_and_add_up_ranks():
    trace = sample()
    predictor = registry.fit("st-moe", trace)
    steps = batch_of(trace)
    sets = np.concatenate([issue_sets(predictor, trace.sequence(i), 3) for i in range(trace.sequences)])
    assert (sets != issue_sets(predictor, trace, 3)).any()
    found = issued_predictions(predictor, trace, steps, 3, most=6)
    for step in np.flatnonzero(steps.timed).tolist():
        for target in range(trace.layers):
            points = [0] * trace.experts
            for token in tokens_of(steps, step):
                for rank, expert in enumerate(sets[token, target].tolist()):
                    if expert >= 0:
                        points[expert] += 3 - rank
            expected = [(expert, CERTAIN) for expert, _ in best(points, 6)]
            assert held(found, step, target, 0) == expected


def test_perfect_predictions_are_what_each_timed_step_needs():
    trace = sample()
    steps = batch_of(trace)
    needed = step_experts(trace, steps)
    found = perfect_predictions(trace, steps, needed, (2, 3))
    for step in range(len(steps)):
        for target in range(trace.layers):
            event = step * trace.layers + target
            chosen = needed.experts[needed.offsets[event] : needed.offsets[event + 1]].tolist()
            for index, nearer in enumerate((0, 2)):
                expected = [(expert, CERTAIN) for expert in chosen] if steps.timed[step] and target >= nearer else []
                assert held(found, step, target, index) == expected


def test_a_large_array_is_mapped_from_a_file_and_keeps_what_was_written_when_it_is_released():
    large = new_array((IN_MEMORY_BYTES // 4 + 1,), np.int32)
    large[-3:] = 7
    release(large)
    assert large[-3:].tolist() == [7, 7, 7]
    assert not large[:1000].any()
    assert isinstance(large.base, np.memmap)
    assert type(large) is np.ndarray


def test_an_array_that_no_disk_holds_is_refused():
    with pytest.raises(ForestageError, match="set TMPDIR to a folder on a larger disk"):
        new_array((1 << 50,), np.int32)
