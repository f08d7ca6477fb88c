"""What paused transfers have already: the chunks of each that need not be moved again."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from rtl.checks import always, at_most_one, implies
from rtl.prefetch.stager.layouts import StagerShape, key_layout
from staging.transfer.limits import CHUNK_BITS


class KeptChunks(wiring.Component):
    """An entry for each transfer that waits after a pause; it is in the stager's queue, so there are enough.

    ``take`` forgets the entry of ``key``, and ``chunks`` says in the same cycle how many it had (0 if there is none);
    ``keep`` makes one for it; ``forget`` only forgets. At most one of the three comes in a cycle.
    """

    def __init__(self, shape: StagerShape) -> None:
        self.shape = shape
        super().__init__(
            {
                "key": In(key_layout(shape)),
                "take": In(1),
                "forget": In(1),
                "keep": In(1),
                "kept": In(CHUNK_BITS),
                "chunks": Out(CHUNK_BITS),
                "clear": In(1),
            }
        )
        entry = data.StructLayout({"valid": 1, "key": key_layout(shape), "chunks": unsigned(CHUNK_BITS)})
        self._entries = [Signal(entry, name=f"entry{n}") for n in range(shape.limits.queue_depth + 1)]

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        entries = self._entries
        key = self.key.as_value()
        found = Cat(one.valid & (one.key.as_value() == key) for one in entries)
        free = Cat(~one.valid for one in entries)
        chunks = 0
        for nth, one in enumerate(entries):
            chunks = chunks | Mux(found[nth], one.chunks, 0)
            with m.If(self.keep & free[nth] & ~free[:nth].any() if nth else self.keep & free[0]):
                m.d.sync += [one.valid.eq(1), one.key.eq(self.key), one.chunks.eq(self.kept)]
            with m.If(((self.take | self.forget) & found[nth]) | self.clear):
                m.d.sync += one.valid.eq(0)
        m.d.comb += self.chunks.eq(chunks)
        always(m, at_most_one([self.take, self.forget, self.keep]), "kept chunks: two things at once")
        always(m, at_most_one(found), "kept chunks: a transfer is there twice")
        always(m, implies(self.keep, free.any() & ~found.any()), "kept chunks: no room, or it is there already")
        return m
