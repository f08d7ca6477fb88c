"""When the banks must be refreshed."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from pim_model.unit.parameters import MOST_POSTPONED_REFRESHES, UnitParameters
from rtl.checks import always, implies
from rtl.pim.base_die.timers import Timer


class Refresh(wiring.Component):
    """Every ``refresh_interval`` clocks one refresh more is pending; each REFAB takes one off.

    Without ``enable`` they are postponed, of which a DRAM allows eight.

    Members:
        enable: Pending refreshes stop the unit.
        issue: A REFAB is issued in this clock.
        due: One is to be issued.
        refreshing: One is under way.
        pending: How many are due.
        left: Clocks until the next is due.
        overdue: In this clock more become pending than may be postponed.
    """

    def __init__(self, parameters: UnitParameters) -> None:
        self._timings = parameters.timings
        super().__init__(
            {
                "enable": In(1),
                "issue": In(1),
                "due": Out(1),
                "refreshing": Out(1),
                "pending": Out(range(MOST_POSTPONED_REFRESHES + 2)),
                "left": Out(range(self._timings.refresh_interval), init=self._timings.refresh_interval - 1),
                "overdue": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """The interval's counter, and what is pending."""
        m = Module()
        m.submodules.timer = timer = Timer(self._timings.refresh)
        comes = Signal()
        m.d.sync += [self.left.eq(self.left - 1), comes.eq(self.left == 1)]
        with m.If(comes):
            m.d.sync += self.left.eq(self._timings.refresh_interval - 1)
        most = self.pending == MOST_POSTPONED_REFRESHES + 1
        with m.If(comes & ~self.issue & ~most):
            m.d.sync += self.pending.eq(self.pending + 1)
        with m.Elif(self.issue & ~comes):
            m.d.sync += self.pending.eq(self.pending - 1)
        m.d.comb += [
            timer.start.eq(self.issue),
            self.refreshing.eq(~timer.elapsed),
            self.due.eq(self.enable & (self.pending != 0)),
            self.overdue.eq(comes & ~self.issue & (self.pending >= MOST_POSTPONED_REFRESHES)),
        ]
        always(m, implies(self.issue, self.due & timer.elapsed), "refresh: a REFAB that is not due")
        return m
