"""The stager's commands by hand: what each answers, what it counts, and what it costs."""

import numpy as np
import pytest

from staging.stager.answers import Kind, Why
from staging.stager.directory import NO_PLACE, NONE
from staging.stager.limits import FOREVER, StagerLimits, StagerSettings
from staging.stager.twin import Stager


def stager(*shares, spare=0, channels=1, queue_depth=4, lanes=3, **registers):
    limits = StagerLimits(
        layers=2, experts=4, places=sum(shares), spare=spare, queue_depth=queue_depth, event_experts=2,
        sequence_slots=2, channels=channels, lanes=lanes,
    )  # fmt: skip
    return Stager(limits, StagerSettings(shares=shares, **registers))


def said(step):
    return [(action.kind, action.key, action.why) for action in step.actions]


def move(of):
    """The next transfer, from its start to its end."""
    transfer = of.grant().transfer
    of.arrive(transfer.channel)
    return transfer.key


def test_demands_first_then_the_nearest_deadline_then_the_most_worth():
    of = stager(8, queue_depth=6)
    of.prefetch(1, [0, 1], [5, 9], deadline=3)
    of.prefetch(0, [3], [9], deadline=2)
    of.prefetch(1, [2], [7], deadline=3)
    of.demand(0, [2, 1])
    assert [move(of) for _ in range(6)] == [2, 1, 3, 5, 6, 4]
    assert of.grant().transfer is None


def test_a_prefetch_that_a_gate_asks_for_is_promoted_and_not_repeated():
    of = stager(8)
    of.prefetch(0, [0, 1], [1, 1], deadline=1)
    channel = of.grant().transfer.channel  # 0 moves, 1 waits
    assert said(of.demand(0, [1, 0])) == [(Kind.PROMOTE, 1, None), (Kind.PROMOTE, 0, None)]
    of.expire(1)
    assert said(of.preempt(channel)) == []  # a gate waits for it
    of.arrive(channel)
    assert move(of) == 1
    assert of.grant().transfer is None
    counters = of.counters
    assert (counters.promoted, counters.moved_demands, counters.moved_prefetches, counters.dropped) == (2, 2, 0, 0)


def test_what_verification_shows_useless_is_dropped_before_it_starts_or_at_the_next_chunk():
    of = stager(8, channels=2)
    of.prefetch(1, [0, 1, 2], [1, 1, 1], deadline=1)
    of.grant()
    of.demand(1, [3])
    assert said(of.expire(1)) == [(Kind.DROP, 5, Why.USELESS), (Kind.DROP, 6, Why.USELESS)]
    assert said(of.preempt(0)) == [(Kind.DROP, 4, Why.USELESS)]
    assert move(of) == 7
    of.prefetch(1, [0], [1], deadline=2)
    of.grant()
    of.expire(2)
    assert said(of.preempt(0)) == []  # no demand waits: it goes on
    of.arrive(0)
    assert of.lookup(1, range(4)).tolist() == [True, False, False, True]
    assert of.counters.dropped == 3


def test_what_makes_way_keeps_its_place_and_goes_on():
    of = stager(2)
    of.prefetch(0, [0], [1], deadline=5)
    first = of.grant().transfer
    of.demand(1, [1])
    assert said(of.preempt(0)) == [(Kind.PAUSE, 0, None)]
    assert move(of) == 5
    again = of.grant().transfer
    assert (again.key, again.place, again.victim) == (0, first.place, NONE)


def test_a_prefetch_enters_only_where_it_gains_more_than_its_price():
    of = stager(1, value_scale=2, chance_scale=10, price=4)
    of.set_values(0, [3, 0, 0, 0])
    of.preload(0, [0])
    of.prefetch(1, [0], [1], deadline=1)  # 10 against 6 + 4
    assert said(of.grant()) == [(Kind.DROP, 4, Why.WORTH)]
    of.set_values(1, [1, 0, 0, 0])
    of.prefetch(1, [0], [1], deadline=1)  # 12
    step = of.grant()
    assert said(step) == [(Kind.EVICT, 0, None)]
    assert (step.transfer.key, step.transfer.victim) == (4, 0)


def test_background_loads_follow_the_same_comparison_with_nobody_waiting():
    of = stager(1, 1, background=True, price=1)
    assert of.grant().transfer is None  # nothing is worth anything
    of.set_values(0, [5, 7, 0, 0])
    of.set_values(1, [9, 0, 0, 0])
    of.preload(1, [1])
    of.set_values(1, [8, 2, 0, 0])
    assert move(of) == 1  # gains 7 in an empty place; layer 1's gains 8 − 2
    assert move(of) == 4
    assert of.grant().transfer is None
    of.set_values(0, [8, 7, 0, 0])
    assert of.grant().transfer is None  # no more than the price
    of.set_values(0, [9, 7, 0, 0])
    assert move(of) == 0
    assert of.counters.wasted == 1  # 1, which nobody had asked for


