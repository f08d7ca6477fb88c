"""The stager, command by command: the specification of the hardware, and what a runtime calls.

The rules of places and of order are ``directory``'s and ``queue``'s. Beyond them:

* **A demand** (``demand``) pins each expert and waits for what is not resident. What waits in the queue or is moving is
  promoted, and never asked for twice; the rest is queued. All are looked up against the residency before the command.
* **A prefetch** (``prefetch``) says with which chance the layer will want each expert, by when. It holds what is
  resident (its worth counts the chance), and queues what is absent. It enters only when its transfer would start, by
  the comparison of worths; if it may not then, it is dropped.
* **Verification** (``expire``): the gate of a deadline is known. What was fetched for that deadline or an earlier one
  and is not demanded is useless: dropped where it waits; given up at the next chunk where it is moving and a demand
  waits, and complete otherwise.
* **The next chunk** (``preempt``): a transfer that no gate waits for makes way if a demand waits. It keeps its place
  and its bytes, and goes on when its turn comes. A demand to which no resident may give way, with no spare place, takes
  the place of the last of these in its group.
* **Background**: where nothing waits and the register says so, the absent expert whose worth exceeds most that of who
  gives way to it (or nothing, where there is a place), if by more than the price; of equals the smallest key's group,
  and in a group the absent one of most worth, of equals the smallest key.

* **Released before it came**: nobody waits any more, and it is what is predicted of it, or useless.

A demand always gets the link at last: demands are served first, in order, and neither a full directory (spare places,
then ``NO_PLACE``) nor a full queue (``StagerLimits.queue_depth``) can refuse one.

**A transfer that failed** (``fail``): a demand waits again, last of the demands, and keeps its place, as long as its
failed transfers are no more than the register ``retries``; then, and where no gate waits for it, it is given up. A
layer whose demand is given up is to be told so by whoever asks (the action says it); it still releases what it needed.

**Work and cycles.** ``Step.cycles`` is what the circuit takes (``cycles`` says of what it is made up). It looks at
entries of the directory, ``lanes`` a cycle: for who gives way those of one group, for the absent one of most worth
those of one group too, for new values those of a layer. ``Step.entries`` counts these. With G entries in the largest
group, the most that a command looks at is

* ``set_values``: the experts of a layer; ``release`` and ``arrive``: spare · G; ``grant``: (queue_depth + 2) · G, and
  for background loads 2 · keys more; all others: none.
"""

import numpy as np
from numpy.typing import NDArray

from staging.stager.answers import Action, Kind, StagerCounters, Step, Transfer, Why
from staging.stager.arguments import (
    Experts,
    check_deadline,
    checked_chances,
    checked_keys,
    checked_values,
    distinct_keys,
)
from staging.stager.cycles import BEGIN_AND_END, CHOOSE, TOUCH, WALK, look_cycles, values_cycles
from staging.stager.directory import ABSENT, MOVING, NO_PLACE, NONE, QUEUED, RESIDENT, Directory
from staging.stager.limits import FOREVER, StagerLimits, StagerSettings
from staging.stager.queue import TransferQueue


