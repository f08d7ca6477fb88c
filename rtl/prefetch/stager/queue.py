"""The queue of what waits for the link: registers, compared pairwise in a tree."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from rtl.checks import always, always_within, at_most_one, implies
from rtl.prefetch.stager.layouts import StagerShape, key_layout, waiting_layout


def looked_layout(shape: StagerShape) -> data.StructLayout:
    """What a look found, if ``valid``."""
    return data.StructLayout({"valid": 1, "entry": waiting_layout(shape)})


class TransferQueue(wiring.Component):
    """Entries in the order in which they came, without gaps; one more than ``queue_depth``, which is there in passing.

    *By key*: two cycles after ``key``, ``matched`` is its entry (zeros if there is none); one cycle after, it is the
    one that ``remove``, ``update`` (deadline and worth of ``given``) and ``demote`` (no gate waits for it any more)
    mean. ``append`` enters ``given``; with ``remove`` in the same cycle the one leaves and the other comes last.

    *By order*: ``found`` is the next to move (the last to move, with ``last``) from ``look_cycles`` cycles after the
    entries and these settings were last changed. With ``placed_only``: of prefetches that hold a place, of ``layer``
    where ``by_layer``.

    *By number*: ``nth`` is the entry ``at``, in the same cycle.
    """

    def __init__(self, shape: StagerShape) -> None:
        self.shape = shape
        depth = shape.limits.queue_depth
        entry = waiting_layout(shape)
        super().__init__(
            {
                "clear": In(1),
                "key": In(key_layout(shape)),
                "matched": Out(entry),
                "given": In(entry),
                "append": In(1),
                "remove": In(1),
                "update": In(1),
                "demote": In(1),
                "last": In(1),
                "placed_only": In(1),
                "by_layer": In(1),
                "layer": In(shape.layer_bits),
                "found": Out(looked_layout(shape)),
                "at": In(range(depth + 2)),
                "nth": Out(entry),
                "waiting": Out(range(depth + 2)),
                "entries": Out(data.ArrayLayout(entry, depth + 1)),
                "holds_demand": Out(1),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        slots = self.shape.limits.queue_depth + 1
        used, match = Signal(slots), Signal(slots)
        m.d.comb += used.eq(Cat(self.waiting > at for at in range(slots)))
        m.d.sync += match.eq(Cat(self.entries[at].key == self.key for at in range(slots)) & used)
        chosen = Value.cast(self.entries[0]) & match[0].replicate(len(Value.cast(self.entries[0])))
        for at in range(1, slots):
            bits = Value.cast(self.entries[at])
            chosen = chosen | (bits & match[at].replicate(len(bits)))
        m.d.sync += self.matched.eq(chosen)
        m.d.comb += [
            self.nth.eq(self.entries[self.at]),
            self.holds_demand.eq((Cat(self.entries[at].demanded for at in range(slots)) & used).any()),
        ]

        removes = Signal()
        m.d.comb += removes.eq(self.remove & match.any())
        # Where the next is entered, with and without one that leaves: which of the two is known late in the cycle.
        position, enters = Signal(range(slots + 1)), Signal(slots)
        behind, before = (Cat(self.waiting == at + less for at in range(slots)) for less in (0, 1))
        m.d.comb += [position.eq(self.waiting - removes), enters.eq(Mux(removes, before, behind))]
        for at in range(slots):
            entry = self.entries[at]
            with m.If(self.update & match[at]):
                m.d.sync += [entry.deadline.eq(self.given.deadline), entry.worth.eq(self.given.worth)]
            with m.If(self.demote & match[at]):
                m.d.sync += entry.demanded.eq(0)
            if at + 1 < slots:
                with m.If(removes & match[: at + 1].any()):
                    m.d.sync += entry.eq(self.entries[at + 1])
            with m.If(self.append & enters[at]):
                m.d.sync += entry.eq(self.given)
        m.d.sync += self.waiting.eq(position + self.append)
        with m.If(self.clear):
            m.d.sync += self.waiting.eq(0)
        self._look(m, used)

        is_inside = self.given.key == self.key
        always(m, at_most_one(match), "queue: a key waits twice")
        always(m, implies(self.append, is_inside & (~match.any() | self.remove)), "queue: a key that waits is entered")
        always_within(m, self.waiting, 0, slots - 1, "queue: one too many is entered", where=self.append & ~removes)
        always_within(m, self.waiting, 0, slots, "queue: more wait than there is room for")
        return m

    def _look(self, m: Module, used: Value) -> None:
        """The tree: a level a cycle, the entry that came earlier on the left."""
        nodes = []
        for at in range(self.shape.limits.queue_depth + 1):
            node, entry = Signal(looked_layout(self.shape), name=f"leaf{at}"), self.entries[at]
            of_group = ~self.by_layer | (entry.key.layer == self.layer)
            m.d.comb += [
                node.valid.eq(used[at] & (~self.placed_only | (~entry.demanded & entry.placed & of_group))),
                node.entry.eq(entry),
            ]
            nodes.append(node)
        level = 0
        while len(nodes) > 1:
            above = []
            for nth in range(0, len(nodes), 2):
                node = Signal(looked_layout(self.shape), name=f"level{level}_{nth}")
                if nth + 1 < len(nodes):
                    left, right = nodes[nth], nodes[nth + 1]
                    m.d.sync += node.eq(Mux(self._takes(left, right), right.as_value(), left.as_value()))
                else:
                    m.d.sync += node.eq(nodes[nth])
                above.append(node)
            nodes = above
            level += 1
        m.d.comb += self.found.eq(nodes[0])

    def _takes(self, left: data.View, right: data.View) -> Value:
        """Whether of two entries the one that came later is looked for."""
        here, there = left.entry, right.entry
        nearer = there.deadline < here.deadline
        worth_more = (there.deadline == here.deadline) & (there.worth > here.worth)
        sooner = ~here.demanded & (there.demanded | nearer | worth_more)
        return right.valid & (~left.valid | (sooner ^ self.last))
