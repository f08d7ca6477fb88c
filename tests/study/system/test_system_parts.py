"""What policies are chosen and measured on: the training side is made once, and tuning does not follow --tokens."""

from typing import Any

import numpy as np
import pytest

from predictor import registry
from predictor.policies.parts import Predictors
from predictor.policies.policy import Eviction, Prefetch
from study.system.parts import TUNING_TOKENS, chosen_sequences, system_parts, training_of
from tests.routing import trace_of
from traces import RoutingTrace, split

LENGTH = 10


@pytest.fixture
def trace() -> RoutingTrace:
    """20 sequences, of which 4 are the test part."""
    ids = np.random.default_rng(0).random((20 * LENGTH, 2, 8)).argsort(axis=-1)[..., :2]
    return trace_of(ids, experts=8, lengths=[LENGTH] * 20, ranked=False)


def test_tables_are_profiled_once_for_all_parts(trace: RoutingTrace, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = []

    def fit(*arguments: Any, **options: Any) -> Any:
        fitted.append(options)
        return real(*arguments, **options)

    real = registry.fit
    monkeypatch.setattr(registry, "fit", fit)
    training = training_of(trace, Predictors())
    for tokens in (None, LENGTH):
        for part in system_parts(training, tokens=tokens):
            assert Prefetch.ST_MOE in part.predictions
    assert fitted == [{"lookahead": 1}]
    assert training_of(trace, Predictors(), tables_ahead=None).predictors.st_moe is None
    assert training.predictors.activation is not None
    assert training_of(trace, Predictors(), activation=False).predictors.activation is None


def test_the_uses_are_those_of_the_training_sequences(trace: RoutingTrace) -> None:
    train, _ = split(trace)
    ids = np.concatenate([trace.expert_ids[trace.sequence_slice(int(index))] for index in train])
    expected = np.stack([np.bincount(ids[:, layer].ravel(), minlength=8) for layer in range(2)])
    assert np.array_equal(training_of(trace, Predictors()).uses, expected)


def test_tuning_takes_the_last_training_sequences_and_the_test_part_its_first(trace: RoutingTrace) -> None:
    train, test = split(trace)
    tuning, tested = chosen_sequences(trace, tokens=LENGTH, tuning_tokens=2 * LENGTH + 1)
    assert tuning.tolist() == train[-3:].tolist()
    assert tested.tolist() == test[:1].tolist()
    every, _ = chosen_sequences(trace, tokens=1)
    assert len(train) * LENGTH < TUNING_TOKENS
    assert every.tolist() == train.tolist()


def test_a_batch_is_tuned_on_steps_enough(trace: RoutingTrace) -> None:
    tuning, tested = chosen_sequences(trace, batch=2, tokens=1, tuning_tokens=1)
    assert (len(tuning), len(tested)) == (13, 2)  # 128 tokens; and as many sequences as are served at once


def test_parts_without_oracles_know_nothing_of_the_future(trace: RoutingTrace) -> None:
    training = training_of(trace, Predictors())
    _, part = system_parts(training, oracles=False)
    assert set(part.values) == {Eviction.FREQUENCY, Eviction.ACTIVATION}
    assert set(part.predictions) == {Prefetch.ST_MOE, Prefetch.ACTIVATION}
    _, part = system_parts(training)
    assert {Eviction.BELADY, Eviction.ORACLE, Eviction.USES} <= set(part.values)
