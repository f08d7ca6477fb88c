"""The sequencer: what the engine does in which cycle of an event."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.st_moe.parameters import EngineLimits
from rtl.checks import always, exactly_one, implies


class Sequencer(wiring.Component):
    """Accept, check, read rows, finish; ``predictor.st_moe.tables.event_cycles`` counts the cycles.

    An event begins with ``accept`` while ``idle``. In the next cycle, ``check``, the engine says whether it is
    ``rejected``, ``predicts`` and ``verifies``. Then a row is read a cycle, the ``index``-th of ``top_k``: all that
    predict (``reading_to_predict``), then all to verify (``reading_to_verify``); ``last`` marks the last of either. The
    event ends with the later of ``predict_finishing`` and ``verify_finishing``, in whichever order they come.
    """

    def __init__(self, limits: EngineLimits) -> None:
        self.limits = limits
        super().__init__(
            {
                "accept": In(1),
                "rejected": In(1),
                "predicts": In(1),
                "verifies": In(1),
                "top_k": In(range(limits.top_k_max + 1)),
                "predict_finishing": In(1),
                "verify_finishing": In(1),
                "idle": Out(1),
                "check": Out(1),
                "reading_to_predict": Out(1),
                "reading_to_verify": Out(1),
                "index": Out(range(max(2, limits.top_k_max))),  # Verilog has no signal of no bits
                "last": Out(1),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        reading = self.reading_to_predict | self.reading_to_verify
        m.d.comb += self.last.eq(self.index == self.top_k - 1)
        with m.If(self.check | (reading & self.last)):
            m.d.sync += self.index.eq(0)
        with m.Elif(reading):
            m.d.sync += self.index.eq(self.index + 1)

        # What is still to come; the issuer may finish before the last row is read.
        predicting, verifying = Signal(), Signal()
        with m.If(self.check):
            m.d.sync += [predicting.eq(self.predicts), verifying.eq(self.verifies)]
        with m.Else():
            with m.If(self.predict_finishing):
                m.d.sync += predicting.eq(0)
            with m.If(self.verify_finishing):
                m.d.sync += verifying.eq(0)
        finished = (~predicting | self.predict_finishing) & (~verifying | self.verify_finishing)

        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.comb += self.idle.eq(1)
                with m.If(self.accept):
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.comb += self.check.eq(1)
                m.next = "IDLE"
                with m.If(~self.rejected & self.predicts):
                    m.next = "READ TO PREDICT"
                with m.Elif(~self.rejected & self.verifies):
                    m.next = "READ TO VERIFY"
            with m.State("READ TO PREDICT"):
                m.d.comb += self.reading_to_predict.eq(1)
                with m.If(self.last):
                    m.next = "FINISH"
                    with m.If(verifying):
                        m.next = "READ TO VERIFY"
            with m.State("READ TO VERIFY"):
                m.d.comb += self.reading_to_verify.eq(1)
                with m.If(self.last):
                    m.next = "FINISH"
            with m.State("FINISH"), m.If(finished):
                m.next = "IDLE"
        states = ("IDLE", "CHECK", "READ TO PREDICT", "READ TO VERIFY", "FINISH")
        always(m, exactly_one([fsm.ongoing(state) for state in states]), "sequencer: not in one state")
        always(m, implies(reading, self.index < self.top_k), "sequencer: a row is read beyond the event's experts")
        always(m, implies(self.predict_finishing, predicting), "sequencer: a prediction ends that did not begin")
        always(m, implies(self.verify_finishing, verifying), "sequencer: a verification ends that did not begin")
        return m
