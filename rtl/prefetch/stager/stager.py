"""The stager: the circuit of the twin, and what must always hold of it."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from typing_extensions import override

from rtl.checks import always, always_within, implies
from rtl.prefetch.stager.control import Control, Purpose
from rtl.prefetch.stager.layouts import Command, StagerShape, StagerSignature
from rtl.prefetch.stager.states import add_states
from staging.stager.directory import Status


class Stager(wiring.Component):
    """The circuit of ``staging.stager.twin.Stager``; each command takes the cycles that the twin says.

    ``layouts.StagerSignature`` describes the ports. The first command after power-up is CLEAR.
    """

    def __init__(self, shape: StagerShape) -> None:
        self.shape = shape
        super().__init__(StagerSignature(shape))

    @override
    def elaborate(self, platform: object) -> Module:
        control = Control(self, self.shape)
        add_states(control)
        add_checks(control)
        return control.module


def add_checks(c: Control) -> None:
    """The first are of what it is told, the others of what it does."""
    m, ports, settings = c.module, c.ports, c.ports.settings
    offered, taken = ports.commands.payload, ports.commands.valid & ports.commands.ready
    kind = offered.kind
    names = (kind == Command.DEMAND) | (kind == Command.RELEASE) | (kind == Command.PREFETCH)
    names |= (kind == Command.PRELOAD) | (kind == Command.FIX)
    moves = (kind == Command.PREEMPT) | (kind == Command.ARRIVE) | (kind == Command.FAIL)
    always(m, implies(taken & moves, c.moving.valid), "stager: told of a transfer, and nothing moves")
    granted = taken & (kind == Command.GRANT)
    always(m, implies(granted, ~c.moving.valid), "stager: granted a link that is taken")
    has_layer = names | (kind == Command.SET_VALUES)
    always(m, implies(taken & has_layer, offered.layer < settings.layers), "stager: told of a layer that is not")
    always(
        m,
        implies(taken & names, offered.count <= c.shape.named_experts),
        "stager: more experts than can be named",
    )
    for nth in range(c.shape.named_experts):
        inside = (offered.count <= nth) | (offered.experts[nth] < settings.experts)
        always(m, implies(taken & names, inside), "stager: told of an expert that is not")
    always_within(m, c.pins_out, 0, c.limits.most_pins, "stager: more pins than the limits allow")
    entry = c.entry
    always(m, implies(c.acts & (c.purpose == Purpose.RELEASE), entry.pins != 0), "stager: released undemanded")
    may = (entry.status == Status.RESIDENT) & (entry.pins == 0) & ~entry.fixed & entry.placed
    always(m, implies(c.acts & (c.purpose == Purpose.EVICT), may), "stager: who may not give way is evicted")
    one_too_many = c.queue.waiting == c.limits.queue_depth + 1
    always(m, one_too_many == c.overflows, "stager: the queue overflows")
    touches = c.states.ongoing("READ") | c.states.ongoing("PICK") | c.states.ongoing("DECIDE") | c.acts
    ends = touches & ((c.purpose == Purpose.DROP) | (c.purpose == Purpose.REFUSE_FULL))
    seeks = c.states.ongoing("LOOK") & c.queue.last & ~c.queue.placed_only
    is_sought = seeks | c.states.ongoing("OVERFLOW") | ends
    always(m, implies(c.overflows, is_sought), "stager: nobody loses an entry of a queue that is too full")
    always_within(m, c.spare_taken, 0, c.limits.spare, "stager: more spare places than there are")
