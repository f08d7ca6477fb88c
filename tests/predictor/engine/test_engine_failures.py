"""Transfers that fail: a demand is tried again so many times, then whoever waits is told."""

from predictor.engine.commands import CommandKind
from predictor.engine.counters import EngineCounter
from predictor.engine.events import Gate, Release, Token, event_arrays
from predictor.engine.following import EngineFollower
from predictor.engine.notices import Notice, NoticeKind
from predictor.engine.settings import Mode
from staging.stager.answers import Kind, Why
from tests.predictor.engine.engine_samples import LIMITS, TOP_K, small_settings


def follower(retries: int) -> EngineFollower:
    """Two slots have demanded expert 5 of layer 0, and one of them expert 6."""
    settings = small_settings(mode=Mode.OFF, stager={"background": False, "retries": retries})
    events = event_arrays(
        [
            Token(0, last=False, starts_sequence=True),
            Token(1, first=False, starts_sequence=True),
            Gate(0, 0, (5, 6), last=False),
            Gate(1, 0, (5, 3), first=False),
            Release(0, 0, last=False),
            Release(1, 0, first=False),
        ],
        TOP_K,
    )
    of = EngineFollower(LIMITS, settings, events, predictor=None)
    of.preload(0, 3)
    first, second = of.follow(CommandKind.DEMAND), of.follow(CommandKind.DEMAND)
    assert [action.kind for action in first.actions] == [Kind.WAIT, Kind.WAIT]
    assert [action.kind for action in second.actions] == [Kind.PROMOTE, Kind.HIT]
    of.follow(CommandKind.EXPIRE)
    return of


def test_a_demand_that_failed_waits_again_behind_the_others() -> None:
    of = follower(retries=1)
    granted = of.follow(CommandKind.GRANT)
    assert granted.transfer is not None
    assert granted.transfer.key == 5
    failed = of.follow(CommandKind.FAIL)
    assert [(kind, key, why) for kind, key, why in failed.actions] == [(Kind.PAUSE, 5, Why.FAILED)]
    assert failed.notices == []
    assert [of.follow(CommandKind.GRANT).transfer.key, of.follow(CommandKind.ARRIVE).notices[0].expert] == [6, 6]
    again = of.follow(CommandKind.GRANT)
    assert again.transfer.key == 5
    assert of.decisions.first_chunk == 0
    told = of.follow(CommandKind.ARRIVE).notices
    assert [(one.kind, one.slot) for one in told] == [
        (NoticeKind.ARRIVED, 0), (NoticeKind.READY, 0), (NoticeKind.READY, 1),
    ]  # fmt: skip
    counters = of.counters
    assert (counters[EngineCounter.RETRIED], counters[EngineCounter.FAILED]) == (1, 0)
    assert counters[EngineCounter.BYTES] == 2000


def test_every_slot_that_waits_is_told_of_what_is_given_up() -> None:
    of = follower(retries=0)
    of.follow(CommandKind.GRANT)
    failed = of.follow(CommandKind.FAIL)
    assert [(kind, key, why) for kind, key, why in failed.actions] == [(Kind.DROP, 5, Why.FAILED)]
    assert failed.notices == [
        Notice(NoticeKind.FAILED, 0, 0, 5), Notice(NoticeKind.FAILED, 1, 0, 5), Notice(NoticeKind.READY, 1, 0),
    ]  # fmt: skip
    of.follow(CommandKind.GRANT)
    told = of.follow(CommandKind.ARRIVE).notices
    assert [(one.kind, one.slot, one.expert) for one in told] == [(NoticeKind.ARRIVED, 0, 6), (NoticeKind.READY, 0, 0)]
    assert of.follow(CommandKind.RELEASE).experts == (5, 6)
    assert of.follow(CommandKind.RELEASE).experts == (5, 3)
    counters = of.counters
    assert (counters[EngineCounter.RETRIED], counters[EngineCounter.FAILED]) == (0, 1)


def test_all_are_told_that_it_failed_before_any_is_ready() -> None:
    settings = small_settings(mode=Mode.OFF, stager={"background": False, "retries": 0})
    told = [Token(0, last=False, starts_sequence=True), Token(1, first=False, starts_sequence=True)]
    told += [Gate(0, 0, (5, 6), last=False), Gate(1, 0, (6, 5), first=False)]
    both = EngineFollower(LIMITS, settings, event_arrays(told, TOP_K), predictor=None)
    both.preload(0, 6)
    for kind in (CommandKind.DEMAND, CommandKind.DEMAND, CommandKind.EXPIRE, CommandKind.GRANT):
        both.follow(kind)
    notices = both.follow(CommandKind.FAIL).notices
    assert [(one.kind.name, one.slot) for one in notices] == [
        ("FAILED", 0), ("FAILED", 1), ("READY", 0), ("READY", 1),
    ]  # fmt: skip


def test_who_no_longer_waits_is_told_nothing() -> None:
    of = follower(retries=0)
    of.follow(CommandKind.GRANT)
    of.follow(CommandKind.RELEASE)
    failed = of.follow(CommandKind.FAIL)
    assert [(one.kind, one.slot) for one in failed.notices] == [(NoticeKind.FAILED, 1), (NoticeKind.READY, 1)]
