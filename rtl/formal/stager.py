"""Proofs of the stager, at small sizes."""

from amaranth.hdl import Assume, Module, Signal, Value

from rtl.checks import always, always_kept, implies
from rtl.formal.environment import offers
from rtl.formal.task import Task
from rtl.prefetch.stager.layouts import Command, StagerShape
from rtl.prefetch.stager.stager import Stager
from staging.stager.limits import StagerLimits

SMALL = StagerShape(
    limits=StagerLimits(
        layers=1, experts=2, places=1, spare=1, queue_depth=2, sequence_slots=2, event_experts=1,
        value_bits=2, scale_bits=1, stamp_bits=2, deadline_bits=2, lanes=2,
    ),
    named_experts=1,
)  # fmt: skip


def _inputs(m: Module, stager: Stager) -> None:
    """CLEAR comes first, after the shares; settings stay; a shape that there is."""
    settings, offered = stager.settings, stager.commands.payload
    taken = stager.commands.valid & stager.commands.ready
    offers(m, "commands", stager.commands)
    begun = Signal()
    with m.If(taken):
        m.d.sync += begun.eq(1)
    always(m, implies(taken & ~begun, offered.kind == Command.CLEAR), "first", claim=Assume)
    always(m, implies(taken, Value.cast(offered.kind) <= Command.CLEAR.value), "kind", claim=Assume)
    always(m, implies(stager.shares.valid, ~begun & (stager.shares.share <= 1)), "shares", claim=Assume)
    always_kept(m, "settings", Value.cast(settings), where=Value.cast(1)[0], claim=Assume)
    always(m, (settings.layers == 1) & (settings.experts == 2), "shape", claim=Assume)


TASKS = (
    Task(
        name="stager",
        what="stager: no place for two experts, no eviction of a pinned one, no queue that overflows",
        make=lambda: Stager(SMALL),
        assumptions=_inputs,
        given=(
            "stager: told of a transfer, and nothing moves",
            "stager: granted a link that is taken",
            "stager: told of a layer that is not",
            "stager: told of an expert that is not",
            "stager: more pins than the limits allow",
            "stager: released undemanded",
        ),
        depth=16,
        quick=False,
    ),
)
