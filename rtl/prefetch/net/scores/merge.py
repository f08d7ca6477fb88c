"""Chances of the sequences that run together, merged as `predictor.row_network.merging` says."""

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.score_cycles import MERGE_CLOCKS
from rtl.pipeline import stages

CHANCE_BITS = 16
_HALF = 1 << (CHANCE_BITS - 1)
_BYTE = CHANCE_BITS // 2


class ChanceMerger(wiring.Component):
    """``merged_chance(chance, other)``, ``LATENCY`` clocks later; a pair every clock."""

    LATENCY = MERGE_CLOCKS

    def __init__(self) -> None:
        super().__init__({"chance": In(CHANCE_BITS), "other": In(CHANCE_BITS), "merged": Out(CHANCE_BITS)})

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        left = Signal(CHANCE_BITS)
        low, high = (Signal(unsigned(CHANCE_BITS + _BYTE), name=f"{part}_product") for part in ("low", "high"))
        rounded, merged = Signal(2 * CHANCE_BITS), Signal(2 * CHANCE_BITS)
        m.d.comb += left.eq(~self.chance)  # what is left of certainty
        m.d.sync += [
            low.eq(left * self.other[:_BYTE]),
            high.eq(left * self.other[_BYTE:]),
            rounded.eq(low + (high << _BYTE) + _HALF),
        ]
        before = stages(m, "chance", self.chance, self.LATENCY - 1, reset_less=False)[-1]
        m.d.sync += merged.eq(rounded + (rounded >> CHANCE_BITS) + (before << CHANCE_BITS))
        m.d.comb += self.merged.eq(merged >> CHANCE_BITS)
        return m
