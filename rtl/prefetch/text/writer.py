"""Writes of the memory of the text: beats become AXI4 write bursts, whose responses are counted for each slot."""

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.integers import BEAT_BYTES
from predictor.row_network.text_traffic import TextLimits
from rtl.bus.axi4 import Axi4WriteSignature
from rtl.bus.axi_lite import Response
from rtl.checks import always, implies
from rtl.prefetch.text.bursts import PAGE_BITS
from rtl.prefetch.text.layouts import BEAT_BITS, BEAT_SHIFT, beat_address_bits, slot_bits


def write_layout(limits: TextLimits) -> data.StructLayout:
    """A beat to be written. ``first``: it begins a burst at ``address`` (a beat's number) of ``length`` + 1 beats."""
    return data.StructLayout(
        {
            "slot": unsigned(slot_bits(limits)),
            "first": 1,
            "last": 1,
            "address": unsigned(beat_address_bits(limits)),
            "length": unsigned(PAGE_BITS),
            "data": unsigned(BEAT_BITS),
            "strobe": unsigned(BEAT_BYTES),
        }
    )


class Writer(wiring.Component):
    """A beat a cycle; address and data are offered from the cycle after it was accepted on.

    ``pending``, a bit a slot: some burst has not been answered. ``failed``, a bit a slot: one is answered with an error
    in this cycle; from the next on ``pending`` knows. ``slots`` has the slot of every burst that is not answered.
    """

    def __init__(self, limits: TextLimits) -> None:
        self.limits = limits
        self.slots = SyncFIFO(width=slot_bits(limits), depth=limits.writes)
        super().__init__(
            {
                "beats": In(stream.Signature(write_layout(limits))),
                "bus": Out(Axi4WriteSignature(BEAT_BITS, limits.address_bits)),
                "pending": Out(limits.slots),
                "failed": Out(limits.slots),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus, beat = self.bus, self.beats.payload
        m.submodules.slots = slots = self.slots
        accepted, answered = Signal(), Signal()
        m.d.comb += [
            self.beats.ready.eq(
                (~bus.wvalid | bus.wready) & (~beat.first | ((~bus.awvalid | bus.awready) & slots.w_rdy))
            ),
            accepted.eq(self.beats.valid & self.beats.ready),
            slots.w_data.eq(beat.slot),
            slots.w_en.eq(accepted & beat.first),
            bus.bready.eq(1),
            answered.eq(bus.bvalid),
            slots.r_en.eq(answered),
        ]
        with m.If(bus.awready):
            m.d.sync += bus.awvalid.eq(0)
        with m.If(bus.wready):
            m.d.sync += bus.wvalid.eq(0)
        with m.If(accepted):
            m.d.sync += [
                bus.wvalid.eq(1),
                bus.wdata.eq(beat.data),
                bus.wstrb.eq(beat.strobe),
                bus.wlast.eq(beat.last),
            ]
            with m.If(beat.first):
                m.d.sync += [
                    bus.awvalid.eq(1),
                    bus.awaddr.eq(beat.address << BEAT_SHIFT),
                    bus.awlen.eq(beat.length),
                ]
        for slot in range(self.limits.slots):
            count = Signal(range(self.limits.writes + 1), name=f"bursts{slot}")
            begins, ends = Signal(name=f"begins{slot}"), Signal(name=f"ends{slot}")
            m.d.comb += [
                begins.eq(slots.w_en & (beat.slot == slot)),
                ends.eq(answered & (slots.r_data == slot)),
                self.pending[slot].eq(count != 0),
                self.failed[slot].eq(ends & (bus.bresp != Response.OKAY)),
            ]
            m.d.sync += count.eq(count + begins - ends)
        always(m, implies(answered, slots.r_rdy), "text: a write is answered that was not asked for")
        return m
