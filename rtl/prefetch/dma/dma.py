"""The DMA: descriptors in, bytes from the far memory to the staging memory, how each ended out.

::

    descriptors ─┬─► Legaliser ─► ReadManager ─► AR, R ─► Landing ─► Realigner ─► WriteManager ─► AW, W, B
                 └─► (queues) ─► Legaliser ───────────────────────────────────────►    │
    ends ◄───────────────────────────────────────────────────────────────────────────┘

Several descriptors are under way at once, in order. The twin is ``staging.transfer``.
"""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out, connect, flipped
from typing_extensions import override

from rtl.bus.axi4 import Axi4ReadSignature, Axi4WriteSignature
from rtl.checks import always, always_stable, always_within, implies
from rtl.prefetch.dma.landing import Landing
from rtl.prefetch.dma.layouts import (
    ERROR_BITS,
    SHARE_BITS,
    SILENCE_BITS,
    descriptor_layout,
    record_layout,
    run_layout,
)
from rtl.prefetch.dma.legaliser import Legaliser, run_of
from rtl.prefetch.dma.read_manager import ReadManager
from rtl.prefetch.dma.realigner import Realigner
from rtl.prefetch.dma.write_manager import WriteManager
from staging.transfer.limits import FULL_SHARE, TransferError, TransferLimits


