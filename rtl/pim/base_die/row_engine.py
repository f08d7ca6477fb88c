"""The row bus: opens row sets ahead of the columns, closes what has been read, refreshes."""

from collections.abc import Sequence

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from pim_model.unit.parameters import UnitParameters
from rtl.checks import always, always_within, implies
from rtl.pim.base_die.layouts import RowCommand, block_bits, row_bits, row_port_layout, row_set_bits
from rtl.pim.base_die.timers import Timer, WindowTimer


class RowEngine(wiring.Component):
    """Row set after row set, each half while the other is read; ``pim_model.unit.schedule`` states the rules.

    Row sets alternate between the halves, and none is opened before its half's last one has been read; so what counts
    is how many are open ahead of the columns: none, one or two.

    Members:
        start: Row set 0 is the next to open, in the next clock.
        cancel: No more are opened; the banks are closed.
        base_row, row_sets: Of the program; they hold from ``start`` on.
        slot: This clock may have a command.
        due, refreshing: A refresh is to be issued, or under way.
        columns_left: There are columns to be read.
        reading: Row set of the next column; behind the last, of all there are.
        pim, pim_half: A PIM is issued in this clock, in which half.
        read: It is its row set's last.
        issue_refresh: A REFAB is issued in this clock.
        readable: Half by half, whether the row set that is the half's next to be read can be.
        any_open: Any bank is open.
        ahead: Row sets that are open and not read.
        command: The row bus, a clock later.
    """

    def __init__(self, parameters: UnitParameters) -> None:
        self._parameters, self._timings = parameters, parameters.timings
        super().__init__(
            {
                "start": In(1),
                "cancel": In(1),
                "base_row": In(row_bits(parameters)),
                "row_sets": In(row_set_bits(parameters)),
                "slot": In(1),
                "due": In(1),
                "refreshing": In(1),
                "columns_left": In(1),
                "reading": In(row_set_bits(parameters)),
                "pim": In(1),
                "pim_half": In(1),
                "read": In(1),
                "issue_refresh": Out(1),
                "readable": Out(1),
                "any_open": Out(1),
                "ahead": Out(2),
                "command": Out(row_port_layout(parameters)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """At most one of four commands a clock, each with the distances that it keeps."""
        m = Module()
        blocks = self._parameters.blocks.blocks
        act, close_half, close_all = Signal(), Signal(), Signal()
        refresh = self.issue_refresh
        next_row_set = Signal.like(self.reading)
        half = next_row_set[0]
        bank = Signal(block_bits(self._parameters))  # of ``next_row_set``'s banks the next to open
        is_open, begun = Signal(2), Signal()  # begun: some bank of ``next_row_set`` is open
        more, last_bank = Signal(), Signal()
        to_be_opened = Signal()
        half_open = is_open.bit_select(half, 1)

        elapsed = self._distances(m, act, close_half, close_all, half)
        stale = half_open & ~begun
        finishing = ~self.columns_left & ~more
        to_close = (self.due | finishing) & ~self.refreshing
        free = self.slot & elapsed["bus"]
        opens = free & ~self.due & ~self.refreshing & more
        m.d.comb += [
            self.any_open.eq(is_open.any()),
            close_all.eq(free & to_close & self.any_open & elapsed["close all"]),
            refresh.eq(free & to_close & ~self.any_open & self.due & elapsed["refresh"]),
            close_half.eq(opens & stale & ~self.ahead[1] & elapsed["close half"]),
            act.eq(opens & ~stale & elapsed["act"]),
            self.readable.eq((self.ahead != 0) & elapsed["read"]),
            last_bank.eq(bank == blocks - 1),
        ]

        m.d.sync += to_be_opened.eq(next_row_set + 1 != self.row_sets)  # it changes with a row set's last bank
        m.d.sync += self.ahead.eq(self.ahead + (act & last_bank) - self.read)
        with m.If(act):
            m.d.sync += [bank.eq(bank + 1), begun.eq(1), is_open.bit_select(half, 1).eq(1)]
            with m.If(last_bank):
                m.d.sync += [bank.eq(0), begun.eq(0), next_row_set.eq(next_row_set + 1), more.eq(to_be_opened)]
        with m.If(close_half):
            m.d.sync += is_open.bit_select(half, 1).eq(0)
        cancelled = Signal()
        with m.If(close_all):
            m.d.sync += [is_open.eq(0), bank.eq(0), begun.eq(0), next_row_set.eq(self.reading), self.ahead.eq(0)]
            m.d.sync += more.eq(self.columns_left & ~cancelled & ~self.cancel)
        with m.If(self.start):
            m.d.sync += [next_row_set.eq(0), more.eq(1), cancelled.eq(0)]
        with m.If(self.cancel):
            m.d.sync += [more.eq(0), cancelled.eq(1)]

        row = self.base_row + (next_row_set >> 1)
        m.d.sync += [
            self.command.valid.eq(act | close_half | close_all | refresh),
            self.command.command.eq(
                Mux(
                    act,
                    RowCommand.ACT,
                    Mux(close_half, RowCommand.PREH, Mux(close_all, RowCommand.PREAB, RowCommand.REFAB)),
                )
            ),
            self.command.half.eq(half),
            self.command.block.eq(bank),
            self.command.row.eq(row),
        ]
        self._check(m, act, close_half, close_all, next_row_set, bank, is_open, begun, more)
        return m

    def _distances(
        self, m: Module, act: Signal, close_half: Signal, close_all: Signal, half: Signal
    ) -> dict[str, Value]:
        """Whether what is named has the distances that it must keep from what was before."""
        clocks = self._timings
        act_of = [act & (half == number) for number in range(2)]
        pim_of = [self.pim & (self.pim_half == number) for number in range(2)]
        close_of = [(close_half & (half == number)) | close_all for number in range(2)]
        act_to_pim = self._timers(m, "act_to_pim", clocks.act_to_pim, act_of)
        act_to_close = self._timers(m, "act_to_close", clocks.act_to_close, act_of)
        pim_to_close = self._timers(m, "pim_to_close", clocks.pim_to_close, pim_of)
        close_to_act = self._timers(m, "close_to_act", clocks.close_to_act, close_of)
        act_to_act, bus = (
            self._timers(m, name, distance, [act])[0]
            for name, distance in (("act_to_act", clocks.act_to_act), ("bus", clocks.act_on_bus))
        )
        windows = [act_to_act.elapsed]
        for name, events, distance in (
            ("group_window", clocks.group_window, clocks.act_to_act_group),
            ("four_acts", 4, clocks.four_acts),
        ):
            if events * clocks.act_to_act < distance:
                m.submodules[name] = window = WindowTimer(events, distance)
                m.d.comb += window.start.eq(act)
                windows.append(window.elapsed)
        to_close = [*act_to_close, *pim_to_close]
        self._check_refresh(m, [*to_close, bus], [*close_to_act, bus])

        def of_half(timers: list[Timer], number: Value) -> Value:
            return Array(timer.elapsed for timer in timers)[number]

        return {
            "bus": bus.elapsed,
            "read": of_half(act_to_pim, self.reading[0]),
            "close half": of_half(act_to_close, half) & of_half(pim_to_close, half),
            "close all": Cat(timer.elapsed for timer in to_close).all(),
            "refresh": Cat(timer.elapsed for timer in close_to_act).all(),
            "act": Cat(*windows, of_half(close_to_act, half)).all(),
        }

    def _timers(self, m: Module, name: str, distance: int, starts: Sequence[Value]) -> list[Timer]:
        """A timer for each start."""
        timers = []
        for number, start in enumerate(starts):
            m.submodules[f"{name}{number}"] = timer = Timer(distance)
            m.d.comb += timer.start.eq(start)
            timers.append(timer)
        return timers

    def _check(
        self,
        m: Module,
        act: Signal,
        close_half: Signal,
        close_all: Signal,
        next_row_set: Signal,
        bank: Signal,
        is_open: Signal,
        begun: Signal,
        more: Signal,
    ) -> None:
        """Follow every bank by itself: commands meet it in a state that allows them, and the engine knows that state.

        A few checks are of the inputs: the column engine's PIMs, and the columns' walk.
        """
        blocks, half, refresh = self._parameters.blocks.blocks, next_row_set[0], self.issue_refresh
        everything = (1 << blocks) - 1
        banks = [Signal(blocks, name=f"banks{number}") for number in range(2)]
        for number, opened in enumerate(banks):
            mine = half == number
            with m.If(act & mine):
                m.d.sync += opened.bit_select(bank, 1).eq(1)
            with m.If(close_all | (close_half & mine)):
                m.d.sync += opened.eq(0)
            always(m, implies(act & mine, ~opened.bit_select(bank, 1)), "row engine: an ACT of an open bank")
            always(
                m,
                implies(self.pim & (self.pim_half == number), opened == everything),
                "row engine: a PIM of a half that is not open",
            )
            always(m, implies(refresh, opened == 0), "row engine: a REFAB of open banks")
            partly, known = (1 << bank)[:blocks] - 1, Signal(blocks, name=f"known{number}")
            with m.If(is_open[number]):
                m.d.comb += known.eq(Mux(begun & mine, partly, everything))
            always(m, opened == known, "row engine: banks are open that it does not know of, or the reverse")
        always_within(m, self.ahead, 0, 2, "row engine: more row sets open than halves")
        always_within(m, bank, 0, blocks - 1, "row engine: a bank that there is not")
        always(m, begun == (bank != 0), "row engine: begun is not what it says")
        always(m, implies(begun, is_open.bit_select(half, 1)), "row engine: a half is begun and closed")
        always(m, implies(self.ahead != 0, is_open.bit_select(~half, 1)), "row engine: what is ahead is not open")
        always(m, implies(self.ahead == 2, is_open.all() & ~begun), "row engine: both halves are ahead, not both open")
        always(m, self.reading == (next_row_set - self.ahead)[: len(self.reading)], READING)
        always(m, implies(self.pim, self.readable & (self.pim_half == self.reading[0])), PIM)
        always(m, implies(self.pim, self.columns_left & ~self.due & ~self.refreshing), STOPPED)
        always(m, implies(self.read, self.pim), READ)
        always(m, implies(self.start, ~self.any_open & ~self.due & ~self.refreshing & ~more), START)

    def _check_refresh(self, m: Module, to_close: Sequence[Timer], to_refresh: Sequence[Timer]) -> None:
        """Check that a refresh is not later than its bound.

        So that it can be proved, also at each step on the way, where no slots are waited for.
        """
        bound = self._timings.refresh_bound
        still_open = bound - self._timings.close_to_act
        late = Signal(range(bound + 2))
        waits = self.due & ~self.refreshing
        with m.If(waits & ~self.issue_refresh):
            m.d.sync += late.eq(late + (late <= bound))
        with m.Else():
            m.d.sync += late.eq(0)
        always(m, late <= bound, "row engine: a refresh is later than its bound")
        if self._timings.row_period > 1:
            return
        for timer in to_close:
            always(
                m,
                implies(waits & self.any_open, late + timer.left <= still_open),
                "row engine: banks to be refreshed will be open too long",
            )
        for timer in to_refresh:
            always(m, implies(waits & ~self.any_open, late + timer.left <= bound), "row engine: a refresh will be late")


READING = "row engine: the row set to be read is not the one that is said"
PIM = "row engine: a PIM of a row set that is not readable"
STOPPED = "row engine: a PIM while the unit is stopped"
READ = "row engine: a row set's end without its PIM"
START = "row engine: a program begins with open banks, in a refresh, or in another"
OF_INPUTS = (READING, PIM, STOPPED, READ, START)
"""The checks that are of the inputs."""
