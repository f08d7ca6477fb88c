"""The link: it asks the stager what to move, moves it chunk by chunk, and says how it went.

While it has nothing to move and the stager was told something since it last had nothing to give, the link asks: GRANT.
A transfer that starts or goes on is a *service*: the chunks of the expert, from the first that is not there yet.
Before a chunk other than the first of a service is asked for, the link looks whether a demand waits while no gate
waits for what moves; then it asks for no more, and tells PREEMPT when all that is under way is there: the transfer goes
on, as a new service, or the stager has paused or dropped it. A paused transfer keeps its chunks (``kept``), if it has a
place. When the last chunk is written and answered: ARRIVE. If a chunk fails, the link asks for no more, and tells FAIL
when the rest is over; nothing is kept of it.

**Addresses.** Expert *key* = layer · EXPERTS + expert lies at ``expert_base + key · expert_stride``, place *p* at
``staging_base + p · staging_stride``; what has no place goes to the place behind the last. The two products are made
in series, a bit of the key and of the place a cycle: the first chunk is asked for ``product_bits + 2`` cycles after the
first cycle in which the stager is free again after the GRANT.
"""

from typing import Any, ClassVar

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from typing_extensions import override

from rtl.bus.axi4 import Axi4ReadSignature, Axi4WriteSignature
from rtl.checks import always, always_stable, always_within, exactly_one, implies
from rtl.prefetch.dma.dma import Dma
from rtl.prefetch.dma.kept import KeptChunks
from rtl.prefetch.dma.layouts import (
    LinkRequest,
    link_request_layout,
    link_settings_layout,
    moving_layout,
    transfer_errors_layout,
)
from rtl.prefetch.stager.layouts import ActionKind, Command, StagerShape, action_layout, done_layout
from staging.transfer.limits import CHUNK_BITS, LENGTH_BITS, TransferError, TransferLimits


def product_bits(shape: StagerShape) -> int:
    """Cycles of the two products."""
    return max((shape.limits.layers * shape.limits.experts - 1).bit_length(), shape.place_bits, 1)


