"""The stager against one that is written as plainly as can be, command by command, and what must always hold."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from staging.stager.answers import Kind
from staging.stager.directory import NO_PLACE, NONE, Status
from staging.stager.limits import FOREVER, StagerLimits, StagerSettings
from staging.stager.twin import Stager
from tests.staging.stager.plain_stager import PlainStager


@st.composite
def stagers(draw):
    """Limits and settings, with no place at all and places for everything among them."""
    layers, experts = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    slots, event = draw(st.integers(1, 3)), draw(st.integers(1, min(3, experts)))
    shared = draw(st.booleans())
    most = experts * layers if shared else experts
    shares = tuple(draw(st.lists(st.integers(0, most), min_size=1, max_size=1)))
    if not shared:
        shares = tuple(draw(st.lists(st.integers(0, most), min_size=layers, max_size=layers)))
    limits = StagerLimits(
        layers=layers,
        experts=experts,
        places=sum(shares) + draw(st.integers(0, 2)),
        spare=draw(st.integers(0, 3)),
        queue_depth=slots * event + draw(st.integers(0, 2)),
        channels=draw(st.integers(1, 2)),
        sequence_slots=slots,
        event_experts=event,
        value_bits=8,
        stamp_bits=draw(st.sampled_from([3, 32])),
        lanes=draw(st.integers(1, 5)),
    )
    registers = StagerSettings(
        shares=shares,
        value_scale=draw(st.integers(0, 2)),
        chance_scale=draw(st.integers(0, 3)),
        price=draw(st.integers(0, 3)),
        horizon=draw(st.sampled_from([2, 5, FOREVER])),
        by_recency=draw(st.booleans()),
        background=draw(st.booleans()),
    )
    return limits, registers


class Pair:
    """The twin and the plain one, driven by one random choice of commands."""

    def __init__(self, limits, registers, generator):
        self.limits = limits
        self.twin, self.plain = Stager(limits, registers), PlainStager(limits, registers)
        self.random = generator
        self.running = []  # (layer, experts) of each sequence slot
        self.deadline = 0
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

    def some(self, most):
        count = int(self.random.integers(0, min(most, self.limits.experts) + 1))
        return self.random.permutation(self.limits.experts)[:count].tolist()

    def layer(self):
        return int(self.random.integers(self.limits.layers))

    def both(self, command, *arguments):
        step = getattr(self.twin, command)(*arguments)
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
        assert step.cycles >= 1 + -(-step.entries // self.limits.lanes)
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
                assert here or key in self.twin.queue.demanded, "a demand was lost"

    def step(self):
        """One command, chosen at random among those that are allowed."""
        twin, choice = self.twin, self.random.integers(9)
        busy = [c for c, key in enumerate(twin.moving) if key != NONE]
        if choice == 0:
            self.both("set_values", self.layer(), self.random.integers(-3, 4, self.limits.experts).tolist())
        elif choice == 1 and len(self.running) < self.limits.sequence_slots:
            wanted = (self.layer(), self.some(self.limits.event_experts))
            pinned = {(layer, e) for layer, experts in self.running for e in experts}
            self.running.append(wanted)
            step = self.both("demand", *wanted)
            assert not any(a.kind == Kind.EVICT for a in step.actions)
            assert pinned <= {(layer, e) for layer, experts in self.running for e in experts}
        elif choice == 2:
            experts = self.some(4)
            chances = self.random.integers(0, 3, len(experts)).tolist()
            ahead = FOREVER if self.random.random() < 0.1 else self.deadline + int(self.random.integers(-1, 7))
            self.both("prefetch", self.layer(), experts, chances, ahead)
        elif choice in (3, 4) and len(busy) < self.limits.channels:
            self.both("grant")
        elif choice in (5, 6) and busy:
            self.both("preempt" if choice == 5 else "arrive", int(self.random.choice(busy)))
        elif choice == 7 and self.running:
            done = self.running.pop(int(self.random.integers(len(self.running))))
            self.both("release", *done)
        elif choice == 8:
            self.deadline += int(self.random.integers(0, 2))
            self.both("expire", self.deadline)

    def drain(self):
        """The link serves all that is demanded, whatever else is asked of it: in as many transfers as are out."""
        wanted = {layer * self.limits.experts + e for layer, experts in self.running for e in experts}
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
        layer, experts = pair.layer(), pair.some(2)
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
