"""Performance counters: one for each member of ``EngineCounter``."""

from collections.abc import Mapping

from amaranth.hdl import Module, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.st_moe.events import EngineCounter
from rtl.prefetch.address_map import COUNTER_BITS


class Counters(wiring.Component):
    """Every counter grows by its ``increments`` field each cycle and wraps at ``COUNTER_BITS`` bits.

    Args:
        widths: bits of an increment, for those counters that grow by more than one.
    """

    def __init__(self, widths: Mapping[EngineCounter, int]) -> None:
        super().__init__(
            {
                "clear": In(1),
                "increments": In(
                    data.StructLayout({counter.name.lower(): widths.get(counter, 1) for counter in EngineCounter})
                ),
                "values": Out(data.ArrayLayout(unsigned(COUNTER_BITS), len(EngineCounter))),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        for counter in EngineCounter:
            value = self.values[counter.value]
            m.d.sync += value.eq(value + self.increments[counter.name.lower()])
            with m.If(self.clear):
                m.d.sync += value.eq(0)
        return m
