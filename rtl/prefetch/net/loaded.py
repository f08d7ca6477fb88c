"""What is loaded into a head besides its memories of rows and answers: settings, and the table of layers."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory as Words
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.limits import NetLimits
from predictor.row_network.program import Memory
from rtl.prefetch.net.layouts import layer_layout, settings_layout
from rtl.prefetch.net.scores.layouts import counting, load_layout


class LoadedHead(wiring.Component):
    """Settings of a head, and its table of layers, of which one is read in every clock in which ``read`` is set.

    Members:
        found: what was read, from the next clock on.
    """

    def __init__(self, limits: NetLimits, head: int) -> None:
        self.limits, self._head = limits, head
        super().__init__(
            {
                "load": In(load_layout(limits)),
                "settings": Out(settings_layout()),
                "read": In(1),
                "layer": In(counting(limits.layers)),
                "found": Out(layer_layout(limits)),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        limits = self.limits
        m.submodules.table = table = Words(shape=layer_layout(limits), depth=limits.layers, init=[])
        read, write = table.read_port(), table.write_port()
        mine = Signal()
        m.d.comb += [
            mine.eq(self.load.valid & (self.load.head == self._head)),
            write.en.eq(mine & (self.load.memory == Memory.LAYERS)),
            write.addr.eq(self.load.address),
            write.data.eq(self.load.data),
            read.en.eq(self.read),
            read.addr.eq(self.layer),
            self.found.eq(read.data),
        ]
        with m.If(mine & (self.load.memory == Memory.SETTINGS)):
            m.d.sync += self.settings.eq(self.load.data)
        return m
