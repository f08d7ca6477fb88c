"""What experts' next uses are worth: values as told, times their scale, into the directory."""

from functools import partial

from amaranth.hdl import Cat, Module, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from rtl.prefetch.stager.directory import times_layout
from rtl.prefetch.stager.layouts import StagerShape, ValuesSignature
from rtl.verilog import Shared

GROUP = 4
"""Lanes that share a register of the scale: what it drives stays near."""


class ScaledValues(wiring.Component):
    """``values`` of some lanes times ``scale``, as two halves and then their sum, two clocks later; every clock.

    ``scale`` holds still from a clock before the values on.
    """

    def __init__(self, shape: StagerShape, lanes: int) -> None:
        self._shape, self._lanes = shape, lanes
        super().__init__(
            {
                "scale": In(shape.limits.scale_bits),
                "values": In(data.ArrayLayout(signed(shape.limits.value_bits), lanes)),
                "times": Out(data.ArrayLayout(signed(shape.time_bits), lanes)),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        limits = self._shape.limits
        half = (limits.scale_bits + 1) // 2
        partial_product = signed(limits.value_bits + half + 1)
        scale = Signal.like(self.scale)
        m.d.sync += scale.eq(self.scale)
        for lane in range(self._lanes):
            low, high = (Signal(partial_product, name=f"{part}{lane}") for part in ("low", "high"))
            value = self.values[lane]
            m.d.sync += [
                low.eq(value * scale[:half]),
                high.eq(value * scale[half:]) if limits.scale_bits > half else high.eq(0),
                self.times[lane].eq(low + (high << half)),
            ]
        return m


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
        lanes = limits.lanes
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
        for first in range(0, lanes, GROUP):
            several = min(GROUP, lanes - first)
            m.submodules[f"lanes{first}"] = part = Shared(
                partial(ScaledValues, shape, several), f"stager_scaled_values_{several}"
            )
            m.d.comb += part.scale.eq(self.scale)
            for lane in range(several):
                m.d.comb += [
                    part.values[lane].eq(self.values.values[first + lane]),
                    self.times[first + lane].eq(part.times[lane]),
                ]
        m.d.comb += [
            self.write.eq(summed.valid),
            self.word.eq(Cat(summed.word[: shape.word_bits], layer)),
            self.finishing.eq(summed.last),
        ]
        return m
