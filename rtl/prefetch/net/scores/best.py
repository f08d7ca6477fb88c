"""The best experts of a stream of chances."""

from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from rtl.checks import always, implies
from rtl.prefetch.net.scores.merge import CHANCE_BITS


class BestExperts(wiring.Component):
    """Keeps the ``places`` largest of the chances given since ``clear``, largest first, ties to the smaller expert:
    `predictor.measure.ranking.best_experts` of one that comes in every clock, experts ascending.

    Members:
        clear: what is held is dropped; a chance given in this clock is the first of the next.
        valid, expert, chance: one that is given.
        threshold: smallest chance that qualifies, at least 1.
        count: how many places are taken.
        experts, chances: of the places, that of the largest chance first; 0 where no place is taken.
    """

    def __init__(self, expert_bits: int, places: int) -> None:
        self._places = places
        self._expert_bits = expert_bits
        super().__init__(
            {
                "clear": In(1),
                "valid": In(1),
                "expert": In(expert_bits),
                "chance": In(CHANCE_BITS),
                "threshold": In(CHANCE_BITS),
                "count": Out(range(places + 1)),
                "experts": Out(data.ArrayLayout(unsigned(expert_bits), places)),
                "chances": Out(data.ArrayLayout(unsigned(CHANCE_BITS), places)),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        item = data.StructLayout({"expert": unsigned(self._expert_bits), "chance": unsigned(CHANCE_BITS)})
        places = [Signal(item, name=f"place{n}") for n in range(self._places)]
        taken = Signal(self._places)  # the first ones
        given = Signal(item)
        qualifies = Signal()
        goes_before = Signal(self._places)
        m.d.comb += [
            given.expert.eq(self.expert),
            given.chance.eq(self.chance),
            qualifies.eq(self.valid & (self.chance >= self.threshold)),
        ]
        for n, place in enumerate(places):
            # An equal one that is held is of a smaller expert.
            m.d.comb += goes_before[n].eq(self.clear | ~taken[n] | (self.chance > place.chance))
        with m.If(self.clear):
            m.d.sync += taken.eq(qualifies)
            m.d.sync += [place.eq(0) for place in places]
            with m.If(qualifies):
                m.d.sync += places[0].eq(given)
        with m.Elif(qualifies):
            m.d.sync += taken.eq(Cat(1, taken)[: self._places] & (taken | goes_before))
            for n, place in enumerate(places):
                with m.If(goes_before[n]):
                    m.d.sync += place.eq(given)
                    if n:
                        with m.If(goes_before[n - 1]):
                            m.d.sync += place.eq(places[n - 1])
        for n, place in enumerate(places):
            with m.If(taken[n]):
                m.d.comb += self.count.eq(n + 1)
            m.d.comb += [self.experts[n].eq(place.expert), self.chances[n].eq(place.chance)]
        always(m, implies(qualifies, self.chance != 0), "best experts: the threshold is 0")
        always(m, (taken & (taken + 1)) == 0, "best experts: a place is free before one that is taken")
        for n in range(1, self._places):
            ordered = (places[n - 1].chance > places[n].chance) | (
                (places[n - 1].chance == places[n].chance) & (places[n - 1].expert < places[n].expert)
            )
            always(m, implies(taken[n], ordered), "best experts: a place holds a better one than that before it")
        return m
