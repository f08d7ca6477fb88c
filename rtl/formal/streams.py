"""Proofs of what lies in a stream."""

from amaranth.hdl import Module, Signal

from rtl.checks import always, always_stable, implies
from rtl.formal.environment import offers
from rtl.formal.task import Task
from rtl.register_slice import RegisterSlice

BITS = 3


def _two_at_most(m: Module, part: RegisterSlice) -> None:
    """What is put in comes out in that order, once each; neither end hangs on the other's handshake of the clock."""
    offers(m, "into", part.into)
    count, first, second = Signal(range(3)), Signal(BITS), Signal(BITS)
    put, taken = part.into.valid & part.into.ready, part.out.valid & part.out.ready
    left = Signal.like(count)
    m.d.comb += left.eq(count - taken)
    m.d.sync += count.eq(left + put)
    with m.If(taken):
        m.d.sync += first.eq(second)
    with m.If(put & (left == 0)):
        m.d.sync += first.eq(part.into.payload)
    with m.Elif(put):
        m.d.sync += second.eq(part.into.payload)
    always(m, count != 3, "register slice: it takes a third")
    always(m, part.into.ready == (count != 2), "register slice: it has place and is not ready, or none and is")
    always(m, part.out.valid == (count != 0), "register slice: it offers what it has not, or keeps what it has")
    always(m, implies(count != 0, part.out.payload == first), "register slice: something else comes out")
    always(m, implies(count == 2, part.behind == second), "register slice: what waits is lost")
    always(m, part.empty == ~part.out.valid, "register slice: it is empty and offers")
    always_stable(m, "out", valid=part.out.valid, ready=part.out.ready, payload=part.out.payload)


TASKS = (
    Task(
        name="register-slice",
        what="a register slice: what is put in comes out in that order, once each; it takes two at most",
        make=lambda: RegisterSlice(BITS),
        assumptions=_two_at_most,
        depth=6,
    ),
)
