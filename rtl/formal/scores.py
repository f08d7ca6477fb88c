"""Proofs of the scores unit's parts, at small sizes."""

from amaranth.hdl import Assume, Module, Signal

from rtl.checks import always, implies
from rtl.formal.task import Task
from rtl.prefetch.net.scores.best import BestExperts

PLACES = 3


def _experts_ascend(m: Module, best: BestExperts) -> None:
    """An expert is given once between two clears, after every smaller one; no chance of 0 qualifies."""
    latest, begun = Signal.like(best.expert), Signal()
    with m.If(best.valid):
        m.d.sync += [latest.eq(best.expert), begun.eq(1)]
    with m.Elif(best.clear):
        m.d.sync += begun.eq(0)
    ascends = best.clear | ~begun | (best.expert > latest)
    always(m, implies(best.valid, ascends), "experts descend", claim=Assume)
    always(m, best.threshold != 0, "threshold", claim=Assume)
    for n in range(PLACES):
        given_before = begun & (best.experts[n] <= latest)
        always(m, implies(best.count > n, given_before), "an expert is held that was not given")


TASKS = (
    Task(
        name="best-experts",
        what="the net's best experts: largest chance first, ties to the smaller expert, no gap between places",
        make=lambda: BestExperts(3, PLACES),
        assumptions=_experts_ascend,
        depth=4,
    ),
)
