"""What reads and writes the far memory of the net: the memory of the text, and the loader, behind one port."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from typing_extensions import override

from predictor.row_network.limits import NetLimits
from predictor.row_network.text_traffic import TextLimits
from rtl.bus.axi4 import Axi4Signature, always_read_manager, always_read_subordinate, always_write_subordinate
from rtl.prefetch.net.scores.layouts import HEADS, load_layout
from rtl.prefetch.text.layouts import (
    BEAT_BITS,
    beat_address_bits,
    item_layout,
    text_event_layout,
    text_settings_layout,
)
from rtl.prefetch.text.loader import ImageLoader, LoadError, shape_layout
from rtl.prefetch.text.unit import TextUnit


class TextMemory(wiring.Component):
    """A `TextUnit` and an `ImageLoader`, whose members it has; they never read at once.

    ``load_start`` while the unit is ``busy`` with tokens is refused (`LoadError.BUSY`). While ``loading``, no event may
    be given.
    """

    def __init__(self, limits: TextLimits, net: NetLimits) -> None:
        self.limits, self.net = limits, net
        super().__init__(
            {
                "settings": In(text_settings_layout(limits)),
                "shape": In(shape_layout()),
                "forget": In(1),
                "events": In(stream.Signature(text_event_layout(limits))),
                "items": Out(stream.Signature(item_layout(limits))),
                "load_start": In(1),
                "load_address": In(beat_address_bits(limits)),
                "load": Out(load_layout(net)),
                "loading": Out(1),
                "load_done": Out(1),
                "load_error": Out(LoadError),
                "loaded": Out(HEADS),
                "memory": Out(Axi4Signature(BEAT_BITS, limits.address_bits)),
                "busy": Out(1),
                "late": Out(1),
                "read_failed": Out(1),
                "write_failed": Out(1),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.unit = unit = TextUnit(self.limits)
        m.submodules.loader = loader = ImageLoader(self.limits, self.net)
        connect(m, flipped(self.events), unit.events)
        connect(m, unit.items, flipped(self.items))
        m.d.comb += [
            unit.settings.eq(self.settings),
            unit.forget.eq(self.forget),
            loader.settings.eq(self.settings),
            loader.shape.eq(self.shape),
            loader.start.eq(self.load_start),
            loader.refused.eq(unit.busy),
            loader.address.eq(self.load_address),
            self.load.eq(loader.load),
            self.loading.eq(loader.busy),
            self.load_done.eq(loader.done),
            self.load_error.eq(loader.error),
            self.loaded.eq(loader.loaded),
            self.busy.eq(unit.busy),
            self.late.eq(unit.late),
            self.read_failed.eq(unit.read_failed),
            self.write_failed.eq(unit.write_failed),
        ]
        reads = loader.memory.signature.members
        for name, member in self.memory.signature.members.items():
            port, of_unit = getattr(self.memory, name), getattr(unit.memory, name)
            if member.flow == In:
                m.d.comb += of_unit.eq(port)
                if name in reads:
                    m.d.comb += getattr(loader.memory, name).eq(port)
            else:
                m.d.comb += port.eq(of_unit)
                if name in reads:
                    with m.If(loader.busy):
                        m.d.comb += port.eq(getattr(loader.memory, name))
        for name in ("rvalid", "arready"):
            with m.If(loader.busy):
                m.d.comb += getattr(unit.memory, name).eq(0)
            with m.Else():
                m.d.comb += getattr(loader.memory, name).eq(0)
        always_read_manager(m, "text_port", self.memory)
        always_read_subordinate(m, "text_port", self.memory, outstanding=self.limits.reads, last=False)
        always_write_subordinate(m, "text_port", self.memory, outstanding=self.limits.writes)
        return m
