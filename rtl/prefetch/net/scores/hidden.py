"""The hidden units of a target: a ring of words, that of the next pass first."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override


class HiddenWords(wiring.Component):
    """Gives words ``0 … passes − 1`` again and again, one more with every ``step``, without a choice in front of what
    multiplies them.

    While an answer's words are first given they come in: with ``load`` and ``step``, ``given`` is what ``front`` shows
    in the next clock, and the words after it follow. Words of an earlier target are pushed out.

    Args:
        bits: of a word.
        words: in the ring, at most.

    Members:
        step: ``front`` becomes the next word.
        load: which is ``given``, and not the one that the ring holds.
        passes: words in use; holds still from the first ``load`` on.
    """

    def __init__(self, bits: int, words: int) -> None:
        self._bits, self._words = bits, words
        super().__init__(
            {
                "step": In(1),
                "load": In(1),
                "passes": In(range(words + 1)),
                "given": In(bits),
                "front": Out(bits),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        ring = [Signal(self._bits, name=f"word{n}") for n in range(self._words)]
        m.d.comb += self.front.eq(ring[0])
        with m.If(self.step):
            for n, word in enumerate(ring):
                behind = ring[n + 1] if n + 1 < self._words else word
                m.d.sync += word.eq(behind)
                with m.If(self.passes == n + 1):
                    m.d.sync += word.eq(ring[0])  # the last word in use
            with m.If(self.load):
                m.d.sync += ring[0].eq(self.given)
        return m