def test_predictions_out_of_time_are_refused_and_what_has_no_deadline_is_not():
    of = stager(8, horizon=3)
    of.expire(4)
    of.expire(2)  # of a layer that is slower to tell: what is past stays past
    assert said(of.prefetch(0, [0], [1], deadline=4)) == [(Kind.REFUSE, 0, Why.LATE)]
    assert said(of.prefetch(0, [0], [1], deadline=8)) == [(Kind.REFUSE, 0, Why.FAR)]
    assert said(of.prefetch(0, [0], [1], deadline=7)) == [(Kind.QUEUE, 0, None)]
    assert said(of.prefetch(0, [1], [1], deadline=FOREVER)) == [(Kind.QUEUE, 1, None)]
    assert of.counters.refused == 2


def test_a_full_queue_keeps_what_comes_first():
    of = stager(8)
    of.prefetch(0, [0, 1, 2, 3], [1, 2, 3, 4], deadline=5)
    assert said(of.prefetch(1, [0], [1], deadline=5)) == [(Kind.REFUSE, 4, Why.FULL)]
    assert said(of.prefetch(1, [1], [1], deadline=4)) == [(Kind.QUEUE, 5, None), (Kind.DROP, 0, Why.FULL)]
    assert said(of.demand(1, [2])) == [(Kind.WAIT, 6, None), (Kind.DROP, 1, Why.FULL)]


def test_no_place_at_all_never_stops_a_layer():
    of = stager(0, spare=1)
    of.demand(0, [0, 1])
    first, second = (of.grant().transfer, of.arrive(0), of.grant().transfer)[::2]
    assert (first.place, second.place) == (0, NO_PLACE)
    of.arrive(0)
    assert of.lookup(0, [0, 1]).tolist() == [True, True]
    of.release(0, [0, 1])
    assert not of.lookup(0, [0, 1]).any()
    assert (of.counters.passed, of.counters.evicted) == (1, 1)


def test_several_sequences_pin_the_same_expert():
    of = stager(1)
    of.demand(0, [0])
    move(of)
    of.demand(0, [0])
    of.release(0, [0])
    of.demand(1, [0])
    assert of.grant().transfer.place == NO_PLACE  # the other sequence still needs expert 0 of layer 0
    of.arrive(0)
    of.release(0, [0])
    of.release(1, [0])
    of.demand(1, [1])
    assert of.grant().transfer.victim == 0


def test_fates_of_prefetches_are_counted():
    of = stager(2)
    of.prefetch(0, [0, 1], [1, 1], deadline=1)
    move(of), move(of)
    of.demand(0, [0])
    of.expire(1)
    of.demand(1, [0])
    assert of.grant().transfer.victim == 1
    assert (of.counters.hits, of.counters.useful, of.counters.wasted) == (1, 1, 1)


def test_work_is_counted_in_entries_and_cycles():
    of = stager(1, 1)
    step = of.set_values(0, [1, 2, 3, 4])
    assert (step.entries, step.cycles) == (4, 2 + (2 + 3) + 1)  # two words of 3 lanes, three stages, an empty queue
    step = of.demand(0, [0, 1])
    assert (step.entries, step.cycles) == (0, 2 + 2 * 4 + 2 * (1 + 4) + 1)  # looked up, then queued
    first, claim, touch = 1 + 3 + 1, 1, 4  # of 5 entries of the queue: three levels
    scan = 2 + 3 + 2  # two words, three stages, two levels of 3 lanes
    assert of.grant().cycles == 2 + first + claim + touch
    assert of.arrive(0).cycles == 2 + touch
    step = of.grant()  # who gives way in a full group: its 4 entries, none of which may; nor has what waits a place
    assert (step.entries, step.cycles) == (4, 2 + first + claim + scan + 2 + (3 + 1) + touch)
    assert step.transfer.place == NO_PLACE
    of.arrive(0)
    step = of.release(0, [0, 1])
    assert (step.entries, step.cycles) == (0, 2 + 2 * touch + 1)
    of.prefetch(0, [1, 2], [0, 0], deadline=9)  # worth 2 and 3, against 1
    assert of.grant().transfer.key == 2
    of.arrive(0)
    step = of.grant()  # 1 is worth less than 2
    assert (step.entries, step.cycles) == (4, 2 + first + claim + scan + 2 + touch + 1)
    assert of.prefetch(0, [1, 2], [0, 0], deadline=9).cycles == 2 + 2 * touch
    assert of.expire(9).cycles == 2 + 1 + 2 + touch + 1  # one waits, and is dropped
    assert of.grant().cycles == 2 + 1  # nothing waits


def test_a_demand_whose_transfer_fails_waits_again_and_is_given_up_at_last():
    of = stager(2, retries=1)
    of.demand(0, [0, 1])
    first = of.grant().transfer
    assert said(of.fail(0)) == [(Kind.PAUSE, 0, Why.FAILED)]
    assert of.queue.waiting == [1, 0]  # last of the demands
    move(of)
    again = of.grant().transfer
    assert (again.key, again.place, again.demanded) == (0, first.place, True)
    assert said(of.fail(0)) == [(Kind.DROP, 0, Why.FAILED)]
    assert of.lookup(0, [0, 1]).tolist() == [False, True]
    of.release(0, [0, 1])
    assert of.demand(0, [0]).actions[0].kind is Kind.WAIT  # anew, with all its tries
    of.grant()
    assert said(of.fail(0)) == [(Kind.PAUSE, 0, Why.FAILED)]
    counters = of.counters
    assert (counters.failed, counters.lost, counters.dropped, counters.moved_demands) == (3, 1, 1, 1)