class Dma(wiring.Component):
    """See the module's description.

    ``descriptors.ready`` does not depend on what is offered. It comes no sooner than the cycle in which the last burst
    of the descriptor before is asked for, and only while another burst might be: whoever decides late can wait for it.
    ``ends`` holds a ``TransferError`` for each descriptor, in their order; all that was written before is then
    answered. An illegal descriptor is looked at alone, when all before it have ended.

    ``outstanding``, ``share`` and ``silence`` are ``staging.transfer.limits.TransferSettings``; they may change at any
    time. Of the others, each is 1 for a cycle: ``moved``: a beat came; ``waited``: none came though some are asked for;
    ``asked``: a burst was; ``stray``: the bus answered what nobody asked.
    """

    def __init__(self, limits: TransferLimits) -> None:
        self.limits = limits
        super().__init__(
            {
                "descriptors": In(stream.Signature(descriptor_layout(limits))),
                "ends": Out(stream.Signature(ERROR_BITS)),
                "far": Out(Axi4ReadSignature(8 * limits.data_bytes, limits.address_bits)),
                "staging": Out(Axi4WriteSignature(8 * limits.data_bytes, limits.address_bits)),
                "outstanding": In(range(limits.outstanding + 1), init=limits.outstanding),
                "share": In(SHARE_BITS, init=FULL_SHARE),
                "silence": In(SILENCE_BITS, init=4096),
                "busy": Out(1),
                "moved": Out(1),
                "waited": Out(1),
                "asked": Out(1),
                "stray": Out(1),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        limits, descriptor = self.limits, self.descriptors.payload
        m.submodules.sources = sources = Legaliser(limits)
        m.submodules.destinations = destinations = Legaliser(limits)
        m.submodules.reader = reader = ReadManager(limits)
        m.submodules.landing = landing = Landing(limits)
        m.submodules.realigner = realigner = Realigner(limits)
        m.submodules.writer = writer = WriteManager(limits)
        m.submodules.runs = runs = SyncFIFO(width=run_layout(limits).size, depth=limits.descriptors)
        m.submodules.records = records = SyncFIFO(width=record_layout(limits).size, depth=limits.descriptors)
        connect(m, flipped(self.far), reader.bus)
        connect(m, flipped(self.staging), writer.bus)
        connect(m, sources.bursts, reader.bursts)
        connect(m, destinations.bursts, writer.bursts)
        connect(m, realigner.beats, writer.beats)

        # Descriptors under way: the oldest one's number, and what went wrong with each.
        slots = range(max(2, limits.descriptors))
        under_way, complete = Signal(range(limits.descriptors + 1)), Signal(range(limits.descriptors + 1))
        oldest = Signal(slots)
        errors = Array(Signal(ERROR_BITS, name=f"error{n}") for n in slots)
        illegal = Signal()
        space = 1 << limits.address_bits
        beyond = (descriptor.source + descriptor.bytes > space) | (descriptor.destination + descriptor.bytes > space)
        bad = (descriptor.bytes == 0) | beyond
        accepted, begins, begun, ended = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            self.descriptors.ready.eq(sources.runs.ready & reader.room & (under_way != limits.descriptors) & ~illegal),
            accepted.eq(self.descriptors.valid & self.descriptors.ready),
            begins.eq(accepted & ~bad),
            sources.runs.valid.eq(begins),
            sources.runs.payload.as_value().eq(run_of(limits, descriptor.source, descriptor.bytes)),
        ]
        # Whether a descriptor is accepted is known late in a cycle: it is queued in the next, before it has a beat.
        run, record = Signal(run_layout(limits)), Signal(record_layout(limits))
        m.d.comb += [
            runs.w_en.eq(begun),
            records.w_en.eq(begun),
            runs.w_data.eq(run),
            records.w_data.eq(record),
        ]
        m.d.sync += [
            begun.eq(begins),
            run.as_value().eq(run_of(limits, descriptor.destination, descriptor.bytes)),
            record.source.eq(descriptor.source),
            record.destination.eq(descriptor.destination),
            record.bytes.eq(descriptor.bytes),
        ]
        for queue, target in ((runs, destinations.runs), (records, realigner.records)):
            m.d.comb += [
                target.valid.eq(queue.r_rdy),
                target.payload.as_value().eq(queue.r_data),
                queue.r_en.eq(target.ready),
            ]
        m.d.comb += [
            reader.outstanding.eq(self.outstanding),
            reader.share.eq(self.share),
            reader.silence.eq(self.silence),
            landing.reserve.eq(reader.reserve),
            reader.free.eq(landing.free),
            reader.coming.eq(landing.coming),
            landing.write.eq(reader.land),
            landing.data.eq(self.far.rdata),
            landing.skip.eq(reader.skip),
            realigner.landed.eq(landing.landed),
            landing.take.eq(realigner.take),
            realigner.taken.eq(landing.taken),
        ]

        # Ends.
        ends_illegal = illegal & (under_way == 0)
        m.d.comb += [
            self.ends.valid.eq((complete != 0) | ends_illegal),
            self.ends.payload.eq(Mux(ends_illegal, TransferError.DESCRIPTOR, errors[oldest])),
            ended.eq(self.ends.valid & self.ends.ready & ~ends_illegal),
            self.busy.eq((under_way != 0) | illegal),
        ]
        m.d.sync += [
            under_way.eq(Mux(begins, under_way + 1 - ended, under_way - ended)),
            complete.eq(complete + writer.finished - ended),
            illegal.eq((illegal & ~(ends_illegal & self.ends.ready)) | (accepted & bad)),
        ]
        with m.If(ended):
            m.d.sync += oldest.eq(Mux(oldest == limits.descriptors - 1, 0, oldest + 1))
        for number, error in enumerate(errors):
            with m.If(error == TransferError.NONE):
                with m.If(reader.error.valid & (reader.error.slot == number)):
                    m.d.sync += error.eq(reader.error.code)
                with m.Elif(writer.error.valid & (writer.error.slot == number)):
                    m.d.sync += error.eq(writer.error.code)
            with m.If(ended & (oldest == number)):
                m.d.sync += error.eq(TransferError.NONE)
        m.d.comb += [
            self.moved.eq(reader.land),
            self.waited.eq(reader.waiting & ~self.far.rvalid),
            self.asked.eq(self.far.arvalid & self.far.arready),
            self.stray.eq(reader.stray | writer.stray),
        ]

        always_stable(m, "ends", valid=self.ends.valid, ready=self.ends.ready, payload=self.ends.payload)
        always(m, complete <= under_way, "dma: a descriptor ends that is not under way")
        always_within(m, under_way, 0, limits.descriptors, "dma: more descriptors are under way than there are numbers")
        queued = (runs.level + begun <= under_way) & (records.level + begun <= under_way)
        always(m, queued, "dma: a descriptor is queued that is not under way")
        always(m, implies(begun, runs.w_rdy & records.w_rdy), "dma: a queue of descriptors overflows")
        return m
