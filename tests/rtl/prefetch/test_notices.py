"""Notices: what a slot's gate chose is here, waited for, arrived or given up, and its layer is ready."""

from typing import Any

import pytest

from predictor.engine.limits import PrefetchEngineLimits
from predictor.engine.notices import Notice, NoticeKind
from rtl.prefetch.notices import Notices
from rtl.prefetch.stager.layouts import ActionKind, ActionWhy, Command
from tests.rtl.simulate import simulate

LIMITS = PrefetchEngineLimits(
    slots_max=2, layers_max=4, experts_max=8, top_k_max=3, candidates_max=2, places=5, spare=2
)
HERE, ELSEWHERE, ARRIVED, FAILED, READY = NoticeKind


class Bench:
    """Plays the stager: a command, its actions a cycle each, idle again."""

    def __init__(self, ctx: Any, dut: Notices) -> None:
        self.ctx, self.dut = ctx, dut
        self.cycle = 0
        self.told: list[tuple[int, Notice]] = []
        self.wanted: list[int] = []
        ctx.set(dut.idle, 1)
        ctx.set(dut.notices.ready, 1)

    async def tick(self) -> None:
        """A cycle; what is told in it is kept with its number."""
        payload = self.dut.notices.payload
        if self.ctx.get(self.dut.notices.valid) and self.ctx.get(self.dut.notices.ready):
            fields = (payload.kind, payload.slot, payload.layer, payload.expert, payload.place)
            kind, *others = (self.ctx.get(field) for field in fields)
            self.told.append((self.cycle, Notice(NoticeKind(kind), *others)))
            self.wanted.append(self.ctx.get(payload.wanted))
        await self.ctx.tick()
        self.cycle += 1

    async def command(self, kind: Command, *actions: tuple[Any, ...], slot: int = 0, layer: int = 0) -> None:
        """Begin as soon as all is told."""
        ctx, dut = self.ctx, self.dut
        while not ctx.get(dut.open):
            await self.tick()
        for port, value in ((dut.taken, 1), (dut.kind, kind), (dut.slot, slot), (dut.layer, layer)):
            ctx.set(port, value)
        await self.tick()
        ctx.set(dut.taken, 0)
        ctx.set(dut.idle, not actions)
        for what, expert, *rest in actions:
            place, why = [*rest, None, ActionWhy.NONE][:2] if rest else (None, ActionWhy.NONE)
            ctx.set(
                dut.actions,
                {
                    "valid": 1,
                    "kind": what,
                    "why": why,
                    "key": {"layer": layer, "expert": expert},
                    "placed": place is not None,
                    "place": LIMITS.places + LIMITS.spare if place is None else place,
                },
            )
            await self.tick()
        ctx.set(dut.actions.valid, 0)
        ctx.set(dut.idle, 1)

    async def arrive(self, layer: int, expert: int, place: int) -> None:
        """What moves is complete."""
        self.ctx.set(self.dut.moving, {"layer": layer, "expert": expert, "place": place})
        await self.command(Command.ARRIVE)

    async def notices(self) -> list[Notice]:
        """Those since the last call."""
        for _ in range(6):
            await self.tick()
        told, self.told = self.told, []
        return [notice for _, notice in told]


def test_a_gate_is_told_where_its_experts_are_and_when_all_have_come() -> None:
    dut = Notices(LIMITS)

    async def bench(ctx: Any) -> None:
        play = Bench(ctx, dut)
        await play.command(
            Command.DEMAND, (ActionKind.HIT, 3, 4), (ActionKind.WAIT, 5), (ActionKind.PROMOTE, 1), slot=1, layer=2
        )
        assert await play.notices() == [Notice(HERE, 1, 2, 3, 4)]
        assert ctx.get(dut.waits)
        await play.command(Command.DEMAND, (ActionKind.PROMOTE, 5), (ActionKind.HIT, 6), slot=0, layer=2)
        assert await play.notices() == [Notice(HERE, 0, 2, 6, 7)], "the landing place is behind all others"
        await play.arrive(3, 5, 1)
        assert await play.notices() == [Notice(ARRIVED, 0, 3, 5, 1)], "of another layer"
        await play.arrive(2, 1, 0)
        assert await play.notices() == [Notice(ARRIVED, 0, 2, 1, 0)]
        await play.arrive(2, 5, 3)
        assert await play.notices() == [Notice(ARRIVED, 0, 2, 5, 3), Notice(READY, 0, 2), Notice(READY, 1, 2)]
        assert play.wanted == [0, 0, 0, 1, 1, 0, 0]
        assert not ctx.get(dut.waits)
        ctx.set(dut.slot, 1)
        assert ctx.get(dut.demanded_count) == 3
        assert list(ctx.get(dut.demanded)) == [3, 5, 1]
        ctx.set(dut.slot, 0)
        assert list(ctx.get(dut.demanded))[: ctx.get(dut.demanded_count)] == [5, 6]

    simulate(dut, bench)


