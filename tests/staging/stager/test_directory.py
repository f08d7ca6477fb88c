"""Places, and who gives way, by hand."""

import numpy as np
import pytest

from catalog.errors import ForestageError
from staging.stager.directory import NO_PLACE, NONE, Claim, Directory
from staging.stager.limits import StagerLimits, StagerSettings


def directory(*shares, layers=2, experts=8, spare=0, stamp_bits=32, **registers):
    limits = StagerLimits(
        layers=layers, experts=experts, places=sum(shares), spare=spare, queue_depth=4, event_experts=2,
        stamp_bits=stamp_bits,
    )  # fmt: skip
    return Directory(limits, StagerSettings(shares=shares, **registers))


def hold(of, *keys):
    """These arrive, one after the other."""
    for key in keys:
        assert of.claim(key, demanded=True) is not None
        of.arrive(key)


def test_a_place_is_taken_from_the_first_byte_on():
    of = directory(2)
    hold(of, 0)
    assert of.claim(1, demanded=True) == Claim(1)
    assert not of.is_resident(1)
    assert of.claim(2, demanded=True) == Claim(0, victim=0)  # 1 is moving, and does not give way
    of.free(1)
    assert of.claim(3, demanded=True) == Claim(1)


def test_the_least_recently_used_gives_way_and_an_arrival_counts_as_a_use():
    of = directory(3)
    hold(of, 0, 1, 2)
    of.pin([0])
    of.unpin([0])
    assert of.claim(3, demanded=True) == Claim(1, victim=1)
    of.arrive(3)
    assert of.claim(4, demanded=True) == Claim(2, victim=2)


def test_pins_are_counted_and_what_is_pinned_or_fixed_stays():
    of = directory(2)
    hold(of, 0, 1)
    of.pin([0, 1])
    of.pin([0])
    of.unpin([0, 1])
    assert of.lowest(0) == 1  # 0 is pinned once more
    of.fixed[1] = True
    assert of.lowest(0) == NONE
    of.unpin([0])
    assert of.lowest(0) == 0


def test_predicted_experts_give_way_to_demands_alone_and_as_the_last():
    of = directory(3)
    hold(of, 0, 1, 2)
    for key in (0, 1, 5):
        of.set_chance(key, 1, deadline=7)
    of.pin([2])
    assert of.claim(5, demanded=False) is None  # worth no more than who would give way
    assert of.claim(3, demanded=True) == Claim(0, victim=0)
    of.now = 7
    assert of.claim(4, demanded=True) == Claim(1, victim=1)


def test_an_earlier_chance_that_lies_ahead_stands():
    of = directory(1, chance_scale=10)
    of.set_chance(3, 2, deadline=5)
    of.set_chance(3, 9, deadline=6)
    assert of.worth(3) == 20
    of.set_chance(3, 1, deadline=5)
    assert of.worth(3) == 10
    of.now = 5
    assert of.worth(3) == 0
    of.set_chance(3, 9, deadline=6)
    assert of.worth(3) == 90


@pytest.mark.parametrize(("price", "enters"), [(3, True), (4, False)])
def test_the_price_is_paid_above_who_gives_way_and_above_an_empty_place(price, enters):
    of = directory(1, price=price)
    of.value[1] = 4
    assert (of.claim(1, demanded=False) is not None) == enters
    of = directory(1, price=price)
    hold(of, 0)
    of.value[:2] = 5, 9
    assert (of.claim(1, demanded=False) is not None) == enters


def test_of_equal_worth_the_larger_key_gives_way_where_recency_is_not_looked_at():
    of = directory(3, by_recency=False)
    hold(of, 12, 3, 1)
    of.value[[1, 3, 12]] = 5
    assert of.lowest(0) == 12
    of.value[12] = 6
    assert of.lowest(0) == 3


