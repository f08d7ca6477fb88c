"""A stager written as plainly as can be: one record an expert, and every rule a search through all of them.

It states the rules of ``staging.stager`` from their description alone, and shares no code with them.
"""

from dataclasses import dataclass

FOREVER = (1 << 62) - 1


@dataclass
class Expert:
    """What is known of one (layer, expert)."""

    layer: int
    key: int
    state: str = "absent"
    place: int | None = None
    pins: int = 0
    fixed: bool = False
    value: int = 0
    chance: int = 0
    deadline: int = -1
    last: int = -1
    demanded: bool = False
    came: int = 0  # into the queue
    tries: int = 0
    useless: bool = False


class PlainStager:
    """Commands return [(what, key, why)], ``grant`` also who moves where: (channel, key, place, victim, demanded)."""

    def __init__(self, limits, settings):
        self.limits, self.settings = limits, settings
        self.experts = [Expert(k // limits.experts, k) for k in range(limits.layers * limits.experts)]
        self.channels = [None] * limits.channels
        self.now = -1
        self.clock = 0
        self.arrivals = 0

    # --- who is where ---

    def named(self, layer, experts):
        return [self.experts[layer * self.limits.experts + e] for e in experts]

    def share(self, of):
        return self.settings.shares[of.layer if len(self.settings.shares) > 1 else 0]

    def group(self, of):
        return [e for e in self.experts if len(self.settings.shares) == 1 or e.layer == of.layer]

    def holding(self, of):
        return [e for e in self.group(of) if e.place is not None]

    def spare_taken(self):
        groups = {id(self.group(e)[0]): e for e in self.experts}.values()
        return sum(max(0, len(self.holding(e)) - self.share(e)) for e in groups)

    def free_place(self):
        taken = {e.place for e in self.experts}
        return next(p for p in range(self.limits.places + self.limits.spare) if p not in taken)

    def worth(self, of):
        return of.value + (of.chance if of.deadline > self.now else 0)

    def age(self, of):
        return (self.clock - 1 - of.last) % 2**self.limits.stamp_bits

    def gives_way(self, of):
        may = [e for e in self.holding(of) if e.state == "resident" and not e.pins and not e.fixed]
        recent = self.settings.by_recency
        return min(may, key=lambda e: (self.worth(e), -self.age(e) if recent else 0, -e.key), default=None)

    def stamp(self, of):
        of.last = self.clock % 2**self.limits.stamp_bits
        self.clock += 1

    def leave(self, of):
        of.state, of.place, of.useless, of.tries = "absent", None, False, 0

    # --- the queue ---

    def queue(self):
        waiting = [e for e in self.experts if e.state == "queued"]
        return sorted(
            waiting,
            key=lambda e: (0, 0, 0, e.came) if e.demanded else (1, e.deadline, -self.worth(e), e.came),
        )

    def enter_queue(self, of):
        of.state, of.came = "queued", self.arrivals
        self.arrivals += 1
        queue = self.queue()
        return queue[-1] if len(queue) > self.limits.queue_depth else None

    def give_up(self, of, why):
        self.leave(of)
        return "drop", of.key, why

    # --- commands ---

    def set_values(self, layer, values):
        for e, value in zip(self.named(layer, range(self.limits.experts)), values, strict=True):
            e.value = value * self.settings.value_scale

    def demand(self, layer, experts):
        said, absent = [], []
        for e in self.named(layer, experts):
            e.pins += 1
            if e.state == "resident":
                said.append(("hit", e.key, None))
            elif e.state == "absent":
                said.append(("wait", e.key, None))
                absent.append(e)
            else:
                said.append(("promote", e.key, None))
                if e.state == "queued" and not e.demanded:
                    e.came = self.arrivals
                    self.arrivals += 1
                e.demanded, e.useless = True, False
        for e in absent:
            e.demanded = True
            loser = self.enter_queue(e)
            if loser:
                said.append(self.give_up(loser, "queue full"))
        return said

    def demand_residents(self, layer, experts):
        named = self.named(layer, experts)
        here = [e.key % self.limits.experts for e in named if e.state == "resident"]
        said = dict(zip(here, self.demand(layer, here), strict=True))
        return [said.get(expert, ("elsewhere", e.key, None)) for expert, e in zip(experts, named, strict=True)]

    def prefetch(self, layer, experts, chances, deadline):
        said = []
        for e, chance in zip(self.named(layer, experts), chances, strict=True):
            if deadline <= self.now:
                said.append(("refuse", e.key, "late"))
                continue
            if deadline != FOREVER and deadline > self.now + self.settings.horizon:
                said.append(("refuse", e.key, "far"))
                continue
            if e.deadline <= self.now or e.deadline >= deadline:
                e.chance, e.deadline = chance * self.settings.chance_scale, deadline
            if e.state != "absent":
                e.useless = False
                said.append(("hold", e.key, None))
                continue
            loser = self.enter_queue(e)
            if loser is e:
                self.leave(e)
                said.append(("refuse", e.key, "queue full"))
                continue
            said.append(("queue", e.key, None))
            if loser:
                said.append(self.give_up(loser, "queue full"))
        return said

    def expire(self, deadline):
        self.now = max(self.now, deadline)
        said = []
        for e in sorted(self.queue(), key=lambda e: e.came):
            if not e.demanded and e.deadline <= self.now:
                said.append(self.give_up(e, "useless"))
        for e in self.experts:
            if e.state == "moving" and not e.demanded and e.deadline <= self.now:
                e.useless = True
        return said

    def grant(self):
        said = []
        for e in self.queue():
            if e.state != "queued":  # lost its place to one before it
                continue
            moved = self.start(e, said)
            if moved:
                return said, moved
        if self.settings.background:
            gains = []
            for e in self.experts:
                if e.state != "absent":
                    continue
                gain = self.worth(e)
                if len(self.holding(e)) >= self.share(e):
                    victim = self.gives_way(e)
                    if victim is None:
                        continue
                    gain -= self.worth(victim)
                group = e.layer if len(self.settings.shares) > 1 else 0
                gains.append((-gain, group, -self.worth(e), e.key, e))
            if gains and -min(gains)[0] > self.settings.price:
                e = min(gains)[-1]
                if e.deadline <= self.now:
                    e.chance, e.deadline = 0, FOREVER
                return said, self.start(e, said)
        return said, None

    def start(self, e, said):
        victim = -1
        if e.place is None:
            full = len(self.holding(e)) >= self.share(e)
            lowest = self.gives_way(e)
            if not full:
                if not e.demanded and self.worth(e) <= self.settings.price:
                    said.append(self.give_up(e, "not worth its place"))
                    return None
                e.place = self.free_place()
            elif lowest and (e.demanded or self.worth(e) > self.worth(lowest) + self.settings.price):
                victim, e.place = lowest.key, lowest.place
                self.leave(lowest)
                said.append(("evict", victim, None))
            elif not e.demanded:
                said.append(self.give_up(e, "not worth its place"))
                return None
            elif self.spare_taken() < self.limits.spare:
                e.place = self.free_place()
            else:
                paused = [q for q in self.queue() if not q.demanded and q.place is not None and q in self.group(e)]
                if paused:
                    said.append(self.give_up(paused[-1], "its place was needed"))
                    e.place = self.free_place()
        e.state = "moving"
        channel = self.channels.index(None)
        self.channels[channel] = e
        return channel, e.key, -1 if e.place is None else e.place, victim, e.demanded

    def preempt(self, channel):
        e = self.channels[channel]
        if e.demanded or not any(q.demanded for q in self.queue()):
            return []
        self.channels[channel] = None
        if e.useless:
            return [self.give_up(e, "useless")]
        loser = self.enter_queue(e)
        return [("pause", e.key, None)] + ([self.give_up(loser, "queue full")] if loser else [])

    def arrive(self, channel):
        e = self.channels[channel]
        self.channels[channel] = None
        e.state, e.demanded, e.useless, e.tries = "resident", False, False, 0
        self.stamp(e)
        if e.pins:
            return []
        if e.place is None:
            self.leave(e)
        return self.trim(e)

    def fail(self, channel):
        e = self.channels[channel]
        self.channels[channel] = None
        if not e.demanded or e.tries == self.settings.retries:
            e.demanded = False
            return [self.give_up(e, "its transfer failed")]
        e.tries += 1
        loser = self.enter_queue(e)
        return [("pause", e.key, "its transfer failed")] + ([self.give_up(loser, "queue full")] if loser else [])

    def release(self, layer, experts):
        said = []
        for e in self.named(layer, experts):
            e.pins -= 1
            self.stamp(e)
            if e.pins:
                continue
            if e.state == "resident" and e.place is None:
                self.leave(e)
            elif e.demanded:
                e.demanded = False
                if e.deadline <= self.now and e.state == "queued":
                    said.append(self.give_up(e, "nobody waits any more"))
                else:
                    e.useless = e.state == "moving" and e.deadline <= self.now
        return said + (self.trim(self.named(layer, experts)[0]) if experts else [])

    def trim(self, of):
        said = []
        while len(self.holding(of)) > self.share(of) and (victim := self.gives_way(of)):
            self.leave(victim)
            said.append(("evict", victim.key, "beyond the share"))
        return said
