"""The history: this token's layers below, the previous token's above."""

from typing import Any

from predictor.st_moe.parameters import EngineLimits
from rtl.prefetch.tables.history import History
from tests.rtl.simulate import simulate

LIMITS = EngineLimits(experts_max=16, layers_max=6, top_k_max=2, candidates_max=2, slots_max=3)


def test_source_is_of_this_token_and_target_of_this_sequence() -> None:
    dut = History(LIMITS)

    async def start(ctx: Any, *, token: int = 0, sequence: int = 0, slot: int = 0, domain: int = 0) -> None:
        ctx.set(dut.start_slot, slot)
        ctx.set(dut.start_domain, domain)
        ctx.set(dut.start_token, token)
        ctx.set(dut.start_sequence, sequence)
        await ctx.tick()
        ctx.set(dut.start_token, 0)
        ctx.set(dut.start_sequence, 0)

    async def event(ctx: Any, layer: int, experts: list[int], *, write: int = 1, slot: int = 0) -> tuple[Any, Any]:
        """Check one event; returns what is known of its source and target (None: nothing)."""
        ctx.set(dut.slot, slot)
        ctx.set(dut.layer, layer)
        ctx.set(dut.experts, experts)
        ctx.set(dut.read, 1)
        ctx.set(dut.write, write)
        assert ctx.get(dut.target_layer) == layer + 2
        in_token = ctx.get(dut.source_in_token)
        await ctx.tick()
        ctx.set(dut.read, 0)
        ctx.set(dut.write, 0)
        source = [ctx.get(dut.source[nth]) for nth in range(2)] if in_token else None
        target = [ctx.get(dut.target[nth]) for nth in range(2)] if ctx.get(dut.target_in_sequence) else None
        return source, target

    async def bench(ctx: Any) -> None:
        ctx.set(dut.lookahead, 2)
        await start(ctx, sequence=1)
        assert await event(ctx, 0, [1, 2]) == (None, None)
        assert await event(ctx, 1, [3, 4]) == (None, None)
        assert await event(ctx, 2, [5, 6]) == ([1, 2], None)
        assert await event(ctx, 5, [7, 8]) == (None, None)  # layer 3 is not known
        await start(ctx, token=1)
        assert await event(ctx, 0, [9, 10]) == (None, [5, 6])
        assert await event(ctx, 1, [11, 12], write=0) == (None, None)
        assert await event(ctx, 3, [13, 14]) == (None, [7, 8])  # layer 1 of this token was refused
        assert await event(ctx, 2, [0, 0]) == ([9, 10], None)
        await start(ctx, sequence=1)
        assert await event(ctx, 4, [1, 2]) == (None, None)
        assert await event(ctx, 0, [1, 2]) == (None, None)

        # What another slot begins and learns is its own.
        await start(ctx, sequence=1, slot=2, domain=5)
        assert await event(ctx, 0, [9, 9], slot=2) == (None, None)
        assert ctx.get(dut.domain) == 5
        assert await event(ctx, 2, [7, 6]) == ([1, 2], [1, 2])
        assert ctx.get(dut.domain) == 0
        await start(ctx, token=1, slot=2)
        assert await event(ctx, 4, [3, 3]) == ([7, 6], None)
        assert await event(ctx, 2, [3, 3], slot=2) == (None, None)
        await start(ctx, sequence=1, slot=3, domain=7)  # there is none
        assert await event(ctx, 4, [3, 3]) == ([7, 6], None)
        ctx.set(dut.forget, 1)
        await ctx.tick()
        ctx.set(dut.forget, 0)
        assert await event(ctx, 4, [3, 3]) == (None, None)
        assert await event(ctx, 2, [3, 3], slot=2) == (None, None)
        assert ctx.get(dut.domain) == 0

    simulate(dut, bench)