class Link(wiring.Component):
    """See the module's description.

    ``requests`` are commands for the stager, ready when it takes one; ``done`` and ``actions`` are its answers, and
    ``told`` says that it takes a command other than GRANT. ``demand_waits`` and ``moving_demanded`` are its levels.
    ``moving`` is what moves, from GRANT's answer until ARRIVE or FAIL was taken, and ``chunk`` the next of its chunks.
    ``clear`` forgets what paused transfers have (while not ``busy``). ``written``: so many bytes are there for good in
    this cycle. ``errors``, ``moved``, ``waited``, ``asked`` and ``stray`` are the DMA's, in whose place a proof may put
    another.
    """

    dma_part: ClassVar[Any] = Dma

    def __init__(self, limits: TransferLimits, shape: StagerShape) -> None:
        self.limits, self.shape = limits, shape
        super().__init__(
            {
                "far": Out(Axi4ReadSignature(8 * limits.data_bytes, limits.address_bits)),
                "staging": Out(Axi4WriteSignature(8 * limits.data_bytes, limits.address_bits)),
                "requests": Out(stream.Signature(link_request_layout())),
                "done": In(done_layout(shape)),
                "actions": In(action_layout(shape)),
                "told": In(1),
                "demand_waits": In(1),
                "moving_demanded": In(1),
                "settings": In(link_settings_layout(limits, shape)),
                "clear": In(1),
                "moving": Out(moving_layout(shape)),
                "chunk": Out(CHUNK_BITS + 1),
                "busy": Out(1),
                "written": Out(LENGTH_BITS),
                "errors": Out(transfer_errors_layout()),
                "moved": Out(1),
                "waited": Out(1),
                "asked": Out(1),
                "stray": Out(1),
            }
        )
        self._under_way, self._failed = Signal(range(limits.descriptors + 1)), Signal()

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        limits, shape, settings, moving = self.limits, self.shape, self.settings, self.moving
        m.submodules.dma = dma = self.dma_part(limits)
        m.submodules.kept = kept = KeptChunks(shape)
        connect(m, flipped(self.far), dma.far)
        connect(m, flipped(self.staging), dma.staging)
        bits = product_bits(shape)
        transfer, request = self.done.transfer, self.requests.payload

        placed, resumed = Signal(), Signal()
        key, place = Signal(bits), Signal(bits)  # what is left of them while the products are made
        source, destination = Signal(limits.address_bits), Signal(limits.address_bits)
        source_step, destination_step = Signal(limits.address_bits), Signal(limits.address_bits)
        count = Signal(range(bits + 1))
        chunk = self.chunk
        # Where the first chunk begins, and the next.
        offset, reach = Signal(LENGTH_BITS), Signal(LENGTH_BITS + 1)
        left, unwritten = Signal(LENGTH_BITS), Signal(LENGTH_BITS)  # bytes that are not asked for; not there
        under_way = self._under_way
        failed, told = self._failed, Signal()
        chunk_bytes, written = Signal(LENGTH_BITS), Signal(LENGTH_BITS)
        part, is_last = Signal(LENGTH_BITS), Signal()  # of the chunk that is asked for next
        accepted, ended, bad = Signal(), Signal(), Signal()
        m.d.sync += chunk_bytes.eq(Const(1, LENGTH_BITS) << settings.chunk_log2)
        m.d.comb += [
            written.eq(Mux(unwritten <= chunk_bytes, unwritten, chunk_bytes)),
            dma.descriptors.payload.source.eq(source),
            dma.descriptors.payload.destination.eq(destination),
            dma.descriptors.payload.bytes.eq(part),
            accepted.eq(dma.descriptors.valid & dma.descriptors.ready),
            dma.ends.ready.eq(1),
            ended.eq(dma.ends.valid),
            bad.eq(ended & (dma.ends.payload != TransferError.NONE)),
            dma.outstanding.eq(settings.outstanding),
            dma.share.eq(settings.share),
            dma.silence.eq(settings.silence),
            self.written.eq(Mux(ended & ~bad, written, 0)),
            self.moved.eq(dma.moved),
            self.waited.eq(dma.waited),
            self.asked.eq(dma.asked),
            self.stray.eq(dma.stray),
        ]
        read = (dma.ends.payload == TransferError.READ_SLVERR) | (dma.ends.payload == TransferError.READ_DECERR)
        last = (dma.ends.payload == TransferError.READ_LAST) | (dma.ends.payload == TransferError.READ_SILENCE)
        descriptor = dma.ends.payload == TransferError.DESCRIPTOR
        m.d.comb += [
            self.errors.descriptor.eq(bad & descriptor),
            self.errors.read.eq(bad & read),
            self.errors.last.eq(bad & last),
            self.errors.write.eq(bad & ~(descriptor | read | last)),
        ]
        m.d.sync += under_way.eq(under_way + accepted - ended)
        with m.If(ended):
            m.d.sync += unwritten.eq(unwritten - written)
        with m.If(bad):
            m.d.sync += failed.eq(1)

        # What paused transfers have.
        action = self.actions
        stops = action.valid & (action.kind == ActionKind.PAUSE) & placed
        m.d.comb += [
            kept.clear.eq(self.clear),
            kept.key.eq(action.key),
            kept.forget.eq(action.valid & (action.kind == ActionKind.DROP)),
            kept.kept.eq(Mux(chunk[CHUNK_BITS], (1 << CHUNK_BITS) - 1, chunk)),
        ]

        with m.If(self.told):
            m.d.sync += told.eq(1)
        with m.If(self.clear):
            m.d.sync += told.eq(0)
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.comb += [self.requests.valid.eq(told), request.kind.eq(LinkRequest.GRANT)]
                with m.If(self.requests.valid & self.requests.ready):
                    m.next = "ASKED"
            with m.State("ASKED"), m.If(self.done.valid):
                m.d.sync += [told.eq(transfer.valid), resumed.eq(0), placed.eq(transfer.place != shape.all_places)]
                m.d.sync += [
                    moving.layer.eq(transfer.key.layer),
                    moving.expert.eq(transfer.key.expert),
                    moving.place.eq(transfer.place),
                ]
                m.next = "IDLE"
                with m.If(transfer.valid):
                    m.next = "KEY"
            with m.State("KEY"):  # the stager shows no action in this cycle
                m.d.comb += [
                    kept.key.layer.eq(moving.layer),
                    kept.key.expert.eq(moving.expert),
                    kept.take.eq(~resumed),
                ]
                with m.If(~resumed):
                    m.d.sync += chunk.eq(kept.chunks)
                m.d.sync += [
                    key.eq(moving.layer * settings.experts + moving.expert),
                    place.eq(moving.place),
                    source.eq(settings.expert_base),
                    destination.eq(settings.staging_base),
                    source_step.eq(settings.expert_stride),
                    destination_step.eq(settings.staging_stride),
                    count.eq(bits),
                    failed.eq(0),
                ]
                m.next = "PRODUCTS"
            with m.State("PRODUCTS"):
                m.d.sync += [
                    source.eq(source + Mux(key[0], source_step, 0)),
                    destination.eq(destination + Mux(place[0], destination_step, 0)),
                    source_step.eq(source_step << 1),
                    destination_step.eq(destination_step << 1),
                    key.eq(key >> 1),
                    place.eq(place >> 1),
                    count.eq(count - 1),
                    offset.eq((chunk << settings.chunk_log2)[:LENGTH_BITS]),
                    reach.eq(((chunk + 1) << settings.chunk_log2)[: LENGTH_BITS + 1]),
                ]
                with m.If(count == 1):
                    m.next = "OFFSET"
            with m.State("OFFSET"):
                rest = (settings.expert_bytes - offset)[:LENGTH_BITS]
                m.d.sync += [
                    source.eq(source + offset),
                    destination.eq(destination + offset),
                    left.eq(rest),
                    unwritten.eq(rest),
                    is_last.eq(settings.expert_bytes <= reach),
                    part.eq(Mux(settings.expert_bytes <= reach, rest, chunk_bytes)),
                ]
                m.next = "FIRST CHUNK"
            with m.State("FIRST CHUNK"):
                m.d.comb += dma.descriptors.valid.eq(dma.descriptors.ready)
                with m.If(accepted):
                    m.next = "CHUNKS"
                    with m.If(is_last):
                        m.next = "LAST ASKED"
            with m.State("CHUNKS"):
                stop = self.demand_waits & ~self.moving_demanded
                with m.If(failed | bad):
                    m.next = "LAST ASKED"
                with m.Elif(dma.descriptors.ready & stop):
                    m.next = "STOPPED"
                with m.Else():
                    m.d.comb += dma.descriptors.valid.eq(dma.descriptors.ready)
                    with m.If(accepted & is_last):
                        m.next = "LAST ASKED"
            with m.State("STOPPED"):
                m.d.comb += [
                    self.requests.valid.eq(under_way == 0),
                    request.kind.eq(Mux(failed, LinkRequest.FAIL, LinkRequest.PREEMPT)),
                ]
                with m.If(self.requests.valid & self.requests.ready):
                    m.next = "PREEMPTED"
                    with m.If(failed):
                        m.next = "IDLE"
            with m.State("PREEMPTED"):
                m.d.comb += kept.keep.eq(stops)
                with m.If(self.done.valid):
                    m.d.sync += resumed.eq(1)
                    m.next = "KEY"
                    with m.If(self.done.stopped):
                        m.next = "IDLE"
            with m.State("LAST ASKED"):
                m.d.comb += [
                    self.requests.valid.eq(under_way == 0),
                    request.kind.eq(Mux(failed, LinkRequest.FAIL, LinkRequest.ARRIVE)),
                ]
                with m.If(self.requests.valid & self.requests.ready):
                    m.next = "IDLE"
        with m.If(accepted):  # behind the last chunk, what is left is of no meaning
            following = (left - chunk_bytes)[:LENGTH_BITS]
            ends = left <= (chunk_bytes << 1)
            m.d.sync += [
                source.eq(source + chunk_bytes),
                destination.eq(destination + chunk_bytes),
                left.eq(following),
                is_last.eq(ends),
                part.eq(Mux(ends, following, chunk_bytes)),
                chunk.eq(chunk + 1),
            ]
        m.d.comb += self.busy.eq(~fsm.ongoing("IDLE") | self.requests.valid | dma.busy)

        names = ("IDLE", "ASKED", "KEY", "PRODUCTS", "OFFSET", "FIRST CHUNK", "CHUNKS", "STOPPED", "PREEMPTED",
                 "LAST ASKED")  # fmt: skip
        always(m, exactly_one([fsm.ongoing(name) for name in names]), "link: not in one state")
        always_stable(
            m,
            "link_requests",
            valid=self.requests.valid,
            ready=self.requests.ready,
            payload=Cat(request.as_value()),
        )
        # A service begins with GRANT's answer, and ends with one ARRIVE or FAIL, or with a PREEMPT that stopped it.
        serves, moves = Signal(), Signal()
        m.d.comb += serves.eq(~(fsm.ongoing("IDLE") | fsm.ongoing("ASKED")))
        told_end = self.requests.valid & self.requests.ready & (request.kind != LinkRequest.PREEMPT)
        with m.If(fsm.ongoing("ASKED") & self.done.valid):
            m.d.sync += moves.eq(transfer.valid)
        with m.Elif((told_end & serves) | (fsm.ongoing("PREEMPTED") & self.done.valid & self.done.stopped)):
            m.d.sync += moves.eq(0)
        always(m, serves == moves, "link: it serves what does not move")
        says = self.requests.valid & (request.kind != LinkRequest.GRANT)
        always(m, implies(says, moves & (under_way == 0)), "link: it tells of a transfer before all of it is over")
        always(m, implies(self.requests.valid & ~says, ~moves), "link: it asks for more while something moves")
        # What is there already is less than the expert, and so are the chunks that a pause keeps.
        behind = Signal(CHUNK_BITS + 1 + 31)
        m.d.comb += behind.eq(chunk << settings.chunk_log2)
        moving_on = Cat(fsm.ongoing(name) for name in ("FIRST CHUNK", "CHUNKS", "STOPPED", "PREEMPTED")).any()
        rest = moving_on | fsm.ongoing("PRODUCTS") | fsm.ongoing("OFFSET") | (fsm.ongoing("KEY") & resumed)
        always(m, implies(rest, behind < settings.expert_bytes), "link: it goes on behind the expert's end")
        fits = (left != 0) & (behind + left <= settings.expert_bytes)
        always(m, implies(moving_on, fits), "link: chunks and what is left are more than the expert")
        is_right = (is_last == (left <= chunk_bytes)) & (part == Mux(is_last, left, chunk_bytes))
        always(m, implies(moving_on, is_right), "link: the next chunk is not what is left, or too long")
        always(m, implies(serves, chunk_bytes == 1 << settings.chunk_log2), "link: chunks of another size")
        quiet = ~(fsm.ongoing("CHUNKS") | fsm.ongoing("STOPPED") | fsm.ongoing("LAST ASKED"))
        always(m, implies(quiet, under_way == 0), "link: chunks are under way of nothing")
        always_within(m, under_way, 0, limits.descriptors, "link: more chunks are under way than the DMA takes")
        always(m, implies(fsm.ongoing("KEY"), ~action.valid), "link: the stager acts in a cycle in which it was free")
        moves = implies(fsm.ongoing("ASKED") & self.done.valid, self.done.kind == Command.GRANT)
        always(m, moves, "link: another command ended while GRANT was asked")
        always(m, implies(accepted, left != 0), "link: a chunk of no bytes")
        always_within(m, settings.chunk_log2, (limits.data_bytes - 1).bit_length(), 31, "link: chunk_log2")
        return m