def test_a_gate_that_waits_for_nothing_is_ready_at_once() -> None:
    dut = Notices(LIMITS)

    async def bench(ctx: Any) -> None:
        play = Bench(ctx, dut)
        await play.command(Command.DEMAND, slot=1, layer=3)
        assert await play.notices() == [Notice(READY, 1, 3)]
        await play.command(Command.DEMAND, (ActionKind.ELSEWHERE, 2), (ActionKind.HIT, 7, 0), slot=0, layer=1)
        assert await play.notices() == [Notice(ELSEWHERE, 0, 1, 2), Notice(HERE, 0, 1, 7, 0), Notice(READY, 0, 1)]
        ctx.set(dut.slot, 0)
        assert list(ctx.get(dut.demanded))[: ctx.get(dut.demanded_count)] == [7]

    simulate(dut, bench)


def test_what_is_given_up_is_told_to_each_slot_that_waits_and_only_to_those() -> None:
    dut = Notices(LIMITS)

    async def bench(ctx: Any) -> None:
        play = Bench(ctx, dut)
        await play.command(Command.DEMAND, (ActionKind.WAIT, 5), (ActionKind.WAIT, 6), slot=0, layer=2)
        await play.command(Command.DEMAND, (ActionKind.PROMOTE, 5), slot=1, layer=2)
        await play.command(Command.FAIL, (ActionKind.PAUSE, 5, None, ActionWhy.FAILED), layer=2)
        assert await play.notices() == [], "it is tried again"
        await play.command(Command.FAIL, (ActionKind.DROP, 4, None, ActionWhy.FAILED), layer=2)
        assert await play.notices() == [], "nobody waits for it"
        await play.command(Command.FAIL, (ActionKind.DROP, 5, None, ActionWhy.FAILED), layer=2)
        assert await play.notices() == [Notice(FAILED, 0, 2, 5), Notice(FAILED, 1, 2, 5), Notice(READY, 1, 2)]
        await play.command(Command.RELEASE, slot=0, layer=2)
        await play.arrive(2, 6, 0)
        assert await play.notices() == [Notice(ARRIVED, 0, 2, 6, 0)], "released before it came"
        assert not ctx.get(dut.busy)

    simulate(dut, bench)


def test_ready_is_told_in_the_cycle_in_which_the_stager_is_idle_again() -> None:
    dut = Notices(LIMITS)

    async def bench(ctx: Any) -> None:
        play = Bench(ctx, dut)
        await play.command(Command.DEMAND, (ActionKind.HIT, 3, 4), (ActionKind.HIT, 2, 1), slot=1, layer=2)
        assert play.cycle == 3  # taken in 0, an action in 1 and 2
        assert not ctx.get(dut.open)
        await play.tick()
        assert ctx.get(dut.open)
        await play.notices()

    async def check(ctx: Any) -> None:
        valid_in = []
        for cycle in range(8):
            if ctx.get(dut.notices.valid):
                valid_in.append((cycle, ctx.get(dut.notices.payload.kind)))
            await ctx.tick()
        assert valid_in == [(2, HERE), (3, HERE), (4, READY)]

    simulate(dut, bench, check)


@pytest.mark.parametrize("commands", [40])
def test_no_command_is_let_begin_whose_notices_may_find_no_room(commands: int) -> None:
    dut = Notices(LIMITS)

    async def bench(ctx: Any) -> None:
        play = Bench(ctx, dut)
        ctx.set(dut.notices.ready, 0)
        begun = 0
        for _ in range(commands):
            for _ in range(4):
                await play.tick()
            if not ctx.get(dut.open):
                break
            await play.command(Command.DEMAND, *[(ActionKind.HIT, nth, nth) for nth in range(3)], slot=0, layer=0)
            begun += 1
        assert begun == 3  # 4 notices each, of a queue of 16 of which 8 stay free for the next
        ctx.set(dut.notices.ready, 1)
        for _ in range(16):
            await play.tick()
        assert len(play.told) == 12

    simulate(dut, bench)
