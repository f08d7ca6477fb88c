"""What experts' next uses are worth: values as told, times their scale, into the directory."""

from amaranth.hdl import Cat, Module, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from rtl.prefetch.stager.directory import times_layout
from rtl.prefetch.stager.layouts import StagerShape, ValuesSignature


class ValueWriter(wiring.Component):
    """Reads the values of a layer, a word a cycle, and writes their times.

    ``start`` comes with ``layer``; from the next cycle on a word is read each cycle. ``finishing`` is high in the last
    cycle of ``staging.stager.cycles.values_cycles``. A product is two halves of the scale, then their sum.
    """

    def __init__(self, shape: StagerShape) -> None:
        self.shape = shape
        super().__init__(
            {
                "start": In(1),
                "layer": In(shape.layer_bits),
                "experts": In(range(shape.limits.experts + 1)),
                "scale": In(shape.limits.scale_bits),
                "values": Out(ValuesSignature(shape)),
                "write": Out(1),
                "word": Out(shape.address_bits),
                "times": Out(times_layout(shape)),
                "finishing": Out(1),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape, limits = self.shape, self.shape.limits
        lanes, half = limits.lanes, (limits.scale_bits + 1) // 2
        layer = Signal.like(self.layer)
        below = Signal(range(shape.words * lanes + 1))
        ends = below + lanes >= self.experts
        read = self.values.read
        m.d.comb += self.values.word.eq(below >> shape.lane_bits)
        with m.If(read):
            m.d.sync += below.eq(below + lanes)
            with m.If(ends):
                m.d.sync += read.eq(0)
        with m.If(self.start):
            m.d.sync += [read.eq(1), below.eq(0), layer.eq(self.layer)]

        token = data.StructLayout({"valid": 1, "last": 1, "word": unsigned(max(1, shape.word_bits))})
        told, scaled, summed = (Signal(token, name=name) for name in ("told", "scaled", "summed"))
        m.d.sync += [
            told.valid.eq(read),
            told.last.eq(read & ends),
            told.word.eq(self.values.word),
            scaled.eq(told),
            summed.eq(scaled),
        ]
        partial = signed(limits.value_bits + half + 1)
        for lane in range(lanes):
            low, high = Signal(partial, name=f"low{lane}"), Signal(partial, name=f"high{lane}")
            value = self.values.values[lane]
            m.d.sync += [
                low.eq(value * self.scale[:half]),
                high.eq(value * self.scale[half:]) if limits.scale_bits > half else high.eq(0),
                self.times[lane].eq(low + (high << half)),
            ]
        m.d.comb += [
            self.write.eq(summed.valid),
            self.word.eq(Cat(summed.word[: shape.word_bits], layer)),
            self.finishing.eq(summed.last),
        ]
        return m
