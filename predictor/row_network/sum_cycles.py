"""Clocks of the sums of the net in hardware: a schedule of the passes over them, to the clock.

A pass over a word of a sum takes a *slot* of the adder's pipeline for each row that it adds. A slot is issued in clock
``i``, in which its row is read too; that is shifted in ``i + 3``, added in ``i + 4``, and the sum is written, or shown,
in ``i + 5``.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

FINISHING_SLOTS = 4
"""Least slots of a pass that finishes a decayed sum: so long each step of its pipeline holds what it works on."""
WRITTEN_CLOCKS = 4
"""From the last slot of a pass to the first one of another that reads the same word."""
SETTLED_CLOCKS = 11
"""From the last slot of a pass that finishes a decayed sum to the first one that asks for a sum with its trail."""
SHOWN_CLOCKS = 5
"""From the slot that adds the trail to the sum at the scores."""
FETCH_CLOCKS = 1
"""From the clock in which a command is taken to that in which its first pass is offered."""
BETWEEN = 2
"""Passes that lie between who offers them and who issues their slots; each lies there a clock at least."""
SUM_CLOCKS = 6
"""From the last slot of a pass to the clock in which its sum is written."""
TRAIL_CLOCKS = 13
"""From the last slot of a pass that finishes a decayed sum to the clock in which its trail is."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """A pass over all words of a sum (of an identity: over one).

    Attributes:
        sum_key: what tells the sum from all others of the net.
        words: the words that it runs over.
        rows: rows that are added to each; 0: none.
        asks, finishes: as in the program.
    """

    sum_key: tuple[int, ...]
    words: tuple[int, ...]
    rows: int = 0
    asks: bool = False
    finishes: bool = False

    @property
    def slots(self) -> int:
        """Slots of each word."""
        rows = max(1, self.rows)
        return (max(rows, FINISHING_SLOTS) if self.finishes else rows) + self.asks


@dataclass
class Issue:
    """The slots of the adder's pipeline.

    Attributes:
        free: the first clock in which a slot may be issued.
        shown: the clocks in which each asked word is shown.
    """

    free: int = 0
    shown: list[int] = field(default_factory=list)
    _taken: list[int] = field(default_factory=list)
    _ends: dict[tuple[int, ...], int] = field(default_factory=dict)
    _finished: int | None = None
    _latest: tuple[int, ...] | None = None

    def run(self, one: Pass, offered: int) -> int:
        """Issue a pass that is offered from clock ``offered`` on; the clock in which it is put between."""
        put = max(offered, self._taken[-BETWEEN] + 1) if len(self._taken) >= BETWEEN else offered
        taken = max(put + 1, self.free - 1)
        self._taken.append(taken)
        at = taken + 1
        for word in one.words:
            key = (*one.sum_key, word)
            if (key != self._latest or one.finishes) and key in self._ends:
                at = max(at, self._ends[key] + WRITTEN_CLOCKS)
            if one.asks and self._finished is not None:
                at = max(at, self._finished + SETTLED_CLOCKS)
            last = at + one.slots - 1
            self._ends[key] = last
            self._latest = None if one.asks else key
            if one.finishes:
                self._finished = last
            if one.asks:
                self.shown.append(last + SHOWN_CLOCKS)
            at = last + 1
        self.free = at
        return put

    @property
    def written(self) -> int:
        """The first clock in which every sum and every trail is written; 0: there was no pass."""
        sums = self.free - 1 + SUM_CLOCKS if self._taken else 0
        return sums if self._finished is None else max(sums, self._finished + TRAIL_CLOCKS)


def run_all(issue: Issue, passes: Iterable[Pass], offered: int, *, spacing: int = 1) -> int:
    """Issue the passes of one command, each offered ``spacing`` clocks after the one before was put between.

    Returns:
        The clock in which the last one is: that in which the next command can be taken.
    """
    put = offered
    for one in passes:
        put = issue.run(one, offered)
        offered = put + spacing
    return put
