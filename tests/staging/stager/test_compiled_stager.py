"""The compiled stager against the streaming one: after every command the same answer and the same state."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from staging.stager.compiled import directory as compiled_directory
from staging.stager.compiled.stager import CompiledStager
from staging.stager.compiled.state import State
from staging.stager.twin import Stager
from tests.staging.stager.random_commands import Chooser, stagers

COMMANDS = 120


class Both:
    """Two forms, told the same."""

    def __init__(self, limits, registers):
        self.limits = limits
        self.twin, self.compiled = Stager(limits, registers), CompiledStager(limits, registers)

    def __call__(self, command, *arguments, **options):
        """The answer of both."""
        expected = getattr(self.twin, command)(*arguments, **options)
        assert getattr(self.compiled, command)(*arguments, **options) == expected, command
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
        assert state.queue[: numbers["waiting"]].tolist() == twin.queue.waiting
        assert state.moving.tolist() == twin.moving
        assert np.flatnonzero(state.is_free).tolist() == sorted(directory._free)
        assert state.groups["held"].tolist() == directory.held
        assert (numbers["now"], numbers["needed"]) == (directory.now, twin._needed)
        assert numbers["uses"] % (1 << self.limits.stamp_bits) == directory._stamps
        assert numbers["all_entries"] == directory.entries
        assert self.compiled.counters == twin.counters

    def look(self):
        """Who would give way and who would gain most, asked of copies, so that what is remembered stays as it is."""
        directory = self.twin.directory
        before = directory.entries
        copy = State(*(part.copy() for part in self.compiled.state))
        copy.numbers["entries"] = 0
        assert compiled_directory.most_gain(copy) == self.twin._most_gain()
        assert copy.numbers["entries"] == directory.entries - before
        copy = State(*(part.copy() for part in self.compiled.state))
        for group in range(len(directory.held)):
            assert compiled_directory.lowest(copy, group) == directory.lowest(group)
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
            both(command, *arguments)
        if generator.random() < 0.05:
            both("fix", chooser.layer(), chooser.some(2), fixed=bool(generator.integers(2)))
        if generator.random() < 0.3:
            both.look()
    for layer in range(limits.layers):
        experts = list(range(limits.experts))
        assert both.compiled.lookup(layer, experts).tolist() == both.twin.lookup(layer, experts).tolist()
