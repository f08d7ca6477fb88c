"""Which transfer is next: the queue of what waits for the link.

Demands come first, in the order in which they were asked for. Then what was predicted: the nearest deadline, of equals
the most worth, of those the one that came first. A demand that finds the queue full takes the entry of the last in this
order, which is no demand (``StagerLimits`` sees to that); a prefetch does so only where it comes before that one.
A circuit compares all entries pairwise in a tree, a level a cycle.
"""

from dataclasses import dataclass, field

from staging.stager.directory import NO_PLACE, NONE, Directory


@dataclass
class TransferQueue:
    """Keys that wait, in the order in which they came.

    Attributes:
        directory: that their worth and deadlines are read from.
        depth: entries.
        waiting: keys, the earliest first.
        demanded: those of them, and of what is moving, that a gate waits for.
    """

    directory: Directory
    depth: int
    waiting: list[int] = field(default_factory=list)
    demanded: set[int] = field(default_factory=set)

    @property
    def holds_demand(self) -> bool:
        """Whether a demand waits."""
        return any(key in self.demanded for key in self.waiting)

    def first(self) -> int:
        """The next to move; ``NONE`` where nothing waits."""
        return min(self.waiting, key=self._rank, default=NONE)

    def last_with_place(self, group: int) -> int:
        """Of the prefetches of ``group`` that wait and hold a place, the last to move; ``NONE`` where there is none."""
        of = self.directory
        predicted = (key for key in self.waiting if key not in self.demanded)
        held = [key for key in predicted if of.place[key] != NO_PLACE and of.group_of(key) == group]
        return max(reversed(held), key=self._rank, default=NONE)

    def add(self, key: int) -> int:
        """Enter ``key``; returns who lost its entry: another, ``key`` itself, or ``NONE`` where there was room."""
        self.waiting.append(key)
        if len(self.waiting) <= self.depth:
            return NONE
        # Of equals the latest is the last, so of a stable order the last of the last.
        last = max(reversed(self.waiting), key=self._rank)
        self.waiting.remove(last)
        return last

    def promote(self, key: int) -> None:
        """What waits is demanded from now on: the last of the demands."""
        self.demanded.add(key)
        self.waiting.remove(key)
        self.waiting.append(key)

    def _rank(self, key: int) -> tuple[int, int, int]:
        """The lower, the sooner."""
        if key in self.demanded:
            return 0, 0, 0
        return 1, int(self.directory.deadline[key]), -int(self.directory.worth(key))
