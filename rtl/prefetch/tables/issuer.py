"""The request issuer: every expert that is eligible, best score first, one a cycle."""

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.st_moe.parameters import EngineLimits
from rtl.checks import always, always_within, implies


class RequestIssuer(wiring.Component):
    """Sorts as it issues, in a tournament tree of registers.

    The leaves are the experts' scores; every node above holds the best of what is left below it, ties to the smaller
    expert. A node whose item is taken takes the better of its children in the same cycle, so the root yields an item
    every cycle once it is first filled: ``log2(experts_max)`` cycles after the leaves. The comparisons of all levels
    run side by side between registers; only the one-bit ``take`` runs through the levels, so the depth costs little
    time.

    In the cycle of ``load``, ``scores`` and ``eligible`` are taken in and whatever was left is dropped. ``finishing``
    is high in the last cycle of a load: that in which the last request is handed over, or in which the root shows that
    there is none. ``limit`` (at most that many requests) is read at ``load``.
    """

    def __init__(self, limits: EngineLimits) -> None:
        self.limits = limits
        best = data.StructLayout(
            {"expert": unsigned(limits.expert_bits), "score": unsigned(limits.score_bits), "last": 1}
        )
        super().__init__(
            {
                "load": In(1),
                "scores": In(data.ArrayLayout(unsigned(limits.score_bits), limits.experts_max)),
                "eligible": In(limits.experts_max),
                "limit": In(range(limits.experts_max + 1)),
                "best": Out(stream.Signature(best)),
                "finishing": Out(1),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth = self.limits.expert_bits
        leaves = self.limits.experts_max
        item = data.StructLayout(
            {"expert": unsigned(self.limits.expert_bits), "score": unsigned(self.limits.score_bits), "valid": 1}
        )
        # A leaf's expert is its index, for good; a node's first one is of no account, as the node is not valid.
        levels = [
            [Signal(item, name=f"level{level}_{nth}", init={"expert": nth}) for nth in range(leaves >> level)]
            for level in range(depth + 1)
        ]
        takes = [[Signal(name=f"take{level}_{nth}") for nth in range(leaves >> level)] for level in range(depth + 1)]

        for leaf, take in zip(levels[0], takes[0], strict=True):
            with m.If(take):
                m.d.sync += leaf.valid.eq(0)
        for level in range(1, depth + 1):
            for nth, (node, take) in enumerate(zip(levels[level], takes[level], strict=True)):
                left, right = levels[level - 1][2 * nth : 2 * nth + 2]
                choose_left = Signal(name=f"choose_left{level}_{nth}")
                refill = Signal(name=f"refill{level}_{nth}")
                m.d.comb += [
                    choose_left.eq(left.valid & (~right.valid | (left.score >= right.score))),
                    refill.eq(take | ~node.valid),
                    takes[level - 1][2 * nth].eq(refill & choose_left),
                    takes[level - 1][2 * nth + 1].eq(refill & right.valid & ~choose_left),
                ]
                with m.If(refill):
                    m.d.sync += node.eq(Mux(choose_left, left.as_value(), right.as_value()))
        root, root_take = levels[depth][0], takes[depth][0]

        active = Signal()
        to_fill = Signal(range(depth + 1))
        remaining = Signal(range(self.limits.experts_max + 1))
        available = Signal()
        m.d.comb += [
            available.eq(active & (to_fill == 0)),
            self.best.valid.eq(available & root.valid & (remaining != 0)),
            self.best.payload.expert.eq(root.expert),
            self.best.payload.score.eq(root.score),
            self.best.payload.last.eq((remaining == 1) | ~(levels[depth - 1][0].valid | levels[depth - 1][1].valid)),
            root_take.eq(self.best.valid & self.best.ready),
            self.finishing.eq(available & (~self.best.valid | (self.best.ready & self.best.payload.last))),
        ]
        with m.If(to_fill != 0):
            m.d.sync += to_fill.eq(to_fill - 1)
        with m.If(root_take):
            m.d.sync += remaining.eq(remaining - 1)
        with m.If(self.finishing):
            m.d.sync += active.eq(0)
        with m.If(self.load):
            m.d.sync += [active.eq(1), to_fill.eq(depth), remaining.eq(self.limit)]
            for expert, leaf in enumerate(levels[0]):
                m.d.sync += [leaf.score.eq(self.scores[expert]), leaf.valid.eq(self.eligible[expert])]
            m.d.sync += [node.valid.eq(0) for level in levels[1:] for node in level]
        for child in levels[depth - 1]:
            ordered = (root.score > child.score) | ((root.score == child.score) & (root.expert < child.expert))
            always(m, implies(self.best.valid & child.valid, ordered), "issuer: a request overtakes a better one")
        always_within(
            m, remaining, 0, self.limits.experts_max, "issuer: more requests are allowed than there are experts"
        )
        always_within(m, to_fill, 0, depth, "issuer: the tree fills for longer than it is deep")
        return m