def test_a_prefetch_whose_transfer_fails_is_given_up():
    of = stager(2)
    of.prefetch(0, [3], [5], deadline=4)
    of.grant()
    assert said(of.fail(0)) == [(Kind.DROP, 3, Why.FAILED)]
    assert of.grant().transfer is None
    assert (of.counters.failed, of.counters.lost, of.directory.held) == (1, 0, [0])
    with pytest.raises(ValueError, match="nothing moves"):
        of.fail(0)


def test_what_is_computed_elsewhere_is_not_demanded():
    of = stager(2)
    of.preload(1, [2])
    of.prefetch(1, [3], [5], deadline=4)
    step = of.demand(1, [3, 2, 0], resident_only=True)
    assert said(step) == [(Kind.ELSEWHERE, 7, None), (Kind.HIT, 6, None), (Kind.ELSEWHERE, 4, None)]
    assert of.directory.pins.tolist() == [0] * 6 + [1, 0]
    assert not of.queue.holds_demand
    assert of.queue.waiting == [7]
    of.release(1, [2])
    with pytest.raises(ValueError, match="nobody demanded"):
        of.release(1, [3])


def test_faults_are_named():
    of = stager(4)
    for command, fault in [
        (lambda: of.demand(2, [0]), "layer 2, experts .0.: beyond the limits"),
        (lambda: of.demand(0, [4]), "beyond the limits"),
        (lambda: of.demand(0, [1, 1]), "one is named twice"),
        (lambda: of.release(0, [1]), "nobody demanded"),
        (lambda: of.arrive(0), "channel 0: nothing moves there"),
        (lambda: of.preempt(1), "channel 1: nothing moves there"),
        (lambda: of.set_values(0, [1, 2]), "values: give 4 of 16 bits"),
        (lambda: of.set_values(0, [1 << 15, 0, 0, 0]), "values: give 4 of 16 bits"),
        (lambda: of.set_values(-1, [1, 2, 3, 4]), "layer -1, experts .*: beyond the limits"),
        (lambda: of.set_values(0, [0.5, 0, 0, 0]), "values: float64; give integers"),
        (lambda: of.prefetch(0, [1], [0.5], 5), "chances: float64; give integers"),
        (lambda: of.set_values(0, np.array([2**64 - 1, 0, 0, 0], np.uint64)), "values: uint64; give integers"),
        (lambda: of.prefetch(0, [1], [1], FOREVER + 1), "deadline .*: give 0 to 4294967294, or"),
        (lambda: of.prefetch(0, [1], [1], (1 << 32) - 1), "deadline 4294967295: give 0 to 4294967294, or"),
        (lambda: of.expire(-1), "deadline -1: give 0 to"),
        (lambda: of.prefetch(0, [1], [1, 2], 5), "chances: give 1 of 16 bits"),
        (lambda: of.prefetch(0, [1], [-1], 5), "chances: give 1 of 16 bits"),
        (lambda: of.prefetch(0, [1], [1 << 16], 5), "chances: give 1 of 16 bits"),
    ]:
        with pytest.raises(ValueError, match=fault):
            command()
    of.preload(0, [0])
    with pytest.raises(ValueError, match="key 0 is not absent"):
        of.preload(0, [0])
    of.demand(0, [0, 1])
    of.demand(1, [0, 1])
    with pytest.raises(ValueError, match="4 \\+ 1 uses at once; the limit is 4"):
        of.demand(0, [3])
    of.grant()
    with pytest.raises(ValueError, match="every channel is taken"):
        of.grant()
    assert np.asarray(of.directory.pins).sum() == 4


def test_as_much_as_there_is_room_for_is_held_before_anything_runs_and_no_more():
    of = stager(2, 1)
    of.preload(0, [0, 1])
    of.preload(1, [3])
    for layer, expert in [(0, 2), (1, 0)]:
        with pytest.raises(ValueError, match=f"key {4 * layer + expert} is not absent, or its group has no place left"):
            of.preload(layer, [expert])
        assert not of.lookup(layer, [expert]).any()
    assert of.lookup(0, [0, 1, 2, 3]).tolist() == [True, True, False, False]


def test_values_and_chances_fill_their_bits():
    of = stager(4)
    of.set_values(0, [(1 << 15) - 1, -(1 << 15), 0, 0])
    with pytest.raises(ValueError, match="values: give 4 of 16 bits"):
        of.set_values(0, [-(1 << 15) - 1, 0, 0, 0])
    of.prefetch(0, [1], [(1 << 16) - 1], 5)
    assert of.directory.chance[1] == (1 << 16) - 1
