"""The free places of the staging buffer."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from rtl.checks import always, implies
from rtl.prefetch.stager.layouts import StagerShape

WORD_PLACES = 32
"""Places whose bits are a word of the memory."""


def place_words(shape: StagerShape) -> int:
    """Words of the memory of free places."""
    return -(-shape.all_places // WORD_PLACES) or 1


def places_members(shape: StagerShape) -> dict[str, wiring.Member]:
    """The ports of whatever knows which places are free."""
    return {
        "find": In(1),
        "lowest": Out(shape.place_bits),
        "any_free": Out(1),
        "take": In(1),
        "place": In(shape.place_bits),
        "give": In(1),
        "clear": In(1),
        "clear_word": In(range(max(2, place_words(shape)))),
    }


class FreePlaces(wiring.Component):
    """A bit a place in a memory, and a bit a word in registers that says whether one is free there.

    The lowest free place takes three cycles to find: ``find`` (the word), ``find`` the cycle before (read), the cycle
    after (its bit); in the fourth ``lowest`` holds, and ``take`` takes it. A place to be freed is shown in the cycle
    before ``give`` and in that cycle. Only one of the two happens every four cycles.

    ``clear`` writes the word ``clear_word``: all its places are free.
    """

    def __init__(self, shape: StagerShape) -> None:
        self.shape = shape
        self.words = place_words(shape)
        super().__init__(places_members(shape))

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits = WORD_PLACES.bit_length() - 1
        m.submodules.memory = memory = Memory(
            shape=unsigned(WORD_PLACES), depth=max(2, self.words), init=[]
        )  # an address has a bit
        read, write = memory.read_port(), memory.write_port()
        has_free = Signal(self.words)
        word, reads, found = Signal(range(max(2, self.words))), Signal(), Signal()
        given_word = Signal.like(word)
        m.d.comb += given_word.eq(self.place >> bits)
        # Stages of a search: the first word with a free place; its bits; the first of them.
        m.d.sync += [word.eq(_first(has_free)), reads.eq(self.find), found.eq(reads)]
        m.d.comb += [read.addr.eq(Mux(reads, word, given_word))]
        left, at, of = Signal(WORD_PLACES), Signal(bits), Signal.like(word)
        with m.If(found):
            m.d.sync += [at.eq(_first(read.data)), left.eq(read.data & (read.data - 1)), of.eq(word)]
            m.d.sync += self.any_free.eq(read.data.any())
        m.d.comb += self.lowest.eq(Cat(at, of))
        # A word is written a cycle late, which nobody sees: it is read two cycles later at the soonest.
        m.d.sync += write.en.eq(0)
        with m.If(self.clear):
            m.d.sync += [write.en.eq(1), write.addr.eq(self.clear_word), write.data.eq(self._all(self.clear_word))]
            m.d.sync += has_free.bit_select(self.clear_word, 1).eq(1)
        with m.Elif(self.take):
            m.d.sync += [write.en.eq(1), write.addr.eq(of), write.data.eq(left)]
            m.d.sync += has_free.bit_select(of, 1).eq(left.any())
        with m.Elif(self.give):
            m.d.sync += [
                write.en.eq(1),
                write.addr.eq(given_word),
                write.data.eq(read.data | (Const(1, WORD_PLACES) << self.place[:bits])[:WORD_PLACES]),
                has_free.bit_select(given_word, 1).eq(1),
            ]
        was_free = (read.data >> self.place[:bits])[0]
        always(m, implies(self.give, ~was_free), "places: one that is free is given back")
        always(m, implies(self.take, self.any_free), "places: one is taken, and none is free")
        always(m, ~(self.take & self.give), "places: one is taken and one given back at once")
        return m

    def _all(self, word: Value) -> Value:
        """The bits of a word all of whose places are free; the last may have fewer."""
        rest = self.shape.all_places - (self.words - 1) * WORD_PLACES
        full, last = Const((1 << WORD_PLACES) - 1, WORD_PLACES), Const((1 << rest) - 1, WORD_PLACES)
        return Mux(word == self.words - 1, last, full)


def _first(bits: Value) -> Value:
    """Number of the lowest bit that is set; 0 if none is."""
    nodes = [(bits[at], Const(at, range(max(2, len(bits))))) for at in range(len(bits))]
    while len(nodes) > 1:
        pairs = [
            (left[0] | right[0], Mux(left[0], left[1], right[1]))
            for left, right in zip(nodes[::2], nodes[1::2], strict=False)
        ]
        nodes = pairs + (nodes[-1:] if len(nodes) % 2 else [])
    return nodes[0][1]
