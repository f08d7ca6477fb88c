"""What is measured where time is short is the same wherever it is chosen."""

from pathlib import Path

import numpy as np
import pytest

from catalog.errors import ForestageError
from predictor.policies.material import LEAST_SEQUENCES, material_of, part_of_steps
from predictor.policies.parts import Predictors
from staging.steps import batch_steps, decode_steps
from tests.routing import trace_of
from traces import RoutingTrace, split
from traces.batch import BatchConfig, make_schedule


def routed(sequences: int, *, prompt: int = 0, seed: int = 0) -> RoutingTrace:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(prompt + 1, prompt + 9, sequences).tolist()
    ids = generator.permuted(np.tile(np.arange(8), (sum(lengths), 3, 1)), axis=2)[:, :, :2]
    return trace_of(ids, experts=8, lengths=lengths, prompt=prompt)


def test_slices_hold_whole_sequences_of_their_parts() -> None:
    trace = routed(300)
    train, test = split(trace)
    found = material_of(trace, Predictors(), {}, test_tokens=200, tuning_tokens=10)
    assert set(found.test_sequences) <= set(test.tolist())
    assert set(found.tuning_sequences) <= set(train.tolist())
    assert 200 <= found.test.tokens < 210
    assert len(found.tuning_sequences) == LEAST_SEQUENCES
    for index, sequence in enumerate(found.test_sequences):
        assert np.array_equal(found.test.sequence(index).expert_ids, trace.sequence(sequence).expert_ids)
    # Not the first of the part, which may all be of one data set.
    assert list(found.test_sequences) != test[: len(found.test_sequences)].tolist()


def test_uses_and_tables_are_of_the_whole_training_part() -> None:
    trace = routed(40)
    train, _ = split(trace)
    found = material_of(trace, Predictors(), {"next-use": "0" * 64}, test_tokens=5, tuning_tokens=5)
    tokens = np.diff(trace.sequence_offsets)[train].sum()
    assert found.uses.sum() == tokens * trace.layers * trace.top_k
    assert found.predictors.st_moe is not None
    assert set(found.digests) == {"next-use", "uses", "st-moe", "activation"}


def test_a_trace_without_test_sequences_is_refused() -> None:
    with pytest.raises(ForestageError, match="no test sequences"):
        material_of(routed(1), Predictors(), {})


@pytest.mark.parametrize("prompt", [0, 2])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_steps_of_a_cut_trace_are_the_first_of_the_whole(batch: int, prompt: int) -> None:
    trace = routed(12, prompt=prompt)
    schedule = make_schedule(trace, BatchConfig(slots=batch))
    whole = decode_steps(trace) if batch == 1 else batch_steps(trace, schedule)
    for steps in (1, 2, 5, 11):
        cut, found = part_of_steps(trace, batch=batch, steps=steps)
        assert int(found.timed.sum()) == steps
        assert np.array_equal(found.timed, whole.timed[: len(found)])
        assert np.array_equal(found.offsets, whole.offsets[: len(found) + 1])
        same = whole.tokens[: found.offsets[-1]]
        assert np.array_equal(cut.expert_ids[found.tokens], trace.expert_ids[same])
        assert np.array_equal(cut.position[found.tokens], trace.position[same])


def test_a_trace_of_prompts_runs_them_as_if_decoded(tmp_path: Path) -> None:
    trace = trace_of(np.zeros((6, 2, 1), int), experts=4, lengths=[4, 2], prompt=4)
    cut, steps = part_of_steps(trace, batch=1, steps=5)
    assert (cut.tokens, cut.sequences, steps.timed.all()) == (5, 2, True)
    with pytest.raises(ForestageError, match="prompts alone"):
        part_of_steps(trace, batch=2, steps=1)


def test_more_steps_than_there_are_are_refused() -> None:
    with pytest.raises(ForestageError, match="6 decode steps of 1 sequences at once, 7 are needed"):
        part_of_steps(trace_of(np.zeros((6, 2, 1), int), experts=4), batch=1, steps=7)
