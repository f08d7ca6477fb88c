"""The net in lock-step with the twins of its heads: every score, chance, answer and cycle."""

from typing import Any

import numpy as np
import pytest

from cocotb_tests.net.script import NetScript
from predictor.row_network.cycles import NetSchedule
from predictor.row_network.limits import NetLimits
from predictor.row_network.program import Memory
from rtl.prefetch.net.net import Net
from tests.learned_samples import identified_trace, random_next_use, random_predictor
from tests.predictor.row_network.test_program import program_of
from tests.rtl.prefetch.net.net_bench import load, small_limits
from tests.rtl.simulate import simulate

VALUE_LANES = 4


class Run:
    """A script on the net: what came when; clocks are counted from an event's acceptance."""

    def __init__(self, script: NetScript, limits: Any, *, waits: bool = False, seed: int = 0) -> None:
        self.script, self.waits = script, waits
        self.dut = Net(limits, prefetched=8, value_lanes=VALUE_LANES)
        self.generator = np.random.default_rng(seed)
        self.clock = 0
        self.loaded = self.done = False
        self.accepted: list[int] = []
        self.prefetches: list[tuple[int, int, int, list[tuple[int, int]]]] = []
        self.values: list[tuple[int, int, list[int]]] = []
        self.scored: list[tuple[int, ...]] = []
        self.item_clocks: list[list[int]] = [[] for _ in script.told]
        simulate(self.dut, self.count, self.tell, self.text, self.take_prefetches, self.take_values, self.watch)

    async def pause(self, ctx: Any) -> None:
        while self.waits and self.generator.random() < 0.5:
            await ctx.tick()

    async def count(self, ctx: Any) -> None:
        while not self.done:
            await ctx.tick()
            self.clock += 1

    async def tell(self, ctx: Any) -> None:
        dut, script = self.dut, self.script
        for head, program in enumerate(script.programs):
            if program is not None:
                await load(ctx, dut.load, program.contents(), head, tuple(Memory))
        ctx.set(dut.next_layer, script.programs[0] is not None)
        ctx.set(dut.next_use, script.programs[1] is not None)
        ctx.set(dut.by_routing, script.by_routing)
        ctx.set(dut.wanted, script.wanted)
        ctx.set(dut.threshold, script.threshold)
        self.loaded = True
        for told in script.told:
            await self.pause(ctx)
            ctx.set(dut.events.payload, {"layer": 0, "known": 0, "starts_sequence": 0, **told.event})
            ctx.set(dut.events.valid, 1)
            while not ctx.get(dut.events.ready):
                await ctx.tick()
            self.accepted.append(self.clock)
            await ctx.tick()
            ctx.set(dut.events.valid, 0)
        while ctx.get(dut.busy):
            await ctx.tick()
        self.done = True

    async def text(self, ctx: Any) -> None:
        items = self.dut.items
        for told, clocks in zip(self.script.told, self.item_clocks, strict=True):
            for item in told.items:
                await self.pause(ctx)
                ctx.set(items.payload, item)
                ctx.set(items.valid, 1)
                clocks.append(self.clock)
                while not ctx.get(items.ready):
                    await ctx.tick()
                await ctx.tick()
                ctx.set(items.valid, 0)

    async def take_prefetches(self, ctx: Any) -> None:
        answers, deadline = self.dut.prefetch, self.dut.deadline
        while not self.done:
            while not ctx.get(answers.valid) and not self.done:
                await ctx.tick()
            if self.done:
                return
            came = self.clock
            await self.pause(ctx)
            found = [
                (ctx.get(answers.payload.experts[n]), ctx.get(answers.payload.chances[n]))
                for n in range(ctx.get(answers.payload.count))
            ]
            self.prefetches.append((came, ctx.get(answers.payload.layer), ctx.get(deadline), found))
            ctx.set(answers.ready, 1)
            await ctx.tick()
            ctx.set(answers.ready, 0)

    async def take_values(self, ctx: Any) -> None:
        dut, experts = self.dut, next(p for p in self.script.programs if p is not None).settings.experts
        while not self.done:
            while not ctx.get(dut.values.valid) and not self.done:
                await ctx.tick()
            if self.done:
                return
            came, row = self.clock, []
            for group in range(-(-experts // VALUE_LANES)):
                ctx.set(dut.read_values, 1)
                ctx.set(dut.values_group, group)
                await ctx.tick()
                word = ctx.get(dut.values_row)
                bits = len(dut.values_row) // VALUE_LANES
                row += [word >> (bits * lane) & ((1 << bits) - 1) for lane in range(VALUE_LANES)]
            ctx.set(dut.read_values, 0)
            await self.pause(ctx)
            self.values.append((came, ctx.get(dut.values.payload.layer), row[:experts]))
            ctx.set(dut.values.ready, 1)
            await ctx.tick()
            ctx.set(dut.values.ready, 0)

    async def watch(self, ctx: Any) -> None:
        scored = self.dut.scored
        names = ("head", "slot", "target", "answer", "score", "chance")
        while not self.done:
            await ctx.tick()
            if ctx.get(scored.valid):
                self.scored.append(tuple(ctx.get(getattr(scored, name)) for name in names))

    def compare(self) -> None:
        """Every score, chance and answer is the twin's."""
        expected = [
            (head, slot, target, answer, int(score), int(chance))
            for told in self.script.told
            for head, slot, target, scores, chances in told.scores
            for answer, (score, chance) in enumerate(zip(scores, chances, strict=True))
        ]
        assert len(self.scored) == len(expected)
        for n, (found, wanted) in enumerate(zip(self.scored, expected, strict=True)):
            assert found == wanted, n
        assert [p[1:] for p in self.prefetches] == [p for told in self.script.told for p in told.prefetches]
        wanted_values = [(told.event["layer"], told.values) for told in self.script.told if told.values is not None]
        assert [v[1:] for v in self.values] == wanted_values

    def compare_cycles(self) -> None:
        """Where nothing waits, every answer comes in its cycle, and so is the next event taken."""
        script = self.script
        schedule = NetSchedule(*script.programs, lanes=self.dut.limits.lanes)
        prefetches, values = iter(self.prefetches), iter(self.values)
        free = self.accepted[0]
        groups = -(-self.dut.limits.experts // VALUE_LANES)
        for told, accepted, clocks in zip(script.told, self.accepted, self.item_clocks, strict=True):
            assert accepted == free, told.event
            cycles = script.cycles_of(schedule, told, [clock - accepted for clock in clocks])
            taken = [accepted]
            for after in cycles.prefetches:
                came = next(prefetches)[0]
                assert came == accepted + after, told.event
                taken.append(came + 1)
            if cycles.values:
                came = next(values)[0]
                assert came == accepted + cycles.values, told.event
                taken.append(came + groups + 1)
            free = max(*taken, accepted + cycles.next)


def script(*, kind: dict[str, Any], lengths: tuple[tuple[int, ...], ...]) -> NetScript:
    """Random heads of three layers, and some slots."""
    shape = {"layers": 3, "experts": 4, "top_k": 2}
    first = random_predictor(hidden=14, seed=3, **shape, **kind).network
    second = random_next_use(np.random.default_rng(2), ranked=True, **shape).network
    traces = [identified_trace(lengths=each, seed=seed, unrecorded=0.2, **shape) for seed, each in enumerate(lengths)]
    networks = [first, second]
    return NetScript(networks, [program_of(n, lanes=8) for n in networks], traces, wanted=3, threshold=2000)


def limits_of_three_layers() -> NetLimits:
    head = {**small_limits().next_layer.model_dump(), "hidden": 16, "row_words": 400}
    return small_limits(next_layer=head, layers=3, experts=4, top_k=2)


@pytest.mark.parametrize("waits", [False, True])
def test_the_net_answers_as_its_twins_in_its_cycles(waits: bool) -> None:
    run = Run(script(kind={}, lengths=((1, 2), (3,))), limits_of_three_layers(), waits=waits)
    run.compare()
    if not waits:
        run.compare_cycles()
