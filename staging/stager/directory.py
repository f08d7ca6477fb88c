"""Where each expert is, what it is worth, and which one gives way.

An expert is absent, queued, moving or resident. What is moving holds a place from the first byte on; a queued one holds
a place only where it was moving before (``Stager.preempt``). Layers that run pin what they need, once each.

* **Worth** of a key: its value, plus its chance while that one's deadline lies ahead; both are times (see
  ``StagerSettings``).
* **Who gives way**, in a group of layers that shares places: of the residents that nobody pins and that are not fixed
  (a static placement), the one of least worth; of equals, by recency, the one whose last use is longest ago; then the
  largest key. A use ends with its layer (``stamp`` in the order told); an arrival counts as one, whether or not anybody
  asked.
* **Who enters.** Where the group has a place left, whatever is demanded, and what else is worth more than the price.
  Where it has none, a demand takes the place of who gives way; another only if its worth exceeds that one's by more
  than the price. A demand to which nobody may give way takes a spare place, and where there is none ``NO_PLACE``: the
  layer that waits for it takes the bytes as they come, and it is absent again when nobody pins it.
* **When a layer has run** a group may hold more than its share, in spare places: then residents give way, in the order
  above, until it does not. So an event larger than the share leaves the ones of most worth.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from heapq import heappop, heappush
from typing import Any

import numpy as np
from numpy.typing import NDArray

from staging.stager.cycles import CHOOSE, COMPARE, TOUCH, scan_cycles
from staging.stager.limits import StagerLimits, StagerSettings

NONE = -1
NO_PLACE = -1


class Status(IntEnum):
    """Of an expert."""

    ABSENT = 0
    QUEUED = 1
    MOVING = 2
    RESIDENT = 3


ABSENT, QUEUED, MOVING, RESIDENT = (status.value for status in Status)


@dataclass(frozen=True, slots=True)
class Claim:
    """A place for an expert.

    Attributes:
        place: its number, or ``NO_PLACE``.
        victim: the key that gave way, or ``NONE``.
    """

    place: int
    victim: int = NONE


@dataclass
class Directory:
    """The state by key and by place, and the rules above.

    Attributes:
        limits, settings: of the stager.
        status: u8 ``[keys]``, of ``Status``.
        place: i32 ``[keys]``, ``NO_PLACE`` where it holds none.
        pins: i32 ``[keys]``, layers that run and need it.
        fixed: bool ``[keys]``: never gives way.
        value, chance: i64 ``[keys]``, times.
        deadline: i64 ``[keys]``: the chance counts while ``deadline > now``.
        last: i64 ``[keys]``, stamp of the last use, modulo 2^stamp_bits.
        held: places that each group holds.
        now: the deadline of the latest gate.
        entries: entries looked at so far.
        cycles: of the circuit so far, as far as it is busy with the directory.
    """

    limits: StagerLimits
    settings: StagerSettings
    now: int = -1
    entries: int = 0
    cycles: int = 0
    held: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.settings.check(self.limits)
        keys = self.limits.keys
        self.status = np.zeros(keys, np.uint8)
        self.place = np.full(keys, NO_PLACE, np.int32)
        self.pins = np.zeros(keys, np.int32)
        self.fixed = np.zeros(keys, np.bool_)
        self.value = np.zeros(keys, np.int64)
        self.chance = np.zeros(keys, np.int64)
        self.deadline = np.full(keys, -1, np.int64)
        self.last = np.zeros(keys, np.int64)
        self.held = [0] * len(self.settings.shares)
        layers = self.limits.layers if len(self.held) == 1 else 1
        self.scan_cycles = scan_cycles(layers, self.limits.experts, self.limits.lanes)
        self._free = list(range(self.limits.places + self.limits.spare))  # a heap: the lowest number first
        self._stamps = 0

    def group_of(self, key: int) -> int:
        """The group of layers that ``key`` shares places with."""
        return key // self.limits.experts if len(self.held) > 1 else 0

    def keys_of(self, group: int) -> slice:
        """The keys of a group."""
        if len(self.held) == 1:
            return slice(0, self.limits.keys)
        return slice(group * self.limits.experts, (group + 1) * self.limits.experts)

    def is_resident(self, key: int) -> bool:
        """Whether the expert is here, complete."""
        return self.status.item(key) == RESIDENT

    def worth(self, keys: Any) -> NDArray[np.int64]:
        """Times i64, of a key, a slice or an array of keys."""
        return self.value[keys] + np.where(self.deadline[keys] > self.now, self.chance[keys], 0)

    def set_chance(self, key: int, chance: int, deadline: int) -> None:
        """That the layer of ``key`` wants it at ``deadline``; an earlier one that lies ahead stands."""
        if not self.now < self.deadline[key] < deadline:
            self.chance[key], self.deadline[key] = chance * self.settings.chance_scale, deadline

    def stamp(self, key: int) -> None:
        """A use of ``key`` ends, the latest of all."""
        self.last[key] = self._stamps
        self._stamps = (self._stamps + 1) & ((1 << self.limits.stamp_bits) - 1)

    def lowest(self, group: int) -> int:
        """Who gives way in ``group``; ``NONE`` where nobody may. Looks at every entry of the group."""
        span = self.keys_of(group)
        self.entries += span.stop - span.start
        self.cycles += self.scan_cycles
        keys = np.flatnonzero(self.status[span] == RESIDENT) + span.start
        keys = keys[(self.pins[keys] == 0) & ~self.fixed[keys]]
        if not len(keys):
            return NONE
        worth = self.worth(keys)
        keys = keys[worth == worth.min()]
        if self.settings.by_recency and len(keys) > 1:
            age = (self._stamps - 1 - self.last[keys]) & ((1 << self.limits.stamp_bits) - 1)
            keys = keys[age == age.max()]
        return int(keys[-1])

    def claim(self, key: int, *, demanded: bool) -> Claim | None:
        """A place for an expert that holds none, which is then moving; ``None`` where it may not enter.

        Who gives way is absent from now on.
        """
        group, price = self.group_of(key), self.settings.price
        self.cycles += CHOOSE
        if self.held[group] < self.settings.shares[group]:
            if not demanded and self.worth(key) <= price:
                return None
            return Claim(self._enter(key, group, heappop(self._free)))
        victim = self.lowest(group)
        self.cycles += COMPARE
        if victim != NONE and (demanded or self.worth(key) > self.worth(victim) + price):
            place = self._vacate(victim)
            self.cycles += TOUCH
            return Claim(self._enter(key, group, place), victim)
        if not demanded:
            return None
        if sum(self._over(other) for other in range(len(self.held))) < self.limits.spare:
            return Claim(self._enter(key, group, heappop(self._free)))
        self.status[key] = MOVING
        return Claim(NO_PLACE)

    def arrive(self, key: int) -> None:
        """The expert is complete."""
        self.status[key] = RESIDENT
        self.stamp(key)

    def free(self, key: int) -> None:
        """The expert is absent from now on; its place, where it holds one, is free."""
        place = self._vacate(key)
        if place != NO_PLACE:
            heappush(self._free, place)

    def pin(self, keys: Sequence[int]) -> None:
        """A layer that needs these runs: they do not give way."""
        for key in keys:
            self.pins[key] += 1

    def unpin(self, keys: Sequence[int]) -> None:
        """The layer has run: these uses end, in this order."""
        for key in keys:
            self.pins[key] -= 1
            self.stamp(key)

    def use_at_once(self, keys: Sequence[int]) -> None:
        """A layer needs these distinct keys of its own, and they come and are used in no time."""
        self.pin(keys)
        for key in keys:
            if self.status[key] == ABSENT:
                self.claim(key, demanded=True)
                self.arrive(key)
        self.unpin(keys)
        for key in keys:
            if self.place[key] == NO_PLACE and not self.pins[key]:
                self.free(key)
        if keys:
            self.trim(self.group_of(keys[0]))

    def trim(self, group: int) -> list[int]:
        """Let residents give way until the group holds no more than its share, where they may: who did, in order."""
        gone = []
        self.cycles += CHOOSE
        while self._over(group):
            victim = self.lowest(group)
            self.cycles += CHOOSE
            if victim == NONE:
                break
            self.free(victim)
            self.cycles += TOUCH + CHOOSE
            gone.append(victim)
        return gone

    def _over(self, group: int) -> int:
        """Spare places that a group holds."""
        return max(0, self.held[group] - self.settings.shares[group])

    def _vacate(self, key: int) -> int:
        """The expert is absent from now on; the place that nobody holds thereby, or ``NO_PLACE``."""
        place = int(self.place[key])
        self.status[key] = ABSENT
        self.place[key] = NO_PLACE
        self.held[self.group_of(key)] -= place != NO_PLACE
        return place

    def _enter(self, key: int, group: int, place: int) -> int:
        """The expert is moving to ``place``, which is returned."""
        self.place[key] = place
        self.held[group] += 1
        self.status[key] = MOVING
        return place
