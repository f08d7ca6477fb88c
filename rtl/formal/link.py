"""Proof of the link: what it tells the stager of a transfer, and when."""

from typing import Any, ClassVar

from amaranth.hdl import Assume, Cat, Module, Signal, Value
from amaranth.lib import wiring
from typing_extensions import override

from rtl.checks import always, always_kept, implies
from rtl.formal.dma import SMALL
from rtl.formal.task import Task
from rtl.prefetch.dma.dma import Dma
from rtl.prefetch.dma.layouts import LinkRequest
from rtl.prefetch.dma.link import Link
from rtl.prefetch.stager.layouts import ActionKind, Command, StagerShape
from staging.stager.limits import StagerLimits
from staging.transfer.limits import TransferLimits

SHAPE = StagerShape(
    limits=StagerLimits(layers=1, experts=2, places=1, spare=1, queue_depth=1, event_experts=1, lanes=1),
    named_experts=1,
)


class AnyDma(wiring.Component):
    """Takes descriptors when it likes, and ends each when it likes, as it likes: the bus's inputs say when and how."""

    def __init__(self, limits: TransferLimits) -> None:
        self.limits = limits
        dma = Dma(limits)
        dma._MustUse__silence = True  # only its signature is used
        super().__init__(dma.signature)
        self.under_way = Signal(range(limits.descriptors + 1))

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += [
            self.descriptors.ready.eq(self.far.arready & (self.under_way != self.limits.descriptors)),
            self.ends.valid.eq(self.staging.bvalid & (self.under_way != 0)),
            self.ends.payload.eq(self.far.rdata),
            self.busy.eq(self.under_way != 0),
        ]
        accepted = self.descriptors.valid & self.descriptors.ready
        m.d.sync += self.under_way.eq(self.under_way + accepted - (self.ends.valid & self.ends.ready))
        return m


class AnyLink(Link):
    """The link over that."""

    dma_part: ClassVar[Any] = AnyDma

    @override
    def elaborate(self, platform: object) -> Module:
        m = super().elaborate(platform)
        same = m.submodules.dma.under_way == self._under_way
        always(m, same, "link: chunks under way are miscounted")
        entries = m.submodules.kept._entries
        for one in entries:
            behind = one.chunks << self.settings.chunk_log2
            less = behind < self.settings.expert_bytes
            always(m, implies(one.valid, less), "link: more of a transfer is kept than there is")
        for later in range(len(entries)):
            for one in entries[:later]:
                both = one.valid & entries[later].valid
                other = one.key.as_value() != entries[later].key.as_value()
                always(m, implies(both, other), "link: of a transfer two things are kept")
        return m


def _stager(m: Module, link: Link) -> None:
    """The stager as the arbiter lets it be seen: one command at a time, answered once; it stops only what moves."""
    request, done, action = link.requests, link.done, link.actions
    asked = request.valid & request.ready
    runs, kind, of_link = Signal(), Signal(Command), Signal()
    codes = {
        LinkRequest.ARRIVE: Command.ARRIVE, LinkRequest.FAIL: Command.FAIL, LinkRequest.PREEMPT: Command.PREEMPT,
        LinkRequest.GRANT: Command.GRANT,
    }  # fmt: skip
    with m.If(done.valid):
        m.d.sync += runs.eq(0)
    with m.If(asked):
        m.d.sync += [runs.eq(1), of_link.eq(1)]
        with m.Switch(request.payload.kind):
            for code, command in codes.items():
                with m.Case(code):
                    m.d.sync += kind.eq(command)
    with m.Elif(link.told):
        m.d.sync += [runs.eq(1), of_link.eq(0)]

    def assume(holds: Value, message: str) -> None:
        always(m, holds, message, claim=Assume)

    others = Cat(done.kind == command for command in codes.values()).any()
    assume(implies(asked | link.told, ~runs), "one command")
    assume(implies(asked & (request.payload.kind == LinkRequest.GRANT), ~link.told), "GRANT is not told")
    assume(implies(asked & (request.payload.kind != LinkRequest.GRANT), link.told), "others are told")
    assume(implies(done.valid, runs), "an answer to nothing")
    assume(implies(done.valid & of_link, done.kind == kind), "the answer to another")
    assume(implies(done.valid & ~of_link, ~others), "an answer to the link")
    assume(implies(action.valid, runs), "an action of no command")
    pauses = action.valid & (action.kind == ActionKind.PAUSE)
    moved = (action.key.layer == link.moving.layer) & (action.key.expert == link.moving.expert)
    assume(implies(pauses, of_link & moved & ((kind == Command.PREEMPT) | (kind == Command.FAIL))), "a pause")
    assume(implies(link.clear, ~link.busy & ~runs), "cleared in the middle")
    assume(link.settings.chunk_log2 >= (SMALL.data_bytes - 1).bit_length(), "chunks")
    assume(link.settings.expert_bytes != 0, "an expert has bytes")
    always_kept(m, "settings", link.settings.as_value(), where=~link.clear, claim=Assume)
    _told(m, link)


def _told(m: Module, link: Link) -> None:
    """ARRIVE only where every chunk since the service began is there, FAIL only where one is not."""
    request, done = link.requests, link.done
    bad = Signal()
    with m.If(done.valid):
        m.d.sync += bad.eq(0)
    with m.Elif(link.errors.as_value().any()):
        m.d.sync += bad.eq(1)
    kind = request.payload.kind
    fails = kind == LinkRequest.FAIL
    says = request.valid & (kind != LinkRequest.GRANT)
    always(m, implies(says, fails == link._failed), "link: a failed transfer is said to have gone well, or the reverse")


TASKS = (
    Task(
        name="link",
        what="the link: one ARRIVE or FAIL a service, the right one, and PREEMPT only of what moves, when all that was "
        "asked for is over",
        make=lambda: AnyLink(SMALL, SHAPE),
        assumptions=_stager,
        given=(
            "kept chunks: no room, or it is there already",
            "link: another command ended while GRANT was asked",
        ),
        depth=10,  # the first chunk is asked for in the eighth cycle after the question
        quick=False,
    ),
)
