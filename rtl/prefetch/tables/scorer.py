"""The scorer: table rows become a score per expert."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.st_moe.parameters import CONFIDENCE_BITS, EngineLimits
from rtl.checks import always, implies
from rtl.prefetch.tables.layouts import entries_layout, experts_layout


class Scorer(wiring.Component):
    """Aggregates rows into score registers, one row a cycle; a row counts in ``scores`` two cycles after ``row_valid``.

    Outputs are combinational in the registers: ``scores`` with the history's confidence added, and ``eligible``, those
    that exist and reach the threshold. ``history`` is the decoded history, taken in at ``history_load``.
    """

    def __init__(self, limits: EngineLimits) -> None:
        self.limits = limits
        score = unsigned(limits.score_bits)
        super().__init__(
            {
                "clear": In(1),
                "row_valid": In(1),
                "entries": In(entries_layout(limits)),
                "entries_used": In(limits.candidates_max),
                "add": In(1),
                "history_load": In(1),
                "history_valid": In(1),
                "history": In(experts_layout(limits)),
                "history_used": In(limits.top_k_max),
                "ht_confidence": In(CONFIDENCE_BITS),
                "threshold": In(score),
                "experts_used": In(limits.experts_max),
                "scores": Out(data.ArrayLayout(score, limits.experts_max)),
                "eligible": Out(limits.experts_max),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        experts = self.limits.experts_max

        # First stage: decode the entries into a bit plane per bit of confidence. A row lists an expert at most once, so
        # the planes of its entries can be merged by OR.
        planes = [Signal(experts, name=f"plane{bit}") for bit in range(CONFIDENCE_BITS)]
        contributes = Signal()
        m.d.sync += contributes.eq(self.row_valid)
        one_hots = []
        for entry in range(self.limits.candidates_max):
            one_hot = Signal(experts, name=f"entry{entry}")
            with m.If(self.entries_used[entry]):
                m.d.comb += one_hot.eq(1 << self.entries[entry].expert)
            one_hots.append(one_hot)
        for bit, plane in enumerate(planes):
            merged = Signal(experts, name=f"merged{bit}")
            for entry, one_hot in enumerate(one_hots):
                merged = merged | Mux(self.entries[entry].confidence[bit], one_hot, 0)
            m.d.sync += plane.eq(merged)

        # Second stage: aggregate.
        sums = [Signal(self.limits.score_bits, name=f"sum{expert}") for expert in range(experts)]
        overflows = []
        for expert, total in enumerate(sums):
            confidence = Signal(CONFIDENCE_BITS, name=f"confidence{expert}")
            m.d.comb += confidence.eq(Cat(plane[expert] for plane in planes))
            overflows.append((total + confidence)[-1])
            with m.If(self.clear):
                m.d.sync += total.eq(0)
            with m.Elif(contributes):
                # Under max a total never exceeds a confidence.
                larger = Mux(confidence > total, confidence, total)
                m.d.sync += total.eq(Mux(self.add, total + confidence, larger))

        always(m, implies(contributes & self.add, ~Cat(*overflows).any()), "scorer: a sum overflows its score")

        # The history, decoded.
        recent = Signal(experts)
        with m.If(self.history_load):
            decoded = 0
            for nth in range(self.limits.top_k_max):
                decoded = decoded | Mux(self.history_used[nth] & self.history_valid, 1 << self.history[nth], 0)
            m.d.sync += recent.eq(decoded)

        for expert, total in enumerate(sums):
            m.d.comb += [
                self.scores[expert].eq(total + Mux(recent[expert], self.ht_confidence, 0)),
                self.eligible[expert].eq(self.experts_used[expert] & (self.scores[expert] >= self.threshold)),
            ]
        return m
