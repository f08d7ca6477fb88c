"""The twin in an order that somebody else gives: the same decisions, and a refusal of what cannot have been."""

import dataclasses

import numpy as np
import pytest

from predictor.engine.commands import CommandKind, Done
from predictor.engine.following import EngineFollower, OutOfOrder
from predictor.engine.predictors import LearnedPredictor
from predictor.engine.timing import SteadyLink, SteadyPredictor
from tests.predictor.engine.engine_samples import (
    LIMITS,
    small_events,
    small_heads,
    small_settings,
    small_trace,
    small_twin,
)

STEADY = SteadyPredictor(20, 35, 40)


def follower(slots: int = 1) -> EngineFollower:
    settings = small_settings()
    predictor = LearnedPredictor(small_heads(settings), STEADY)
    return EngineFollower(LIMITS, settings, small_events(small_trace(), slots), predictor=predictor)


def own_run(slots: int = 1, link: SteadyLink = LINK) -> tuple[list[Done], list[int], np.ndarray]:
    """The commands of a run, of each PREEMPT the chunk, and the counters."""
    twin = small_twin(small_trace(), small_settings(), slots=slots, link=link)
    log, chunks = [], []
    for done in twin.run():
        log.append(done)
        chunks.append(twin._next_chunk)
    return log, chunks, twin.counters


def same(mine: Done, theirs: Done) -> bool:
    """Whether two commands are the same, and did the same."""
    for of in dataclasses.fields(Done):
        ours, others = getattr(mine, of.name), getattr(theirs, of.name)
        equal = np.array_equal(ours, others) if of.name == "values" and ours is not None else ours == others
        if of.name != "start" and not equal:
            return False
    return True


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("link", [LINK, SteadyLink(4, 7, 300), SteadyLink(4, 1, 1)])
def test_it_decides_as_the_twin_did_whatever_order_times_made(slots: int, link: SteadyLink) -> None:
    log, chunks, counters = own_run(slots, link)
    follows = follower(slots)
    for done, chunk in zip(log, chunks, strict=True):
        assert same(follows.follow(done.kind, chunk=chunk), done)
    follows.finish()
    told = follows.counters != counters
    assert set(np.flatnonzero(told)) <= {32}  # cycles in which the stager worked


def test_an_order_that_no_arbitration_makes_is_refused() -> None:
    log, chunks, _ = own_run()
    kinds = [done.kind for done in log]
    demand = kinds.index(CommandKind.DEMAND)
    prediction = kinds.index(CommandKind.PREFETCH, demand)

    def until(count: int) -> EngineFollower:
        follows = follower()
        for done, chunk in zip(log[:count], chunks, strict=False):
            follows.follow(done.kind, chunk=chunk)
        return follows

    with pytest.raises(OutOfOrder, match="what comes next in the order of the events is demand"):
        until(demand).follow(CommandKind.RELEASE)
    with pytest.raises(OutOfOrder, match="expire waited, and comes first"):
        until(demand + 1).follow(CommandKind.PREFETCH)
    with pytest.raises(OutOfOrder, match="the prediction of the same event comes first"):
        until(prediction).follow(CommandKind.SET_VALUES)
    with pytest.raises(OutOfOrder, match="no event that was taken says so"):
        until(prediction + 1).follow(CommandKind.PREFETCH)
    granted = next(at for at, done in enumerate(log) if done.transfer is not None)
    with pytest.raises(OutOfOrder, match="grant: something moves"):
        until(granted + 1).follow(CommandKind.GRANT)
    with pytest.raises(OutOfOrder, match="arrive: nothing moves"):
        until(granted).follow(CommandKind.ARRIVE)
    with pytest.raises(OutOfOrder, match="preempt: no demand waits"):
        until(granted + 1).follow(CommandKind.PREEMPT, chunk=1)
    with pytest.raises(OutOfOrder, match="were never given to the stager"):
        until(demand).finish()
