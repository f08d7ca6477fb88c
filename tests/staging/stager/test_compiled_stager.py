"""The compiled stager against the streaming one: after every command the same answer and the same state."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from staging.stager.answers import Kind, Why
from staging.stager.compiled import commands
from staging.stager.compiled import directory as compiled_directory
from staging.stager.compiled.stager import CompiledStager
from staging.stager.compiled.state import State
from staging.stager.directory import RESIDENT
from staging.stager.limits import FOREVER, StagerLimits, StagerSettings
from staging.stager.twin import Stager
from tests.staging.stager.random_commands import Chooser, stagers, tell

COMMANDS = 120


class Both:
    """Two forms, told the same."""

    def __init__(self, limits, registers):
        self.limits = limits
        self.twin, self.compiled = Stager(limits, registers), CompiledStager(limits, registers)

    def __call__(self, command, *arguments, **options):
        """The answer of both."""
        expected = tell(self.twin, command, arguments, **options)
        assert tell(self.compiled, command, arguments, **options) == expected, command
        self.check()
        return expected

    def check(self):
        """The same state, to the last field."""
        twin, directory, state = self.twin, self.twin.directory, self.compiled.state
        numbers, keys = state.numbers, state.keys
        for field in ("status", "place", "pins", "fixed", "value", "chance", "deadline", "last"):
            assert keys[field].tolist() == getattr(directory, field).tolist(), field
        for field, members in (
            ("demanded", twin.queue.demanded), ("useless", twin._useless), ("unused", twin._unused)
        ):  # fmt: skip
            assert set(np.flatnonzero(keys[field]).tolist()) == members, field
        assert {int(key): int(keys["tries"][key]) for key in np.flatnonzero(keys["tries"])} == twin._tries
        for layer, held in enumerate(state.layers["residents"].tolist()):
            first = layer * self.limits.experts
            listed = keys["resident"][first : first + held]
            here = keys["status"][first : first + self.limits.experts] == RESIDENT
            assert sorted(listed.tolist()) == (first + np.flatnonzero(here)).tolist()
            assert keys["nth"][listed].tolist() == list(range(held))
        assert state.queue[: numbers["waiting"]].tolist() == twin.queue.waiting
        assert state.moving.tolist() == twin.moving
        assert np.flatnonzero(state.is_free).tolist() == sorted(directory._free)
        assert state.groups["held"].tolist() == directory.held
        assert (numbers["now"], numbers["needed"]) == (directory.now, twin._needed)
        assert numbers["uses"] % (1 << self.limits.stamp_bits) == directory._stamps
        assert numbers["all_entries"] == directory.entries
        assert self.compiled.counters == twin.counters

    def look(self, *, remember):
        """Who would give way and who would gain most; ``remember``: asked of the state, which keeps what it finds."""
        directory, state = self.twin.directory, self.compiled.state
        before = directory.entries
        asked = state if remember else State(*(part.copy() for part in state))
        counted = int(asked.numbers["entries"])
        assert compiled_directory.most_gain(asked) == self.twin._most_gain()
        for group in range(len(directory.held)):
            assert compiled_directory.lowest(asked, group) == directory.lowest(group)
        assert asked.numbers["entries"] - counted == directory.entries - before
        asked.numbers["entries"] = counted
        directory.entries = before


@settings(max_examples=100, deadline=None)
@given(given_=stagers(most_channels=3, wide=True), seed=st.integers(0, 1 << 32))
def test_every_command_answers_and_leaves_what_the_streaming_form_does(given_, seed):
    limits, registers = given_
    generator = np.random.default_rng(seed)
    both, chooser = Both(limits, registers), Chooser(limits, generator)
    for layer in range(limits.layers):  # a static placement of some, as far as there are places
        share = registers.shares[layer if len(registers.shares) > 1 else 0]
        room = share - both.twin.directory.held[both.twin.directory.group_of(layer * limits.experts)]
        held = chooser.some(min(2, room))
        both("preload", layer, held)
        both("fix", layer, held[:1])
    for _ in range(COMMANDS):
        chosen = chooser.next(both.twin.moving)
        if chosen:
            command, arguments = chosen
            chooser.heard(command, arguments, both(command, *arguments))
        if generator.random() < 0.05:
            both("fix", chooser.layer(), chooser.some(2), fixed=bool(generator.integers(2)))
        if generator.random() < 0.6:
            both.look(remember=bool(generator.integers(2)))
    for layer in range(limits.layers):
        experts = list(range(limits.experts))
        assert both.compiled.lookup(layer, experts).tolist() == both.twin.lookup(layer, experts).tolist()


def small(**options):
    limits = StagerLimits(layers=2, experts=4, places=4, queue_depth=4, event_experts=2, sequence_slots=2)
    return limits, StagerSettings(shares=(4,), **options)


def test_a_stamp_that_looks_young_again_changes_who_is_remembered():
    limits = StagerLimits(layers=2, experts=4, places=8, queue_depth=2, event_experts=2, stamp_bits=2)
    both = Both(limits, StagerSettings(shares=(8,)))
    both.look(remember=True)  # nobody
    both("preload", 0, [0, 1])
    both("preload", 1, [0, 1, 2])  # so many uses later, that of expert 0 is 2^2 old and looks the latest
    both.look(remember=False)
    assert both.twin.directory.lowest(0) == 1


@pytest.mark.parametrize("price", range(3))
def test_what_enters_a_full_group_gains_more_than_the_price(price):
    both = Both(*small(price=price))
    both("preload", 0, [0, 1, 2, 3])
    both("set_values", 0, [5, 5, 5, 5])
    for at, chance in enumerate((5, 6, 7, 8)):
        both("prefetch", 1, [at], [chance], 9)
        started = both("grant").transfer
        assert (started is not None) == (chance > 5 + price)
        if started:
            break


def test_of_equal_transfers_that_make_way_the_latest_loses_its_place():
    limits = StagerLimits(layers=1, experts=4, places=2, queue_depth=4, event_experts=2, channels=2)
    both = Both(limits, StagerSettings(shares=(2,)))
    both("prefetch", 0, [0, 1], [3, 3], 9)
    both("grant"), both("grant")
    both("demand", 0, [2])
    both("preempt", 0), both("preempt", 1)
    assert [(a.kind, a.key, a.why) for a in both("grant").actions] == [(Kind.DROP, 1, Why.PLACE)]


def test_what_the_streaming_form_refuses_is_refused_and_changes_nothing():
    both = Both(*small())
    both("preload", 0, [0])
    both("demand", 0, [0, 1])
    both("demand", 1, [0, 1])
    both("grant")
    for command, *arguments in (
        ("set_values", 2, [0] * 4), ("set_values", 0, [0] * 3), ("set_values", 0, [1 << 15, 0, 0, 0]),
        ("demand", 0, [3]), ("demand", 0, [1, 1]), ("demand", 0, [4]), ("release", 0, [2]), ("grant",), ("arrive", 1),
        ("preempt", -1), ("fail", 1), ("preload", 0, [0]), ("fix", 0, [-1]), ("prefetch", 0, [1], [1, 2], 5),
        ("prefetch", 0, [1], [1 << 16], 5), ("prefetch", 0, [1], [1], FOREVER + 1), ("expire", FOREVER + 1),
        ("expire", -1), ("expire", FOREVER - 1), ("prefetch", 0, [1], [1], (1 << 32) - 1),
    ):  # fmt: skip
        for form in (both.twin, both.compiled):
            with pytest.raises(ValueError, match=r"\w"):
                getattr(form, command)(*arguments)
        both.check()


def test_compiled_code_that_asks_for_what_cannot_be_is_refused_and_changes_nothing():
    both = Both(*small())
    both("demand", 0, [0, 1])
    state, ids = both.compiled.state, np.array
    for command, *arguments in (
        (commands.set_values, 2, ids([0] * 4)), (commands.set_values, 0, ids([0] * 3)),
        (commands.set_values, 0, ids([1 << 15, 0, 0, 0])), (commands.demand, 0, ids([1, 1])),
        (commands.demand, 1, ids([0, 1, 2])), (commands.demand, -1, ids([0])), (commands.demand, 0, ids([4])),
        (commands.release, 0, ids([2])), (commands.arrive, 0), (commands.preempt, 1),
        (commands.fail, 0), (commands.demand_residents, 0, ids([1, 1])), (commands.demand_residents, 0, ids([4])),
        (commands.prefetch, 0, ids([1]), ids([1, 2]), 5), (commands.prefetch, 0, ids([1]), ids([-1]), 5),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"\w"):
            command(state, *arguments)
        both.check()


def test_decisions_are_the_same_where_actions_are_not_recorded():
    limits, registers = small(background=True)
    told, silent = CompiledStager(limits, registers), CompiledStager(limits, registers, record_actions=False)
    for command, *arguments in (
        ("set_values", 0, [3, 2, 1, 0]), ("prefetch", 1, [0, 1], [5, 6], 3), ("demand", 0, [2]), ("grant",),
        ("arrive", 0), ("expire", 3), ("grant",), ("release", 0, [2]),
    ):  # fmt: skip
        heard, unheard = (getattr(form, command)(*arguments) for form in (told, silent))
        assert not unheard.actions
        assert (heard.transfer, heard.entries, heard.cycles) == (unheard.transfer, unheard.entries, unheard.cycles)
    assert told.counters == silent.counters
