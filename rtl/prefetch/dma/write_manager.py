"""The write manager: beats and bursts to AW, W and B.

A burst's address is offered together with its first beat, so that no burst is begun before its data begin to be there.
"""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from rtl.bus.axi4 import Axi4WriteSignature, always_write_manager
from rtl.bus.axi_lite import Response
from rtl.checks import always, always_within, implies
from rtl.prefetch.dma.layouts import beat_layout, burst_layout, error_layout
from staging.transfer.limits import TransferError, TransferLimits


class WriteManager(wiring.Component):
    """See the module's description.

    ``finished``: the last burst of a descriptor is answered. ``error`` names the descriptor by number, as the read
    manager does. ``stray``: an answer came to a burst that is not complete, or to none; it is ignored. A beat that is
    offered is on W in the same cycle, if a burst is there for it.
    """

    def __init__(self, limits: TransferLimits) -> None:
        self.limits = limits
        super().__init__(
            {
                "bursts": In(stream.Signature(burst_layout(limits))),
                "beats": In(stream.Signature(beat_layout(limits))),
                "bus": Out(Axi4WriteSignature(8 * limits.data_bytes, limits.address_bits)),
                "finished": Out(1),
                "error": Out(error_layout(limits)),
                "stray": Out(1),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        limits, bus, burst = self.limits, self.bus, self.bursts.payload
        m.submodules.unanswered = unanswered = SyncFIFO(width=1, depth=limits.write_outstanding)
        held = Signal(burst_layout(limits))
        is_open, addressed, begun, filled = Signal(), Signal(), Signal(), Signal()
        beat, slot = Signal(8), Signal(range(max(2, limits.descriptors)))
        last_beat, complete, wrote = Signal(), Signal(), Signal()
        m.d.comb += [
            bus.awvalid.eq(is_open & ~addressed & (begun | self.beats.valid)),
            bus.awaddr.eq(held.address),
            bus.awlen.eq(held.length),
            bus.wvalid.eq(is_open & ~filled & self.beats.valid),
            bus.wdata.eq(self.beats.payload.data),
            bus.wstrb.eq(self.beats.payload.strobe),
            bus.wlast.eq(beat == held.length),
            self.beats.ready.eq(is_open & ~filled & bus.wready),
            wrote.eq(bus.wvalid & bus.wready),
            last_beat.eq(wrote & bus.wlast),
            complete.eq(is_open & (filled | last_beat) & (addressed | (bus.awvalid & bus.awready))),
            unanswered.w_en.eq(complete),
            unanswered.w_data.eq(held.last),
            # The answer of what is complete now comes later, so that the burst behind it counts, too.
            self.bursts.ready.eq(Mux(is_open, complete & (unanswered.level + 1 < limits.write_outstanding),
                                     unanswered.level < limits.write_outstanding)),
        ]  # fmt: skip
        with m.If(bus.awvalid):
            m.d.sync += [begun.eq(1), addressed.eq(addressed | bus.awready)]
        with m.If(wrote):
            m.d.sync += [beat.eq(beat + 1), filled.eq(bus.wlast)]
        with m.If(complete):
            m.d.sync += is_open.eq(0)
        with m.If(self.bursts.valid & self.bursts.ready):
            m.d.sync += [is_open.eq(1), held.eq(burst), beat.eq(0), addressed.eq(0), begun.eq(0), filled.eq(0)]

        answered = Signal()
        refused = Value.cast(bus.bresp)[1]
        m.d.comb += [
            bus.bready.eq(1),
            answered.eq(bus.bvalid & unanswered.r_rdy),
            unanswered.r_en.eq(answered),
            self.stray.eq(bus.bvalid & ~unanswered.r_rdy),
            self.finished.eq(answered & unanswered.r_data),
            self.error.valid.eq(answered & refused),
            self.error.slot.eq(slot),
            self.error.code.eq(
                Mux(Value.cast(bus.bresp) == Response.DECERR, TransferError.WRITE_DECERR, TransferError.WRITE_SLVERR)
            ),
        ]
        with m.If(self.finished):
            m.d.sync += slot.eq(Mux(slot == limits.descriptors - 1, 0, slot + 1))

        offered = always_write_manager(m, "write", bus, outstanding=1)
        lacking = is_open & ~filled
        always(m, offered.count == (lacking & begun), "write manager: a burst is offered that is not open, or twice")
        right = (offered.length == held.length) & (offered.beat == beat)
        always(m, implies(offered.count.any(), right), "write manager: beats are lost, or there twice")
        always(m, implies(~offered.count.any(), offered.beat == 0), "write manager: beats of no burst")
        always(m, implies(lacking & ~begun, beat == 0), "write manager: beats before their address")
        always(m, implies(addressed | filled, begun), "write manager: what was not offered is taken")
        always(m, implies(is_open & ~filled, beat <= held.length), "write manager: beats beyond a burst's end")
        offset = limits.offset_bits
        place = held.address[offset:][: (limits.burst_beats - 1).bit_length()]
        legal = (held.address[:offset] == 0) & (place + held.length < limits.burst_beats)
        always(m, implies(is_open, legal), "write manager: a burst crosses its boundary")
        always(m, implies(complete, unanswered.w_rdy), "write manager: too many bursts are under way")
        always_within(m, unanswered.level + is_open, 0, limits.write_outstanding, "write manager: too many are begun")
        return m
