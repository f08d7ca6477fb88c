"""Sums become hidden units: bias, rounding shift, and what is left in 0 … 255."""

from functools import partial

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.integers import HIDDEN_MAX
from predictor.row_network.score_cycles import RELU_CLOCKS
from rtl.pipeline import delayed
from rtl.verilog import Shared

SHIFT_BITS = 5
HIDDEN_BITS = HIDDEN_MAX.bit_length()
BIAS_BITS = 32
GROUP = 8
"""Lanes that share a register of the shift: what it drives stays near."""


LATENCY = RELU_CLOCKS - 1
"""Clocks from sums to hidden units, which are not registered: the last clock of the ReLU is that of whoever keeps
them."""


def _members(lanes: int, accumulator_bits: int) -> dict[str, wiring.Member]:
    return {
        "shift": In(SHIFT_BITS),
        "now": In(data.ArrayLayout(signed(accumulator_bits), lanes)),
        "bias": In(data.ArrayLayout(signed(BIAS_BITS), lanes)),
        "hidden": Out(data.ArrayLayout(unsigned(HIDDEN_BITS), lanes)),
    }


class ReluLanes(wiring.Component):
    """``min(255, max(0, now + bias + half) >> shift)`` of some lanes, ``LATENCY`` clocks later; a word every clock.

    ``shift`` comes a clock before the sums that it is for.
    """

    def __init__(self, lanes: int, accumulator_bits: int) -> None:
        self._lanes, self._bits = lanes, accumulator_bits
        super().__init__(_members(lanes, accumulator_bits))

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        shift = delayed(m, "shift", self.shift, 2, reset_less=False)
        # Half of what the shift removes, a bit lower than its unit; none where nothing is removed.
        half = Signal(31)
        m.d.sync += half.eq((1 << self.shift) >> 1)
        bits = max(self._bits, BIAS_BITS) + 2
        for lane in range(self._lanes):
            total = Signal(signed(bits), name=f"total{lane}")
            shifted = Signal(signed(bits), name=f"shifted{lane}")
            beyond = shifted[HIDDEN_BITS:].any()
            m.d.sync += [total.eq(self.now[lane] + self.bias[lane] + half), shifted.eq(total >> shift)]
            m.d.comb += self.hidden[lane].eq(Mux(shifted < 0, 0, Mux(beyond, HIDDEN_MAX, shifted)))
        return m


class ReluStage(wiring.Component):
    """`ReluLanes`, so many that they make up a word."""

    def __init__(self, lanes: int, accumulator_bits: int) -> None:
        self._lanes, self._bits = lanes, accumulator_bits
        super().__init__(_members(lanes, accumulator_bits))

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        for first in range(0, self._lanes, GROUP):
            lanes = min(GROUP, self._lanes - first)
            m.submodules[f"lanes{first}"] = part = Shared(
                partial(ReluLanes, lanes, self._bits), f"net_relu_{lanes}x{self._bits}"
            )
            m.d.comb += part.shift.eq(self.shift)
            for lane in range(lanes):
                m.d.comb += [
                    part.now[lane].eq(self.now[first + lane]),
                    part.bias[lane].eq(self.bias[first + lane]),
                    self.hidden[first + lane].eq(part.hidden[lane]),
                ]
        return m