class Stager:
    """See the module's description.

    Args:
        limits: what is generated.
        settings: what the registers hold.

    Raises:
        ForestageError: if the settings do not fit the limits.
    """

    def __init__(self, limits: StagerLimits, settings: StagerSettings) -> None:
        self.limits = limits
        self.settings = settings
        self.counters = StagerCounters()
        self.directory = Directory(limits, settings)
        self.queue = TransferQueue(self.directory, limits.queue_depth)
        self.moving = [NONE] * limits.channels
        self._useless: set[int] = set()
        self._unused: set[int] = set()
        self._tries: dict[int, int] = {}  # failed transfers of what is demanded, if any
        self._needed = 0  # pins of running layers
        self._look = look_cycles(limits.queue_depth)
        self._before = 0, 0

    # --- what is known of experts ---

    def lookup(self, layer: int, experts: Experts) -> NDArray[np.bool_]:
        """Which are resident bool ``[len(experts)]``; changes nothing."""
        return self.directory.status[checked_keys(self.limits, layer, experts)] == RESIDENT

    def set_values(self, layer: int, values: Experts) -> Step:
        """What each expert of ``layer`` is worth by its next use, ``[experts]`` in units of ``value_scale``.

        Raises:
            ValueError: for a layer that there is not, values of another shape, or outside ``value_bits``.
        """
        told = checked_values(self.limits, layer, values)
        step, experts = self._begin(), self.limits.experts
        self.directory.value[layer * experts : (layer + 1) * experts] = told * self.settings.value_scale
        self.directory.entries += experts
        self.directory.cycles += values_cycles(experts, self.limits.lanes)
        self._walk(sum(key // experts == layer for key in self.queue.waiting))  # their worth is kept in the queue
        return self._end(step)

    def preload(self, layer: int, experts: Experts) -> Step:
        """Before anything runs: these are resident, each the most recently used of all.

        Raises:
            ValueError: if one is not absent, or its group has no place left.
        """
        step, before = self._begin(), self.directory.cycles
        keys = checked_keys(self.limits, layer, experts).tolist()
        for key in keys:
            group = self.directory.group_of(key)
            is_absent = self.directory.status[key] == ABSENT
            if not is_absent or self.directory.held[group] >= self.settings.shares[group]:
                raise ValueError(f"preload: key {key} is not absent, or its group has no place left")
            self.directory.claim(key, demanded=True)
            self.directory.arrive(key)
        self.directory.cycles = before + TOUCH * len(keys)
        return self._end(step)

    def fix(self, layer: int, experts: Experts, *, fixed: bool = True) -> Step:
        """These never give way (a static placement), or may again; they need not be resident."""
        step, keys = self._begin(), checked_keys(self.limits, layer, experts)
        self.directory.fixed[keys] = fixed
        self.directory.cycles += TOUCH * len(keys)
        return self._end(step)

    # --- what layers need ---

    def demand(self, layer: int, experts: Experts, *, resident_only: bool = False) -> Step:
        """A gate chose these, distinct, and its layer runs once all are resident.

        ``resident_only``: what is missing is computed elsewhere: it is not demanded, nor to be released, and stays
        what it is.

        Raises:
            ValueError: for an expert named twice, or more pins than the limits allow.
        """
        step = self._begin()
        keys = distinct_keys(self.limits, layer, experts).tolist()
        needed = sum(map(self.directory.is_resident, keys)) if resident_only else len(keys)
        if self._needed + needed > self.limits.most_pins:
            raise ValueError(f"demand: {self._needed} + {needed} uses at once; the limit is {self.limits.most_pins}")
        self._needed += needed
        absent = []
        for key in keys:
            status = self.directory.status[key]
            if resident_only and status != RESIDENT:
                step.actions.append(Action(Kind.ELSEWHERE, key))
                continue
            self.directory.pins[key] += 1
            if status == RESIDENT:
                self.counters.hits += 1
                self.counters.useful += key in self._unused
                self._unused.discard(key)
                step.actions.append(Action(Kind.HIT, key))
            elif status == ABSENT:
                self.counters.waits += 1
                absent.append(key)
                step.actions.append(Action(Kind.WAIT, key))
            else:
                self.counters.promoted += 1
                step.actions.append(Action(Kind.PROMOTE, key))
                self._promote(key)
        for key in absent:  # after the others: what is promoted is not dropped for them
            self.queue.demanded.add(key)
            self._enqueue(key, step)
        self.directory.cycles += TOUCH * len(keys) + (CHOOSE + TOUCH) * len(absent) + CHOOSE
        return self._end(step)

    def release(self, layer: int, experts: Experts) -> Step:
        """The layer that demanded these has run, or waits for them no more; the last is the most recently used.

        Raises:
            ValueError: for an expert named twice, or not demanded.
        """
        step = self._begin()
        keys = distinct_keys(self.limits, layer, experts).tolist()
        if (self.directory.pins[keys] < 1).any() or self._needed < len(keys):
            raise ValueError(f"release: experts of layer {layer} that nobody demanded")
        self._needed -= len(keys)
        for key in keys:
            self.directory.pins[key] -= 1
            self.directory.stamp(key)
            if not self.directory.pins[key]:
                self._leave(key, step)
        if keys:
            self._trim(self.directory.group_of(keys[0]), step)
        self.directory.cycles += TOUCH * len(keys)
        return self._end(step)

    # --- what is expected ---

    def prefetch(self, layer: int, experts: Experts, chances: Experts, deadline: int = FOREVER) -> Step:
        """``layer`` wants these at ``deadline``, with chances in units of ``chance_scale``, best first.

        Args:
            layer: of the experts.
            experts: distinct.
            chances: one each, of ``value_bits`` without a sign.
            deadline: of the gate that they are for: integers that ascend with its layers and steps.

        Raises:
            ValueError: for an expert named twice, chances of another number or size, or a deadline that its bits do
                not hold.
        """
        step = self._begin()
        keys = distinct_keys(self.limits, layer, experts).tolist()
        told = checked_chances(self.limits, len(keys), chances)
        check_deadline(self.limits, deadline)
        for key, chance in zip(keys, told.tolist(), strict=True):
            self._expect(key, chance, deadline, step)
        self.directory.cycles += TOUCH * len(keys)
        return self._end(step)

    def expire(self, deadline: int) -> Step:
        """The gate of ``deadline`` is known, and its demands are made: what else was for it, or earlier, is useless.

        Raises:
            ValueError: for a deadline that its bits do not hold.
        """
        check_deadline(self.limits, deadline)
        step = self._begin()
        waiting = len(self.queue.waiting)
        self.directory.now = max(self.directory.now, deadline)
        for key in self.queue.waiting.copy():
            if self._is_useless(key):
                self._drop(key, Why.USELESS, step)
        self._useless.update(key for key in self.moving if key != NONE and self._is_useless(key))
        self.directory.cycles += CHOOSE
        self._walk(len(step.actions), waiting)
        return self._end(step)

    # --- what the link does ---

    def grant(self) -> Step:
        """A channel is free: the transfer that starts there, if there is one worth it.

        Raises:
            ValueError: if every channel is taken.
        """
        if NONE not in self.moving:
            raise ValueError("grant: every channel is taken")
        step = self._begin()
        self.directory.cycles += CHOOSE
        while step.transfer is None and self.queue.waiting:
            self.directory.cycles += self._look + CHOOSE
            self._start(self.queue.first(), step)
            self.directory.cycles += CHOOSE * (step.transfer is None)
        if step.transfer is None and self.settings.background:
            key = self._most_gain()
            if key != NONE:
                self.directory.cycles += TOUCH
                self.queue.waiting.append(key)
                if self._is_useless(key):  # what was once predicted of it is past
                    self.directory.chance[key], self.directory.deadline[key] = 0, FOREVER
                self._start(key, step)
        return self._end(step)

    def preempt(self, channel: int) -> Step:
        """The transfer on ``channel`` has passed a chunk: it goes on, unless an action says ``PAUSE`` or ``DROP``.

        Raises:
            ValueError: if nothing moves there.
        """
        step = self._begin()
        key = self._on(channel)
        self.directory.cycles += CHOOSE
        if key not in self.queue.demanded and self.queue.holds_demand:
            self.moving[channel] = NONE
            self.directory.cycles += TOUCH
            if key in self._useless:
                self._give_up(key, Why.USELESS, step)
            else:
                step.actions.append(Action(Kind.PAUSE, key))
                self._enqueue(key, step)
        return self._end(step)

    def arrive(self, channel: int) -> Step:
        """The transfer on ``channel`` is complete.

        Raises:
            ValueError: if nothing moves there.
        """
        step = self._begin()
        key = self._on(channel)
        self.moving[channel] = NONE
        self.directory.arrive(key)
        self.directory.cycles += TOUCH
        if key in self.queue.demanded:
            self.counters.moved_demands += 1
        else:
            self.counters.moved_prefetches += 1
            self._unused.add(key)
        self.queue.demanded.discard(key)
        self._useless.discard(key)
        self._tries.pop(key, None)
        if not self.directory.pins[key]:
            self._leave(key, step)
            self._trim(self.directory.group_of(key), step)
        return self._end(step)

    def fail(self, channel: int) -> Step:
        """The transfer on ``channel`` failed: nothing of it counts as moved, and nothing moves there now.

        Raises:
            ValueError: if nothing moves there.
        """
        step = self._begin()
        key = self._on(channel)
        self.moving[channel] = NONE
        self.counters.failed += 1
        self.directory.cycles += TOUCH
        if key in self.queue.demanded and self._tries.get(key, 0) < self.settings.retries:
            self._tries[key] = self._tries.get(key, 0) + 1
            step.actions.append(Action(Kind.PAUSE, key, Why.FAILED))
            self._enqueue(key, step)
        else:
            self.counters.lost += key in self.queue.demanded
            self.queue.demanded.discard(key)
            self._give_up(key, Why.FAILED, step)
        return self._end(step)

    # --- the rules ---

    def _expect(self, key: int, chance: int, deadline: int, step: Step) -> None:
        """One expert of a prediction."""
        directory = self.directory
        if deadline <= directory.now or (deadline - directory.now > self.settings.horizon and deadline != FOREVER):
            why = Why.LATE if deadline <= directory.now else Why.FAR
            self.counters.refused += 1
            step.actions.append(Action(Kind.REFUSE, key, why))
            return
        directory.set_chance(key, chance, deadline)
        if directory.status[key] != ABSENT:
            self._useless.discard(key)
            step.actions.append(Action(Kind.HOLD, key))
            return
        step.actions.append(Action(Kind.QUEUE, key))
        self._enqueue(key, step)

    def _promote(self, key: int) -> None:
        """A gate waits for what is queued or moving."""
        self._useless.discard(key)
        if key in self.queue.demanded:
            return
        if self.directory.status[key] == QUEUED:
            self.queue.promote(key)
        self.queue.demanded.add(key)

    def _enqueue(self, key: int, step: Step) -> None:
        """Enter the queue; who loses an entry there is dropped, or refused where it only came."""
        self.directory.status[key] = QUEUED
        loser = self.queue.add(key)
        if loser == NONE:
            return
        self.directory.cycles += self._look + CHOOSE + TOUCH
        if loser == key and step.actions[-1] == Action(Kind.QUEUE, key):
            self.directory.free(key)
            self.counters.refused += 1
            step.actions[-1] = Action(Kind.REFUSE, key, Why.FULL)
        else:
            self._give_up(loser, Why.FULL, step)

    def _start(self, key: int, step: Step) -> None:
        """Give a channel and a place to what is first in the queue, or drop it if it may not enter."""
        directory = self.directory
        place, victim = int(directory.place[key]), NONE
        demanded = key in self.queue.demanded
        self.directory.cycles += TOUCH
        if place != NO_PLACE:
            self.directory.cycles += CHOOSE
        else:
            claim = self._claim(key, demanded, step)
            if claim is None:
                self._drop(key, Why.WORTH, step)
                return
            place, victim = claim
        directory.status[key] = MOVING
        self.queue.waiting.remove(key)
        channel = self.moving.index(NONE)
        self.moving[channel] = key
        self.counters.passed += place == NO_PLACE
        step.transfer = Transfer(channel, key, place, victim, demanded)

    def _claim(self, key: int, demanded: bool, step: Step) -> tuple[int, int] | None:
        """A place and who lost it; ``None`` where it may not enter."""
        claim = self.directory.claim(key, demanded=demanded)
        if claim is None:
            return None
        if claim.place == NO_PLACE:
            group = self.directory.group_of(key)
            paused = self.queue.last_with_place(group)
            self.directory.cycles += self._look + CHOOSE
            if paused != NONE:
                self.directory.cycles += TOUCH
                self._drop(paused, Why.PLACE, step)
                claim = self.directory.claim(key, demanded=True)
                assert claim is not None
        if claim.victim != NONE:
            self._evicted(claim.victim, None, step)
        return claim.place, claim.victim

    def _trim(self, group: int, step: Step) -> None:
        for victim in self.directory.trim(group):
            self._evicted(victim, Why.SHARE, step)

    def _evicted(self, key: int, why: Why | None, step: Step) -> None:
        self.counters.evicted += 1
        self.counters.wasted += key in self._unused
        self._unused.discard(key)
        step.actions.append(Action(Kind.EVICT, key, why))

    def _leave(self, key: int, step: Step) -> None:
        """Nobody needs ``key`` any more."""
        directory = self.directory
        if directory.status[key] == RESIDENT and directory.place[key] == NO_PLACE:
            directory.free(key)
            self._unused.discard(key)
        elif key in self.queue.demanded:  # released before it came: it is what is predicted of it
            self.queue.demanded.discard(key)
            if self._is_useless(key):
                if directory.status[key] == QUEUED:
                    self._drop(key, Why.RELEASED, step)
                else:
                    self._useless.add(key)

    def _drop(self, key: int, why: Why, step: Step) -> None:
        """Give up what waits."""
        self.queue.waiting.remove(key)
        self._give_up(key, why, step)

    def _give_up(self, key: int, why: Why, step: Step) -> None:
        """Give up what neither waits nor moves any more."""
        self.directory.free(key)
        self._useless.discard(key)
        self._tries.pop(key, None)
        self.counters.dropped += 1
        step.actions.append(Action(Kind.DROP, key, why))

    def _is_useless(self, key: int) -> bool:
        """Whether what waits or moves was for a deadline that is past."""
        return key not in self.queue.demanded and self.directory.deadline[key] <= self.directory.now

    def _most_gain(self) -> int:
        """The absent expert that is worth moving most; ``NONE`` where none is."""
        directory = self.directory
        best, most = NONE, self.settings.price
        for group, share in enumerate(self.settings.shares):
            span = directory.keys_of(group)
            directory.entries += span.stop - span.start
            directory.cycles += CHOOSE + directory.scan_cycles + CHOOSE
            absent = np.flatnonzero(directory.status[span] == ABSENT) + span.start
            if not len(absent):
                continue
            key = int(absent[np.argmax(directory.worth(absent))])
            gain = int(directory.worth(key))
            if directory.held[group] >= share:
                victim = directory.lowest(group)
                directory.cycles += CHOOSE
                if victim == NONE:
                    continue
                gain -= int(directory.worth(victim))
            directory.cycles += CHOOSE
            if gain > most:
                best, most = key, gain
        directory.cycles += CHOOSE
        return best

    def _on(self, channel: int) -> int:
        """What moves on a channel."""
        if not 0 <= channel < self.limits.channels or self.moving[channel] == NONE:
            raise ValueError(f"channel {channel}: nothing moves there")
        return self.moving[channel]

    def _walk(self, touched: int, waiting: int | None = None) -> None:
        """Account a visit of all that wait, or that did, some of which are touched."""
        waiting = len(self.queue.waiting) if waiting is None else waiting
        self.directory.cycles += WALK * waiting + CHOOSE + TOUCH * touched

    def _begin(self) -> Step:
        """What the command will do; its work is accounted from here on."""
        self._before = self.directory.entries, self.directory.cycles
        return Step()

    def _end(self, step: Step) -> Step:
        """Account the command's work."""
        entries, cycles = self._before
        step.entries = self.directory.entries - entries
        step.cycles = BEGIN_AND_END + self.directory.cycles - cycles
        return step
