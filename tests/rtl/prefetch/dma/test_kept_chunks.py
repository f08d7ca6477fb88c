"""What paused transfers have: kept by key, forgotten one by one or all at once."""

from typing import Any

from rtl.prefetch.dma.kept import KeptChunks
from tests.rtl.prefetch.dma.link_bench import SHAPE
from tests.rtl.simulate import simulate


def test_chunks_are_kept_by_key_until_they_are_taken_or_forgotten() -> None:
    dut = KeptChunks(SHAPE)
    seen: list[int] = []

    async def bench(ctx: Any) -> None:
        async def tell(layer: int, expert: int, **strobes: int) -> None:
            ctx.set(dut.key, {"layer": layer, "expert": expert})
            for name, value in strobes.items():
                ctx.set(getattr(dut, name), value)
            seen.append(ctx.get(dut.chunks))
            await ctx.tick()
            for name in strobes:
                ctx.set(getattr(dut, name), 0)

        for nth in range(SHAPE.limits.queue_depth + 1):  # as many as there can be
            await tell(nth // 4, nth % 4, keep=1, kept=nth + 5)
        seen.clear()
        await tell(0, 3, take=1)
        await tell(0, 3)
        await tell(1, 1, forget=1)
        await tell(1, 1)
        await tell(0, 3, keep=1, kept=9)
        await tell(0, 3)
        await tell(1, 2)
        await tell(0, 0, clear=1)
        await tell(0, 0)
        await tell(1, 2)

    simulate(dut, bench)
    assert seen == [8, 0, 10, 0, 0, 9, 11, 5, 0, 0]
