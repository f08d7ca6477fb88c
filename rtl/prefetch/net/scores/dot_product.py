"""Hidden units times a word of the matrix."""

from functools import partial

from amaranth.hdl import Module, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.score_cycles import TREE_LEVELS_A_CLOCK, dot_product_clocks
from rtl.prefetch.net.scores.relu import HIDDEN_BITS
from rtl.verilog import Shared

WEIGHT_BITS = 8
PRODUCT_BITS = HIDDEN_BITS + WEIGHT_BITS
"""255 · −128 is above −2^15."""


def sum_bits(lanes: int) -> int:
    """Bits of the sum of all lanes' products, which loses nothing."""
    return PRODUCT_BITS + (lanes - 1).bit_length()


class _Products(wiring.Component):
    """Products of a few lanes, a clock later."""

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        super().__init__(
            {
                "hidden": In(data.ArrayLayout(unsigned(HIDDEN_BITS), lanes)),
                "weights": In(data.ArrayLayout(signed(WEIGHT_BITS), lanes)),
                "products": Out(data.ArrayLayout(signed(PRODUCT_BITS), lanes)),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        for lane in range(self._lanes):
            m.d.sync += self.products[lane].eq(self.hidden[lane] * self.weights[lane])
        return m


class _Added(wiring.Component):
    """A few terms of ``bits``, and a clock later their sum."""

    def __init__(self, terms: int, bits: int) -> None:
        self._terms, self._bits = terms, bits
        super().__init__(
            {
                "terms": In(data.ArrayLayout(signed(bits), terms)),
                "sum": Out(signed(bits + (terms - 1).bit_length())),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        terms: list[Value] = [self.terms[n] for n in range(self._terms)]
        while len(terms) > 1:
            terms = [sum(terms[n : n + 2][1:], terms[n]) for n in range(0, len(terms), 2)]
        m.d.sync += self.sum.eq(terms[0])
        return m


class DotProduct(wiring.Component):
    """The sum over all lanes of hidden unit (u8) times weight (i8), ``latency`` clocks later; a new one every clock.

    Products are registered, then every second level of the tree that adds them. What lies between two registers is in
    parts that are alike.

    Attributes:
        latency: `score_cycles.dot_product_clocks`.
    """

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self.latency = dot_product_clocks(lanes)
        super().__init__(
            {
                "hidden": In(data.ArrayLayout(unsigned(HIDDEN_BITS), lanes)),
                "weights": In(data.ArrayLayout(signed(WEIGHT_BITS), lanes)),
                "sum": Out(signed(sum_bits(lanes))),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        terms: list[Value] = []
        for first in range(0, self._lanes, _GROUP):
            lanes = min(_GROUP, self._lanes - first)
            m.submodules[f"products{first}"] = part = Shared(partial(_Products, lanes), f"net_products_{lanes}")
            for lane in range(lanes):
                m.d.comb += [
                    part.hidden[lane].eq(self.hidden[first + lane]),
                    part.weights[lane].eq(self.weights[first + lane]),
                ]
            terms += [part.products[lane] for lane in range(lanes)]
        while len(terms) > 1:
            bits, sums = max(len(term) for term in terms), list[Value]()
            for first in range(0, len(terms), _GROUP):
                of = terms[first : first + _GROUP]
                added = Shared(partial(_Added, len(of), bits), f"net_added_{len(of)}x{bits}")
                m.submodules[f"added{bits}_{first}"] = added
                m.d.comb += [added.terms[n].eq(term) for n, term in enumerate(of)]
                sums.append(added.sum)
            terms = sums
        m.d.comb += self.sum.eq(terms[0])
        return m


_GROUP = 1 << TREE_LEVELS_A_CLOCK
"""Terms that become one in a clock."""