def test_each_layer_has_places_of_its_own_of_uneven_number_or_all_share():
    apart, together = directory(1, 2), directory(3)
    for of in (apart, together):
        hold(of, 0, 8, 9, 1)
    assert [apart.is_resident(key) for key in (0, 8, 9, 1)] == [False, True, True, True]
    assert [together.is_resident(key) for key in (0, 8, 9, 1)] == [False, True, True, True]
    hold(apart, 10)
    hold(together, 2)
    assert [apart.is_resident(key) for key in (8, 9, 1, 10)] == [False, True, True, True]
    assert [together.is_resident(key) for key in (8, 9, 1, 2)] == [False, True, True, True]
    hold(apart, 2)
    assert not apart.is_resident(1)


def test_a_demand_without_a_place_takes_a_spare_one_and_then_none():
    of = directory(1, 0, spare=1)
    hold(of, 0)
    of.pin([0])
    assert of.claim(1, demanded=True) == Claim(1)
    assert of.claim(2, demanded=True) == Claim(NO_PLACE)
    assert of.claim(8, demanded=True) == Claim(NO_PLACE)  # the spare place is taken, whoever has it
    assert of.claim(9, demanded=False) is None


def test_what_is_beyond_the_share_gives_way_when_its_layer_has_run():
    of = directory(2, spare=3)
    hold(of, 0)
    of.value[[3, 5]] = 1, 1
    of.use_at_once([3, 4, 5])
    assert np.flatnonzero(of.status).tolist() == [3, 5]
    assert of.held == [2]


def test_a_stamp_that_came_round_looks_young_again():
    of = directory(2, stamp_bits=2)
    hold(of, 0, 1)  # stamps 0, 1
    for _ in range(2):
        of.stamp(1)  # 2, 3
    assert of.lowest(0) == 0
    of.stamp(1)  # 0 again: as young as 0 looks
    assert of.lowest(0) == 1


def test_settings_that_do_not_fit_are_refused():
    for shares, layers, fault in [((1, 1, 1), 2, "3 groups; give 1, of all layers, or 2"), ((-1,), 1, "of 0 or more")]:
        limits = StagerLimits(layers=layers, experts=4, places=9, queue_depth=2, event_experts=2)
        with pytest.raises(ForestageError, match=fault):
            Directory(limits, StagerSettings(shares=shares))
    limits = StagerLimits(layers=1, experts=4, places=1, queue_depth=2, event_experts=2, scale_bits=2)
    with pytest.raises(ForestageError, match=r"shares: \(2,\) of 1 places"):
        Directory(limits, StagerSettings(shares=(2,)))
    with pytest.raises(ForestageError, match="price: 4 does not fit 2 bits"):
        Directory(limits, StagerSettings(shares=(1,), price=4))
    with pytest.raises(ValueError, match="cannot hold the demands of 2 sequence slots"):
        StagerLimits(layers=1, experts=4, places=1, queue_depth=3, sequence_slots=2, event_experts=2)
    with pytest.raises(ValueError, match="event_experts: 5 of 4 experts"):
        StagerLimits(layers=1, experts=4, places=1, queue_depth=9, event_experts=5)


def test_settings_may_use_all_that_is_generated():
    limits = StagerLimits(layers=2, experts=4, places=3, queue_depth=4, sequence_slots=2, event_experts=2, scale_bits=3)
    full = StagerSettings(shares=(3, 0), price=7, value_scale=7, chance_scale=7)
    assert Directory(limits, full).settings == full
    assert StagerLimits(layers=1, experts=4, places=0, queue_depth=4, event_experts=4).most_pins == 4


@pytest.mark.parametrize(
    "field", ["layers", "experts", "queue_depth", "channels", "sequence_slots", "event_experts", "lanes"]
)
def test_of_what_there_must_be_one_none_is_refused(field):
    least = {"layers": 1, "experts": 1, "places": 0, "queue_depth": 1, "event_experts": 1, "channels": 1, "lanes": 1}
    assert StagerLimits(**least)
    with pytest.raises(ValueError, match=f"{field}\n  Input should be greater than or equal to 1"):
        StagerLimits(**{**least, field: 0})
