"""The stager against one that is written as plainly as can be, command by command, and what must always hold."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from staging.stager.answers import Kind
from staging.stager.directory import NO_PLACE, NONE, Status
from staging.stager.twin import Stager
from tests.staging.stager.plain_stager import PlainStager
from tests.staging.stager.random_commands import Chooser, stagers, tell


class Pair:
    """The twin and the plain one, driven by one random choice of commands."""

    def __init__(self, limits, registers, generator):
        self.limits = limits
        self.twin, self.plain = Stager(limits, registers), PlainStager(limits, registers)
        self.random = generator
        self.chooser = Chooser(limits, generator)
        self.running = self.chooser.running
        self.kinds = Counter()

    def most_entries(self, command):
        """As the twin's description states it."""
        limits, registers = self.limits, self.twin.settings
        group = limits.keys if len(registers.shares) == 1 else limits.experts
        grant = (limits.queue_depth + 2) * group + registers.background * 2 * limits.keys
        return {
            "set_values": limits.experts,
            "grant": grant,
            "release": limits.spare * group,
            "arrive": limits.spare * group,
        }.get(command, 0)

    def both(self, command, *arguments):
        step = tell(self.twin, command, arguments)
        self.chooser.heard(command, arguments, step)
        said = getattr(self.plain, command)(*arguments)
        moved = None
        if command == "grant":
            said, moved = said
        transfer = step.transfer
        assert moved == (
            None
            if transfer is None
            else (transfer.channel, transfer.key, transfer.place, transfer.victim, transfer.demanded)
        )
        assert [(a.kind.value, a.key, a.why and a.why.value) for a in step.actions] == (said or [])
        self.kinds.update(a.kind for a in step.actions)
        assert step.entries <= self.most_entries(command)
        assert step.cycles >= 2 + -(-step.entries // self.limits.lanes)
        self.check()
        return step

    def check(self):
        """The same state, and the invariants."""
        directory, plain = self.twin.directory, self.plain.experts
        names = ("absent", "queued", "moving", "resident")
        assert [names[s] for s in directory.status] == [e.state for e in plain]
        assert directory.place.tolist() == [NO_PLACE if e.place is None else e.place for e in plain]
        assert directory.worth(slice(None)).tolist() == [self.plain.worth(e) for e in plain]
        assert self.twin.queue.demanded == {e.key for e in plain if e.demanded}
        places = [p for p in directory.place.tolist() if p != NO_PLACE]
        assert len(set(places)) == len(places), "two experts in one place"
        assert len(places) <= self.limits.places + self.limits.spare
        waiting = self.twin.queue.waiting
        assert len(waiting) <= self.limits.queue_depth
        assert sorted(waiting) == np.flatnonzero(directory.status == Status.QUEUED).tolist()
        moving = sorted(k for k in self.twin.moving if k != NONE)
        assert moving == np.flatnonzero(directory.status == Status.MOVING).tolist()
        for layer, experts in self.running:
            for expert in experts:
                key = layer * self.limits.experts + expert
                here = directory.status[key] == Status.RESIDENT
                assert here or key in self.twin.queue.demanded or key in self.chooser.lost, "a demand was lost"

    def step(self):
        """One command, chosen at random among those that are allowed."""
        chosen = self.chooser.next(self.twin.moving)
        if chosen:
            command, arguments = chosen
            step = self.both(command, *arguments)
            assert command != "demand" or not any(a.kind == Kind.EVICT for a in step.actions)

    def drain(self):
        """The link serves all that is demanded, whatever else is asked of it: in as many transfers as are out."""
        wanted = {layer * self.limits.experts + e for layer, experts in self.running for e in experts}
        wanted -= self.chooser.lost
        here = self.twin.directory.status
        outstanding = sum(here[key] != Status.RESIDENT for key in wanted) + self.limits.channels
        for _ in range(outstanding):
            busy = [c for c, key in enumerate(self.twin.moving) if key != NONE]
            for channel in busy:
                self.both("preempt", channel)
                if self.twin.moving[channel] != NONE:
                    self.both("arrive", channel)
            if all(here[key] == Status.RESIDENT for key in wanted):
                return
            assert self.both("grant").transfer is not None
        assert all(here[key] == Status.RESIDENT for key in wanted)


@settings(max_examples=250, deadline=None)
@given(given_=stagers(), seed=st.integers(0, 1 << 32), fixed=st.booleans())
def test_every_decision_is_the_plain_stagers(given_, seed, fixed):
    pair = Pair(*given_, np.random.default_rng(seed))
    if fixed:
        layer, experts = pair.chooser.layer(), pair.chooser.some(2)
        pair.twin.fix(layer, experts)
        for expert in pair.plain.named(layer, experts):
            expert.fixed = True
    for _ in range(80):
        pair.step()
    pair.drain()
    counters, kinds = pair.twin.counters, pair.kinds
    assert (counters.hits, counters.waits, counters.promoted) == (
        kinds[Kind.HIT], kinds[Kind.WAIT], kinds[Kind.PROMOTE]
    )  # fmt: skip
    assert (counters.refused, counters.dropped, counters.evicted) == (
        kinds[Kind.REFUSE], kinds[Kind.DROP], kinds[Kind.EVICT]
    )  # fmt: skip
