"""The look at a group of layers: who gives way, or which absent expert is worth most."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from rtl.prefetch.stager.directory import entries_layout, times_layout
from rtl.prefetch.stager.layouts import StagerShape, key_layout
from staging.stager.directory import Status


def found_layout(shape: StagerShape) -> data.StructLayout:
    """Who was found, if ``valid``."""
    return data.StructLayout(
        {
            "valid": 1,
            "key": key_layout(shape),
            "worth": signed(shape.worth_bits),
            "age": unsigned(shape.limits.stamp_bits),
        }
    )


def scan_members(shape: StagerShape) -> dict[str, wiring.Member]:
    """The ports of whatever looks through the directory."""
    return {
        "start": In(1),
        "most": In(1),
        "first": In(shape.layer_bits),
        "last": In(shape.layer_bits),
        "experts": In(range(shape.limits.experts + 1)),
        "by_recency": In(1),
        "now": In(shape.deadline_code_bits),
        "stamps": In(shape.limits.stamp_bits),
        "read": Out(1),
        "read_word": Out(shape.address_bits),
        "entries": In(entries_layout(shape)),
        "values": In(times_layout(shape)),
        "finishing": Out(1),
        "found": Out(found_layout(shape)),
    }


class DirectoryScan(wiring.Component):
    """Reads a word a cycle, and keeps the best so far.

    In the cycle of ``start`` the layers ``first`` … ``last`` and ``most`` are taken in, and the search before is
    forgotten; from the next on, a word is read each cycle. ``finishing`` is high in the last cycle of
    ``staging.stager.cycles.scan_cycles``; ``found`` holds from the next on. With ``most`` it is the absent expert of
    most worth, of equals the smallest key. Otherwise it is who gives way: of the residents without pins that are not
    fixed the one of least worth, of equals, ``by_recency``, the oldest, of those the largest key.

    Stages: read; whether the chance counts, and the age; worth; a level of the tree of lanes each; the best so far.
    """

    def __init__(self, shape: StagerShape) -> None:
        self.shape = shape
        super().__init__(scan_members(shape))

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape, lanes = self.shape, self.shape.limits.lanes
        most, last_layer = Signal(), Signal.like(self.last, name="last_layer")
        layer = Signal.like(self.first, name="layer")
        # Experts below those of the word that is read, and those of the layer that are left from it on.
        below = Signal(range(shape.words * lanes + 1))
        ends_layer = below + lanes >= self.experts
        m.d.comb += self.read_word.eq(Cat(below[shape.lane_bits :][: shape.word_bits], layer))
        with m.If(self.read):
            m.d.sync += below.eq(below + lanes)
            with m.If(ends_layer):
                m.d.sync += [below.eq(0), layer.eq(layer + 1)]
                with m.If(layer == last_layer):
                    m.d.sync += self.read.eq(0)
        with m.If(self.start):
            m.d.sync += [
                self.read.eq(1),
                most.eq(self.most),
                layer.eq(self.first),
                last_layer.eq(self.last),
                below.eq(0),
            ]

        steps = _Token(m, shape, below.shape().width)
        at = steps.enter(self.read, self.read & ends_layer & (layer == last_layer), layer, below)
        kept = [self._candidate(m, lane, most, at) for lane in range(lanes)]
        at = steps.advance(at)
        nodes = [self._weighed(m, lane, candidate) for lane, candidate in enumerate(kept)]
        at = steps.advance(at)
        for level in range(shape.lane_bits):
            nodes = [
                self._better(m, level + 1, pair, most, *nodes[2 * pair : 2 * pair + 2])
                for pair in range(len(nodes) // 2)
            ]
            at = steps.advance(at)
        (best,) = nodes
        incoming = Signal(found_layout(shape))
        m.d.comb += [
            incoming.valid.eq(best.valid & at.valid),
            incoming.key.layer.eq(at.layer),
            incoming.key.expert.eq(at.below + (best.lane if shape.lane_bits else 0)),
            incoming.worth.eq(best.worth),
            incoming.age.eq(best.age),
            self.finishing.eq(at.last),
        ]
        with m.If(self._takes(most, self.found, incoming)):
            m.d.sync += self.found.eq(incoming)
        with m.If(self.start):
            m.d.sync += self.found.valid.eq(0)
        return m

    def _candidate(self, m: Module, lane: int, most: Value, at: data.View) -> data.View:
        """Of a lane: whether it may be found, and what its worth and age follow from."""
        entry, limits = self.entries[lane], self.shape.limits
        candidate = Signal(
            data.StructLayout(
                {
                    "valid": 1,
                    "counts": 1,
                    "chance": unsigned(self.shape.time_bits),
                    "value": signed(self.shape.time_bits),
                    "age": unsigned(limits.stamp_bits),
                }
            ),
            name=f"candidate{lane}",
        )
        gives_way = (entry.status == Status.RESIDENT) & (entry.pins == 0) & ~entry.fixed
        m.d.sync += [
            candidate.valid.eq(
                Mux(most, (entry.status == Status.ABSENT) & (at.below + lane < self.experts), gives_way)
            ),
            candidate.counts.eq(entry.deadline > self.now),
            candidate.chance.eq(entry.chance),
            candidate.value.eq(self.values[lane]),
            candidate.age.eq(self.stamps - 1 - entry.last),
        ]
        return candidate

    def _weighed(self, m: Module, lane: int, candidate: data.View) -> data.View:
        node = Signal(self._node(0), name=f"lane{lane}")
        m.d.sync += [
            node.valid.eq(candidate.valid),
            node.worth.eq(candidate.value + Mux(candidate.counts, candidate.chance, 0)),
            node.age.eq(candidate.age),
        ]
        return node

    def _node(self, level: int) -> data.StructLayout:
        """A node ``level`` levels above the lanes; of so many lanes it says which one it is."""
        fields = {"valid": 1, "worth": signed(self.shape.worth_bits), "age": unsigned(self.shape.limits.stamp_bits)}
        return data.StructLayout({**fields, "lane": unsigned(level)} if level else fields)

    def _better(self, m: Module, level: int, nth: int, most: Value, left: data.View, right: data.View) -> data.View:
        """Of two nodes, of which ``right`` has the larger key."""
        node, takes = Signal(self._node(level), name=f"level{level}_{nth}"), Signal(name=f"takes{level}_{nth}")
        m.d.comb += takes.eq(self._takes(most, left, right))
        m.d.sync += [
            getattr(node, name).eq(Mux(takes, getattr(right, name), getattr(left, name)))
            for name in ("valid", "worth", "age")
        ]
        m.d.sync += node.lane.eq(Cat(Mux(takes, right.lane, left.lane), takes) if level > 1 else takes)
        return node

    def _takes(self, most: Value, left: data.View, right: data.View) -> Value:
        """Whether ``right``, of the larger key, is the better one."""
        no_younger = ~self.by_recency | (right.age >= left.age)
        least = (right.worth < left.worth) | ((right.worth == left.worth) & no_younger)
        return right.valid & (~left.valid | Mux(most, right.worth > left.worth, least))


class _Token:
    """What travels beside the entries through the stages: of which word they are."""

    def __init__(self, m: Module, shape: StagerShape, expert_bits: int) -> None:
        self._m = m
        self._layout = data.StructLayout(
            {"valid": 1, "last": 1, "layer": unsigned(shape.layer_bits), "below": unsigned(expert_bits)}
        )
        self._stage = 0

    def enter(self, valid: Value, last: Value, layer: Value, below: Value) -> data.View:
        """The token beside what is read now, one stage on."""
        token = self._next()
        self._m.d.sync += [token.valid.eq(valid), token.last.eq(last), token.layer.eq(layer), token.below.eq(below)]
        return token

    def advance(self, token: data.View) -> data.View:
        """The same token, one stage on."""
        after = self._next()
        self._m.d.sync += after.eq(token)
        return after

    def _next(self) -> data.View:
        self._stage += 1
        return Signal(self._layout, name=f"token{self._stage}")
