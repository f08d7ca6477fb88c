"""Sums of products become scores."""

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.integers import ADAPTED_LIMIT, SCORE_MAX, SCORE_MIN, SCORE_ZERO
from predictor.row_network.score_cycles import SCORE_CLOCKS
from rtl.pipeline import delayed
from rtl.prefetch.net.scores.relu import SHIFT_BITS

SCORE_BITS = SCORE_MAX.bit_length()
TOTAL_BITS = 32
"""Of an answer's sum, which never overflows (``integers.check_widths``)."""
ADAPTED_BITS = ADAPTED_LIMIT.bit_length() + 1


class ScoreStage(wiring.Component):
    """Accumulates the passes of an answer; ``LATENCY`` clocks after the last one, its score.

    ``score = clip((Σ sums + output_bias + half) >> shift + 2048 + adapted >> adaptation, 1, 4095)``

    Members:
        valid, sum: of a pass; there may be gaps between passes.
        first: it is an answer's first.
        output_bias, shift: of the answer, ``AHEAD`` clock before its first pass's ``sum`` and until its last one's.
        adapted, adaptation: of the answer, in the clock of its last ``sum``; 0: the layer does not adapt.
        score: of the answer whose last pass was given ``LATENCY`` clocks ago.
    """

    LATENCY = SCORE_CLOCKS
    AHEAD = 1

    def __init__(self, sum_bits: int) -> None:
        super().__init__(
            {
                "valid": In(1),
                "sum": In(signed(sum_bits)),
                "first": In(1),
                "output_bias": In(signed(TOTAL_BITS)),
                "shift": In(SHIFT_BITS),
                "adapted": In(signed(ADAPTED_BITS)),
                "adaptation": In(SHIFT_BITS),
                "score": Out(unsigned(SCORE_BITS)),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        half = Signal(31)
        begin = Signal(signed(TOTAL_BITS))
        total = Signal(signed(TOTAL_BITS))
        m.d.comb += half.eq((1 << self.shift) >> 1)
        m.d.sync += begin.eq(self.output_bias + half)
        with m.If(self.valid):
            m.d.sync += total.eq(Mux(self.first, begin, total) + self.sum)

        shift = delayed(m, "shift", self.shift, self.AHEAD + 1, reset_less=False)
        shifted = Signal(signed(TOTAL_BITS))
        moved = Signal(signed(ADAPTED_BITS))
        offset = Signal(signed(ADAPTED_BITS + 1))
        m.d.sync += [
            shifted.eq(total >> shift),
            moved.eq(Mux(self.adaptation == 0, 0, self.adapted >> self.adaptation)),
            offset.eq(moved + SCORE_ZERO),
        ]
        unclipped = Signal(signed(TOTAL_BITS + 1))
        m.d.sync += [
            unclipped.eq(shifted + offset),
            self.score.eq(Mux(unclipped < SCORE_MIN, SCORE_MIN, Mux(unclipped > SCORE_MAX, SCORE_MAX, unclipped))),
        ]
        return m
