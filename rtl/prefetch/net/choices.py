"""The last choice of every gate that was recorded, of each slot's sequence."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.limits import NetLimits
from rtl.checks import always, always_within, implies
from rtl.prefetch.net.layouts import experts_layout
from rtl.prefetch.net.scores.layouts import counting
from rtl.product import product


class LastChoices(wiring.Component):
    """In the clock of ``looks``, the choice of ``layer`` in ``slot`` is looked up. From the clock after until the next
    look, ``held`` says whether there is any, and ``last`` is it; where ``known``, it is ``experts``.

    ``gate``, in such a clock: where ``known``, the choice becomes ``experts``. ``clear``: those of ``slot`` are
    forgotten. Either is done a clock later, as whoever tells it finds out late.
    """

    def __init__(self, limits: NetLimits) -> None:
        self.limits = limits
        super().__init__(
            {
                "looks": In(1),
                "gate": In(1),
                "clear": In(1),
                "slot": In(counting(limits.slots)),
                "layer": In(counting(limits.layers)),
                "known": In(1),
                "experts": In(experts_layout(limits)),
                "held": Out(1),
                "last": Out(experts_layout(limits)),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        limits = self.limits
        m.submodules.memory = memory = Memory(shape=experts_layout(limits), depth=limits.slots * limits.layers, init=[])
        read, write = memory.read_port(), memory.write_port()
        held = [Signal(limits.layers, name=f"held{slot}") for slot in range(limits.slots)]
        place = Signal(range(limits.slots * limits.layers))
        looked = Signal(
            data.StructLayout(
                {
                    "slot": self.slot.shape(),
                    "layer": self.layer.shape(),
                    "place": place.shape(),
                    "known": 1,
                    "experts": experts_layout(limits),
                }
            )
        )
        becomes, forgets = Signal(), Signal()
        m.d.comb += [
            place.eq(product(self.slot, limits.layers) + self.layer),
            read.en.eq(self.looks & ~self.known),
            read.addr.eq(place),
            write.en.eq(becomes),
            write.addr.eq(looked.place),
            write.data.eq(looked.experts),
            self.last.eq(Mux(looked.known, looked.experts.as_value(), read.data.as_value())),
        ]
        with m.If(self.looks):
            m.d.sync += [
                looked.slot.eq(self.slot),
                looked.layer.eq(self.layer),
                looked.place.eq(place),
                looked.known.eq(self.known),
                looked.experts.eq(self.experts),
            ]
        m.d.sync += [becomes.eq(self.gate & self.known), forgets.eq(self.clear)]
        for slot, bits in enumerate(held):
            with m.If(self.looks & (self.slot == slot)):
                m.d.sync += self.held.eq(self.known | bits.bit_select(self.layer, 1))
            with m.If(looked.slot == slot):
                with m.If(forgets):
                    m.d.sync += bits.eq(0)
                with m.Elif(becomes):
                    m.d.sync += bits.bit_select(looked.layer, 1).eq(1)
        always_within(m, self.layer, 0, limits.layers - 1, "choices: a layer that there is not", where=self.gate)
        always(m, implies(self.gate | self.clear, self.looks), "choices: told without a look")
        always(m, implies(self.looks, ~(becomes | forgets)), "choices: a look before what was told is done")
        return m
