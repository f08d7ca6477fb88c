"""The counters by themselves."""

from typing import Any

from predictor.st_moe.events import EngineCounter
from rtl.bus.counters import Counters
from tests.rtl.simulate import simulate


def test_a_clear_wins_over_what_is_counted_in_its_cycle() -> None:
    dut = Counters(EngineCounter, {EngineCounter.CANDIDATE_HITS: 3})

    async def bench(ctx: Any) -> None:
        ctx.set(dut.increments, {"events": 1, "candidate_hits": 5})
        await ctx.tick().repeat(3)
        assert (ctx.get(dut.values[EngineCounter.EVENTS]), ctx.get(dut.values[EngineCounter.CANDIDATE_HITS])) == (3, 15)
        ctx.set(dut.clear, 1)
        await ctx.tick()
        assert [ctx.get(dut.values[counter]) for counter in EngineCounter] == [0] * len(EngineCounter)
        ctx.set(dut.clear, 0)
        await ctx.tick()
        assert ctx.get(dut.values[EngineCounter.CANDIDATE_HITS]) == 5

    simulate(dut, bench)
