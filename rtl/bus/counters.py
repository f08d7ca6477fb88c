"""Performance counters: one for each member of an enumeration."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from amaranth.hdl import Module, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from rtl.bus.register_map import COUNTER_BITS


class Counters(wiring.Component):
    """Every counter grows by its ``increments`` field each cycle and wraps at ``COUNTER_BITS`` bits.

    Args:
        events: what is counted: members numbered from 0 on, whose names in lower case are those of the fields.
        widths: bits of an increment, for those counters that grow by more than one.
    """

    def __init__(self, events: type[IntEnum], widths: Mapping[Any, int] | None = None) -> None:
        self._events = events
        bits = widths or {}
        super().__init__(
            {
                "clear": In(1),
                "increments": In(data.StructLayout({event.name.lower(): bits.get(event, 1) for event in events})),
                "values": Out(data.ArrayLayout(unsigned(COUNTER_BITS), len(events))),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        for event in self._events:
            value = self.values[event.value]
            m.d.sync += value.eq(value + self.increments[event.name.lower()])
            with m.If(self.clear):
                m.d.sync += value.eq(0)
        return m
