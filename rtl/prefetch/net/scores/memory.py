"""A memory that is loaded over the load bus and read by a pipeline."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.limits import NetLimits
from rtl.checks import always, always_within, implies
from rtl.prefetch.net.scores.layouts import PART_BITS, counting, load_layout
from rtl.ram import Ram


class LoadedMemory(wiring.Component):
    """Words of ``bits``, one read in every clock.

    Args:
        limits: of the net.
        bits: of a word; above ``PART_BITS`` a multiple of it.
        depth: words.

    Members:
        read, address: a word that is read; ``word`` is it a clock later, and stays.
        load, selected: what comes over the load bus, and whether it is for this memory.

    Attributes:
        memory: what holds the words.
    """

    def __init__(self, limits: NetLimits, bits: int, depth: int) -> None:
        self._bits, self._depth = bits, depth
        self._granule = min(bits, PART_BITS)
        if bits % self._granule:
            raise ValueError(f"words of {bits} bits are no whole parts of {PART_BITS}")
        self._words = Ram(bits, max(depth, 2), granule=self._granule, collisions=False)
        self.memory = self._words.memory
        super().__init__(
            {
                "read": In(1),
                "address": In(counting(depth)),
                "word": Out(bits),
                "load": In(load_layout(limits)),
                "selected": In(1),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.words = words = self._words
        parts = self._bits // self._granule
        loads = self.load.valid & self.selected
        m.d.comb += [
            words.read_address.eq(self.address),
            words.read.eq(self.read),
            self.word.eq(words.read_data),
            words.write_address.eq(self.load.address),
            words.write_data.eq(self.load.data[: self._granule].replicate(parts)),
            words.write.eq(loads << self.load.part),
        ]
        last = self._depth - 1
        always_within(m, self.address, 0, last, "loaded memory: a word is read that does not exist", where=self.read)
        always_within(m, self.load.address, 0, last, "loaded memory: a word is loaded that does not exist", where=loads)
        if parts < 1 << len(self.load.part):
            always(m, implies(loads, self.load.part < parts), "loaded memory: a part that a word has not")
        return m
