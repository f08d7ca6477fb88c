"""One lane of the sums: a row's byte is shifted and added; what a token added decays."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
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


def control_layout() -> data.StructLayout:
    """What every lane is told in a clock.

    Members:
        row_head, identity: whose row was read; that of an identity counts instead.
        held_head, begins: whose sum was read; it counts as 0.
        before_head, keeps_before, first_before: whose decayed sum was read; it is kept; it counts as 0.
        trail_head, first_trail: whose trail was read; it counts as 0.
        no_trail: of what is added to the sum in place of a row.
        others: see `AdderLane` and `DecayLane`.
    """
    one = ("row_head", "identity", "held_head", "begins", "before_head", "keeps_before", "first_before", "trail_head")
    more = ("first_trail", "adds", "trails", "no_trail", "moves", "loads")
    return data.StructLayout(
        {
            **dict.fromkeys((*one, *more), 1),
            "shift": SHIFT_BITS,
            "half": MAX_DECAY,
            "decay": range(MAX_DECAY + 1),
            "trail_half": FRACTION_BITS,
            "trail_shift": range(FRACTION_BITS + 1),
        }
    )


class SumLane(wiring.Component):
    """One lane of the sums: a register behind each memory (two behind the large one of rows), and the two pipelines.

    Members:
        rows, sums, decayed, trails: what each head's memory holds of this lane.
        total, after, trailed: what is written into the last three.
    """

    def __init__(self) -> None:
        value = signed(SUM_BITS)
        super().__init__(
            {
                "control": In(control_layout()),
                "identity": In(signed(ROW_BITS)),
                "rows": In(signed(ROW_BITS)).array(2),
                **{name: In(value).array(2) for name in ("sums", "decayed", "trails")},
                **{name: Out(value) for name in ("total", "after", "trailed")},
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        told = self.control
        m.submodules.adder, m.submodules.decay = adder, decay = AdderLane(), DecayLane()
        read = [Signal(signed(ROW_BITS), name=f"read{head}") for head in range(2)]
        row, trail = Signal(signed(ROW_BITS)), Signal(signed(SUM_BITS))
        held, before = Signal(signed(SUM_BITS)), Signal(signed(SUM_BITS))
        m.d.sync += [
            *(value.eq(word) for value, word in zip(read, self.rows, strict=True)),
            row.eq(Mux(told.identity, self.identity, Mux(told.row_head, read[1], read[0]))),
            held.eq(Mux(told.begins, 0, Mux(told.held_head, self.sums[1], self.sums[0]))),
            trail.eq(Mux(told.first_trail, 0, Mux(told.trail_head, self.trails[1], self.trails[0]))),
        ]
        with m.If(told.keeps_before):
            m.d.sync += before.eq(Mux(told.first_before, 0, Mux(told.before_head, self.decayed[1], self.decayed[0])))
        m.d.comb += [
            adder.row.eq(row),
            adder.trail.eq(Mux(told.no_trail, 0, trail)),
            adder.held.eq(held),
            decay.fresh.eq(adder.total),
            decay.before.eq(before),
            decay.trail.eq(trail),
            *(getattr(adder, name).eq(told[name]) for name in ("shift", "adds", "trails", "moves", "loads")),
            *(getattr(decay, name).eq(told[name]) for name in ("half", "decay", "trail_half", "trail_shift")),
            self.total.eq(adder.total),
            self.after.eq(decay.after),
            self.trailed.eq(decay.trailed),
        ]
        return m
