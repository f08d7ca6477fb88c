"""Reads of far memory: transfers of beats become AXI4 bursts, each with a descriptor for whoever takes its beats."""

from amaranth.hdl import Module, Mux, Shape, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.text_traffic import PAGE_BEATS
from rtl.checks import always_within
from rtl.prefetch.text.layouts import BEAT_SHIFT

PAGE_BITS = (PAGE_BEATS - 1).bit_length()


def transfer_layout(address_bits: int, beats_bits: int, tag: data.StructLayout) -> data.StructLayout:
    """Beats that are read together: the first one's number, how many, and what they are."""
    return data.StructLayout({"address": unsigned(address_bits), "beats": unsigned(beats_bits), "tag": tag})


def burst_layout(tag: data.StructLayout) -> data.StructLayout:
    """A burst that is under way: the tag of its transfer, and its beats less one."""
    return data.StructLayout({"tag": tag, "length": unsigned(PAGE_BITS)})


class BurstMaker(wiring.Component):
    """Splits transfers at multiples of 4 KiB, and asks for a burst a cycle while one of ``depth`` is free.

    A transfer that is accepted in cycle t is first asked for in t + 1; one of a single burst can follow another each
    cycle. ``under_way`` gives the bursts in the order of their beats; ``idle``: nothing is to be asked for, or under
    way.
    """

    def __init__(self, address_bits: int, beats_bits: int, tag: data.StructLayout, depth: int) -> None:
        self.tag = tag
        self.depth = depth
        super().__init__(
            {
                "transfers": In(stream.Signature(transfer_layout(address_bits, beats_bits, tag))),
                "araddr": Out(address_bits + BEAT_SHIFT),
                "arlen": Out(8),
                "arvalid": Out(1),
                "arready": In(1),
                "under_way": Out(stream.Signature(burst_layout(tag))),
                "idle": Out(1),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        layout = burst_layout(self.tag)
        m.submodules.fifo = fifo = SyncFIFO(width=Shape.cast(layout).width, depth=self.depth)
        left = Signal(self.transfers.payload.beats.shape())
        address = Signal(self.transfers.payload.address.shape())
        busy = Signal()
        tag = Signal(self.tag)
        room, length = Signal(range(PAGE_BEATS + 1)), Signal(range(PAGE_BEATS + 1))
        over, asked = Signal(), Signal()
        burst = Signal(layout)
        m.d.comb += [
            room.eq(PAGE_BEATS - address[:PAGE_BITS]),
            over.eq(left <= room),
            length.eq(Mux(over, left, room)),
            self.araddr.eq(address << BEAT_SHIFT),
            self.arlen.eq(length - 1),
            self.arvalid.eq(busy & fifo.w_rdy),
            asked.eq(self.arvalid & self.arready),
            burst.tag.eq(tag),
            burst.length.eq(length - 1),
            fifo.w_data.eq(burst),
            fifo.w_en.eq(asked),
            self.transfers.ready.eq(~busy | (asked & over)),
            self.under_way.payload.eq(fifo.r_data),
            self.under_way.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.under_way.ready),
            self.idle.eq(~busy & ~fifo.r_rdy),
        ]
        with m.If(asked):
            m.d.sync += [address.eq(address + length), left.eq(left - length), busy.eq(~over)]
        with m.If(self.transfers.valid & self.transfers.ready):
            m.d.sync += [
                busy.eq(1),
                address.eq(self.transfers.payload.address),
                left.eq(self.transfers.payload.beats),
                tag.eq(self.transfers.payload.tag),
            ]
        always_within(m, fifo.level, 0, self.depth, "text: more bursts are under way than there is room for")
        return m
