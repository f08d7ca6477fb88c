"""Distances in time: what may come again when."""

from collections.abc import Sequence

from amaranth.hdl import Array, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from rtl.checks import always, always_within


class Timer(wiring.Component):
    """``elapsed`` from ``clocks`` after the last ``start`` on, and before the first.

    Members:
        start: What the distance is from, in this clock.
        elapsed: In the clock of ``start`` still as before.
        left: Clocks until it has.
    """

    def __init__(self, clocks: int) -> None:
        if clocks < 1:
            raise ValueError(f"a distance of {clocks} clocks; a register tells one at least")
        self._clocks = clocks
        super().__init__({"start": In(1), "elapsed": Out(1, init=1), "left": Out(range(max(2, clocks)))})

    def elaborate(self, platform: object) -> Module:
        """A counter and a flag."""
        m = Module()
        with m.If(self.start):
            m.d.sync += [self.left.eq(self._clocks - 1), self.elapsed.eq(self._clocks == 1)]
        with m.Elif(~self.elapsed):
            m.d.sync += [self.left.eq(self.left - 1), self.elapsed.eq(self.left == 1)]
        always(m, self.elapsed == (self.left == 0), "timer: its flag is not its counter's")
        always_within(m, self.left, 0, self._clocks - 1, "timer: more left than its distance")
        return m


class WindowTimer(wiring.Component):
    """``elapsed`` from ``clocks`` after the ``events``-th last ``start`` on: what ``events`` in a window allow."""

    def __init__(self, events: int, clocks: int) -> None:
        self._events, self._clocks = events, clocks
        super().__init__({"start": In(1), "elapsed": Out(1)})

    def elaborate(self, platform: object) -> Module:
        """As many timers as events, started in turn."""
        m = Module()
        turn = Signal(range(max(2, self._events)))
        timers = [Timer(self._clocks) for _ in range(self._events)]
        for number, timer in enumerate(timers):
            m.submodules[f"timer{number}"] = timer
            m.d.comb += timer.start.eq(self.start & (turn == number))
        with m.If(self.start):
            m.d.sync += turn.eq(turn + 1)
            with m.If(turn == self._events - 1):
                m.d.sync += turn.eq(0)
        m.d.comb += self.elapsed.eq(Array(timer.elapsed for timer in timers)[turn])
        return m


class Slots(wiring.Component):
    """Which clocks are this pseudo-channel's on each command bus.

    Members:
        first: The clock after this one is the first of a period, as clock 0 of a schedule is.
        row, column: This clock is one for a command of the bus.
    """

    def __init__(self, *, row: tuple[int, int], column: tuple[int, int]) -> None:
        """``row`` and ``column`` are (period, phase); the row's period is a multiple of the column's."""
        if row[0] % column[0]:
            raise ValueError(f"periods {row[0]} and {column[0]}: one is no multiple of the other")
        self._row, self._column = row, column
        super().__init__({"first": Out(1), "row": Out(1), "column": Out(1)})

    def elaborate(self, platform: object) -> Module:
        """A counter, if there is anything to count."""
        m = Module()
        period = self._row[0]
        if period == 1:
            m.d.comb += [self.first.eq(1), self.row.eq(1), self.column.eq(1)]
            return m
        clock = Signal(ceil_log2(period))
        m.d.sync += clock.eq(clock + 1)
        with m.If(clock == period - 1):
            m.d.sync += clock.eq(0)
        of_column = range(self._column[1], period, self._column[0])
        m.d.comb += [
            self.first.eq(clock == period - 1),
            self.row.eq(clock == self._row[1]),
            self.column.eq(_one_of(clock, of_column)),
        ]
        return m


def _one_of(value: Signal, values: Sequence[int]) -> Value:
    return value.matches(*values)
