"""The last choice of every gate that was recorded, of each slot's sequence."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.limits import NetLimits
from rtl.checks import always_within
from rtl.prefetch.net.layouts import experts_layout
from rtl.prefetch.net.scores.layouts import counting
from rtl.product import product


class LastChoices(wiring.Component):
    """In the clock of ``gate``, the choice of ``layer`` in ``slot`` is looked up, and, where ``known``, becomes
    ``experts``. In the clock after and until the next one, ``held`` says whether there is any, and ``last`` is it.

    ``clear`` forgets the choices of ``slot``.
    """

    def __init__(self, limits: NetLimits) -> None:
        self.limits = limits
        super().__init__(
            {
                "clear": In(1),
                "gate": In(1),
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
        place, was_known = Signal(range(limits.slots * limits.layers)), Signal()
        told = Signal(experts_layout(limits))
        m.d.comb += [
            place.eq(product(self.slot, limits.layers) + self.layer),
            read.en.eq(self.gate & ~self.known),
            read.addr.eq(place),
            write.en.eq(self.gate & self.known),
            write.addr.eq(place),
            write.data.eq(self.experts),
            self.last.eq(Mux(was_known, told.as_value(), read.data.as_value())),
        ]
        for slot, bits in enumerate(held):
            with m.If(self.slot == slot):
                with m.If(self.clear):
                    m.d.sync += bits.eq(0)
                with m.Elif(self.gate):
                    m.d.sync += self.held.eq(self.known | bits.bit_select(self.layer, 1))
                    with m.If(self.known):
                        m.d.sync += bits.bit_select(self.layer, 1).eq(1)
        with m.If(self.gate):
            m.d.sync += [was_known.eq(self.known), told.eq(self.experts)]
        always_within(m, self.layer, 0, limits.layers - 1, "choices: a layer that there is not", where=self.gate)
        return m
