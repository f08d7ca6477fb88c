"""The values of a layer's experts: of each the sum of its merged chances, kept until they are read."""

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.score_cycles import VALUE_CLOCKS
from rtl.pipeline import delayed
from rtl.prefetch.net.scores.merge import CHANCE_BITS


def value_bits(questions: int) -> int:
    """Bits of the sum of so many chances."""
    return CHANCE_BITS + (questions - 1).bit_length()


class ValueRow(wiring.Component):
    """Adds up chances question by question and shows the sums in groups.

    A chance comes in every clock as a rule, all experts of the first question first; the same expert comes again after
    four clocks or more.

    Args:
        experts: the most of a layer.
        questions: the most of an expert.
        lanes: values read together, a power of two, at least 2.

    Members:
        coming, expert: of the chance that is given in the next clock.
        valid, chance: one that is given.
        first, last: it is of the first, of the last question; a sum is shown ``LATENCY`` clocks after its last.
        read, group: values to show in the next clock.
        values: a group's, that of the smallest expert lowest.
    """

    LATENCY = VALUE_CLOCKS

    def __init__(self, *, experts: int, questions: int, lanes: int) -> None:
        self._experts, self._lanes = experts, lanes
        self._bits = value_bits(questions)
        super().__init__(
            {
                "coming": In(1),
                "expert": In((experts - 1).bit_length()),
                "valid": In(1),
                "chance": In(CHANCE_BITS),
                "first": In(1),
                "last": In(1),
                "read": In(1),
                "group": In(range(max(2, -(-experts // lanes)))),
                "values": Out(self._bits * lanes),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.sums = sums = Memory(shape=unsigned(self._bits), depth=self._experts, init=[])
        m.submodules.row = row = Memory(
            shape=unsigned(self._bits * self._lanes), depth=max(2, -(-self._experts // self._lanes)), init=[]
        )
        sum_read, sum_write = sums.read_port(), sums.write_port()
        row_read, row_write = row.read_port(), row.write_port(granularity=self._bits)
        lane_bits = (self._lanes - 1).bit_length()
        total = Signal(self._bits)
        expert = delayed(m, "expert", self.expert, 2, reset_less=False)
        written = Signal()
        finished = Signal()
        m.d.sync += [
            total.eq(Mux(self.first, 0, sum_read.data) + self.chance),
            written.eq(self.valid),
            finished.eq(self.valid & self.last),
        ]
        m.d.comb += [
            sum_read.addr.eq(self.expert),
            sum_read.en.eq(self.coming),
            sum_write.addr.eq(expert),
            sum_write.data.eq(total),
            sum_write.en.eq(written),
            row_write.addr.eq(expert >> lane_bits),
            row_write.data.eq(total.replicate(self._lanes)),
            row_write.en.eq(finished << expert[:lane_bits]),
            row_read.addr.eq(self.group),
            row_read.en.eq(self.read),
            self.values.eq(row_read.data),
        ]
        return m
