"""The biases of hidden units, read ahead so that they meet the sums without a wait."""

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.limits import NetLimits
from predictor.row_network.program import Memory
from rtl.checks import always, implies
from rtl.prefetch.net.scores.layouts import HEADS, counting, load_layout
from rtl.prefetch.net.scores.memory import LoadedMemory
from rtl.prefetch.net.scores.relu import BIAS_BITS


class BiasReader(wiring.Component):
    """Shows a target's words of bias one after the other.

    Members:
        begin, head, address: a target's first word; two clocks later it is shown.
        step: the word after the one that is shown follows in the next clock.
        word: the one shown, i32 of each lane; 0 in lanes that the head has not.
        load: of the load bus.

    Attributes:
        memories: of each head.
    """

    def __init__(self, limits: NetLimits) -> None:
        self._limits = limits
        depths = [limits.layers * limits.words(head) for head in range(HEADS)]
        self.memories = [
            LoadedMemory(limits, BIAS_BITS * limits.word_lanes(head), depths[head]) for head in range(HEADS)
        ]
        super().__init__(
            {
                "begin": In(1),
                "head": In(1),
                "address": In(counting(max(depths))),
                "step": In(1),
                "word": Out(data.ArrayLayout(signed(BIAS_BITS), limits.lanes)),
                "load": In(load_layout(limits)),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        # The word behind the one shown waits in its memory's output; `pointer` is that of the word behind it.
        pointer = Signal(unsigned(len(self.address) + 1))
        head = Signal()
        filling = Signal()
        moves = Signal()
        m.d.comb += moves.eq(filling | self.step)
        m.d.sync += filling.eq(self.begin)
        with m.If(self.begin):
            m.d.sync += [pointer.eq(self.address + 1), head.eq(self.head)]
        with m.Elif(moves):
            m.d.sync += pointer.eq(pointer + 1)
        words = []
        for number, memory in enumerate(self.memories):
            m.submodules[f"head{number}"] = memory
            depth = self._limits.layers * self._limits.words(number)
            begins = self.begin & (self.head == number)
            m.d.comb += [
                memory.load.eq(self.load),
                memory.selected.eq((self.load.head == number) & (self.load.memory == Memory.BIAS)),
                memory.read.eq(Mux(moves, (head == number) & (pointer < depth), begins)),
                memory.address.eq(Mux(moves, pointer, self.address)),
            ]
            words.append(memory.word)
        with m.If(moves):
            m.d.sync += self.word.eq(Mux(head, words[1], words[0]))
        always(m, implies(self.begin, ~moves), "bias reader: told to begin while words are taken")
        return m
