"""From START to the end of a program, good or bad."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.checks import always, exactly_one


class ProgramControl(wiring.Component):
    """Plan, wait for clock 0, run, drain; a program that is ended drains, too, but its results are dropped.

    Args:
        drain_ck: Clocks after the sequencer's ``done`` in which results may still reach the output queue.

    Members:
        start, abort: Software's commands; ``start`` only while not ``busy``.
        failed: The inputs are not as they should be.
        busy: A program is in work.
        plan, planned, refused: To and from the planner.
        receive: The program's inputs may come.
        begin, begun: To the sequencer, from it.
        cancel: The program is to end: nothing more is read.
        finished: The sequencer is done.
        all_out: The output queue is empty.
        ending: Results are not wanted any more.
        flush, end_packet: To the output queue.
        done, aborted: For one clock: how it ended.
    """

    def __init__(self, drain_ck: int) -> None:
        self._drain_ck = drain_ck
        super().__init__(
            {
                "start": In(1),
                "abort": In(1),
                "failed": In(1),
                "busy": Out(1),
                "plan": Out(1),
                "planned": In(1),
                "refused": In(1),
                "receive": Out(1),
                "begin": Out(1),
                "begun": In(1),
                "cancel": Out(1),
                "finished": In(1),
                "all_out": In(1),
                "ending": Out(1),
                "flush": Out(1),
                "end_packet": Out(1),
                "done": Out(1),
                "aborted": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """One state for each of the steps."""
        m = Module()
        left = Signal(range(self._drain_ck + 1))
        m.d.comb += self.busy.eq(1)
        with m.If((self.abort | self.failed) & self.busy):
            m.d.sync += self.ending.eq(1)
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.comb += self.busy.eq(0)
                m.d.sync += self.ending.eq(0)
                with m.If(self.start):
                    m.d.comb += self.plan.eq(1)
                    m.next = "PLAN"
            with m.State("PLAN"):
                with m.If(self.refused):
                    m.next = "IDLE"
                with m.Elif(self.planned):
                    m.d.comb += self.receive.eq(1)
                    m.next = "BEGIN"
            with m.State("BEGIN"):
                with m.If(self.ending):
                    m.d.comb += [self.cancel.eq(1), self.aborted.eq(1)]
                    m.next = "IDLE"
                with m.Else():
                    m.d.comb += self.begin.eq(1)
                    with m.If(self.begun):
                        m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += self.cancel.eq(self.ending)
                m.d.sync += left.eq(self._drain_ck)
                with m.If(self.finished):
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                m.d.comb += self.cancel.eq(self.ending)
                with m.If(left != 0):
                    m.d.sync += left.eq(left - 1)
                with m.Elif(self.ending):
                    m.d.comb += self.flush.eq(1)
                    m.next = "END PACKET"
                with m.Elif(self.all_out):
                    m.d.comb += self.done.eq(1)
                    m.next = "IDLE"
            with m.State("END PACKET"):
                m.d.comb += [self.end_packet.eq(1), self.aborted.eq(1)]
                m.next = "IDLE"
        states = ("IDLE", "PLAN", "BEGIN", "RUN", "DRAIN", "END PACKET")
        always(m, exactly_one([fsm.ongoing(state) for state in states]), "program control: not in one state")
        return m
