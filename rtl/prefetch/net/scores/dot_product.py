"""Hidden units times a word of the matrix."""

from amaranth.hdl import Module, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.score_cycles import TREE_LEVELS_A_CLOCK, dot_product_clocks
from rtl.prefetch.net.scores.relu import HIDDEN_BITS

WEIGHT_BITS = 8
PRODUCT_BITS = HIDDEN_BITS + WEIGHT_BITS
"""255 · −128 is above −2^15."""


def sum_bits(lanes: int) -> int:
    """Bits of the sum of all lanes' products, which loses nothing."""
    return PRODUCT_BITS + (lanes - 1).bit_length()


class DotProduct(wiring.Component):
    """The sum over all lanes of hidden unit (u8) times weight (i8), ``latency`` clocks later; a new one every clock.

    Products are registered, then every second level of the tree that adds them.

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
        terms: list[Value] = [self.hidden[lane] * self.weights[lane] for lane in range(self._lanes)]
        terms = _registered(m, "product", terms)
        level = 0
        while len(terms) > 1:
            for _ in range(TREE_LEVELS_A_CLOCK):
                terms = [sum(terms[n : n + 2][1:], terms[n]) for n in range(0, len(terms), 2)]
            terms = _registered(m, f"sums{level}_", terms)
            level += 1
        m.d.comb += self.sum.eq(terms[0])
        return m


def _registered(m: Module, name: str, values: list[Value]) -> list[Value]:
    registers = [Signal(value.shape(), name=f"{name}{n}") for n, value in enumerate(values)]
    m.d.sync += [register.eq(value) for register, value in zip(registers, values, strict=True)]
    return list(registers)
