"""A stream to several takers, each of whom takes every payload once."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override


class Fork(wiring.Component):
    """``outputs.0``, ``outputs.1``, … take a payload in whichever cycle they like; it is gone when the last one has."""

    def __init__(self, payload: Any, count: int) -> None:
        self._count = count
        super().__init__(
            {
                "input": In(stream.Signature(payload)),
                "outputs": Out(stream.Signature(payload)).array(count),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        taken = Signal(self._count)
        takes = Signal(self._count)
        m.d.comb += self.input.ready.eq((taken | takes).all())
        for nth in range(self._count):
            output = self.outputs[nth]
            m.d.comb += [
                output.valid.eq(self.input.valid & ~taken[nth]),
                output.payload.eq(self.input.payload),
                takes[nth].eq(output.valid & output.ready),
            ]
        with m.If(self.input.valid & self.input.ready):
            m.d.sync += taken.eq(0)
        with m.Else():
            m.d.sync += taken.eq(taken | takes)
        return m
