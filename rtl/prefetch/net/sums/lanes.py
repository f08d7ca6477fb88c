"""One lane of the sums: a row's byte is shifted and added; and one of the decayed sums."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.config import MAX_DECAY
from predictor.row_network.integers import FRACTION_BITS
from rtl.prefetch.net.layouts import ROW_BITS, SHIFT_BITS

SUM_BITS = 32


class AdderLane(wiring.Component):
    """Clock 0: ``row`` (or ``trail``) is shifted; 1: ``held`` or the running total takes it; 2: ``total``.

    Members:
        adds, trails: of the row: it counts; the trail counts instead.
        moves: in clock 1: the total takes what was shifted; loads: it counts from ``held``.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "row": In(signed(ROW_BITS)),
                "shift": In(SHIFT_BITS),
                "adds": In(1),
                "trail": In(signed(SUM_BITS)),
                "trails": In(1),
                "held": In(signed(SUM_BITS)),
                "moves": In(1),
                "loads": In(1),
                "total": Out(signed(SUM_BITS)),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        addend, shifted = Signal(signed(SUM_BITS)), Signal(signed(SUM_BITS))
        m.d.comb += shifted.eq(self.row << self.shift)
        m.d.sync += addend.eq(Mux(self.trails, self.trail, Mux(self.adds, shifted, 0)))
        with m.If(self.moves):
            m.d.sync += self.total.eq(Mux(self.loads, self.held, self.total) + addend)
        return m


class DecayLane(wiring.Component):
    """What a token added enters a decayed sum, and that the trail: six clocks, a step each.

    Clock 0: ``fresh`` gets its fraction and half of what is shifted out; 1: less ``before``; 2: shifted; 3: added to
    ``before``; 4: ``after``, and half of what is shifted out next; 5: shifted; 6: added to ``trail``; 7: ``trailed``.

    Members:
        half, decay, trail_half, trail_shift: hold still in clocks 0 to 6.
        before: in clocks 1 to 3.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "fresh": In(signed(SUM_BITS)),
                "decay": In(range(MAX_DECAY + 1)),
                "half": In(MAX_DECAY),
                "trail_shift": In(range(FRACTION_BITS + 1)),
                "trail_half": In(FRACTION_BITS),
                "before": In(signed(SUM_BITS)),
                "after": Out(signed(SUM_BITS)),
                "trail": In(signed(SUM_BITS)),
                "trailed": Out(signed(SUM_BITS)),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        raised, less, moved, rounded, added = (
            Signal(signed(SUM_BITS), name=name) for name in ("raised", "less", "moved", "rounded", "added")
        )
        m.d.sync += [
            raised.eq((self.fresh << FRACTION_BITS) + self.half),
            less.eq(raised - self.before),
            moved.eq(less >> self.decay),
            self.after.eq(self.before + moved),
            rounded.eq(self.after + self.trail_half),
            added.eq(rounded >> self.trail_shift),
            self.trailed.eq(self.trail + added),
        ]
        return m
