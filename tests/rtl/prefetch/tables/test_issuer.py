"""The request issuer against a stable sort."""

from typing import Any

import numpy as np
import pytest

from predictor.st_moe.parameters import EngineLimits
from rtl.prefetch.tables.issuer import RequestIssuer
from tests.rtl.simulate import simulate

LIMITS = EngineLimits(experts_max=16, layers_max=2, top_k_max=2, candidates_max=2)
DEPTH = 4


def expected_items(scores: np.ndarray, eligible: np.ndarray, limit: int) -> list[tuple[int, int, int]]:
    """(expert, score, last), best first."""
    order = [int(expert) for expert in np.argsort(-scores, kind="stable") if eligible[expert]][:limit]
    return [(expert, int(scores[expert]), int(nth == len(order))) for nth, expert in enumerate(order, 1)]


async def load(ctx: Any, dut: RequestIssuer, scores: np.ndarray, eligible: np.ndarray, limit: int) -> None:
    """One cycle of load."""
    for expert, score in enumerate(scores.tolist()):
        ctx.set(dut.scores[expert], score)
    ctx.set(dut.eligible, sum(int(bit) << nth for nth, bit in enumerate(eligible)))
    ctx.set(dut.limit, limit)
    ctx.set(dut.load, 1)
    await ctx.tick()
    ctx.set(dut.load, 0)
    ctx.set(dut.limit, 0)  # read at load only
    ctx.set(dut.eligible, 0)


async def collect(ctx: Any, dut: RequestIssuer, ready: Any) -> tuple[list[tuple[int, int, int]], int, int]:
    """Items handed over until ``finishing``, the cycles to the first valid one, and all cycles; from the load on."""
    items: list[tuple[int, int, int]] = []
    first = -1
    for cycle in range(1000):
        ctx.set(dut.best.ready, ready())
        valid, finishing = ctx.get(dut.best.valid), ctx.get(dut.finishing)
        if valid and first < 0:
            first = cycle
        if valid and ctx.get(dut.best.ready):
            payload = dut.best.payload
            items.append((ctx.get(payload.expert), ctx.get(payload.score), ctx.get(payload.last)))
        await ctx.tick()
        if finishing:
            return items, first, cycle + 1
    raise AssertionError("never finished")


@pytest.mark.parametrize("ready_share", [1.0, 0.4])
def test_items_leave_in_order_one_a_cycle(ready_share: float) -> None:
    dut = RequestIssuer(LIMITS)
    generator = np.random.default_rng(1)

    async def bench(ctx: Any) -> None:
        for trial in range(60):
            scores = generator.integers(0, (2, 4, 10)[trial % 3], 16)
            eligible = generator.random(16) < (0.0, 0.2, 0.7, 1.0)[trial % 4]
            limit = int(generator.integers(0, 17))
            await load(ctx, dut, scores, eligible, limit)
            items, first, cycles = await collect(ctx, dut, lambda: int(generator.random() < ready_share))
            expected = expected_items(scores, eligible, limit)
            assert items == expected
            assert first == (DEPTH if expected else -1)
            if ready_share == 1.0:
                assert cycles == DEPTH + max(len(expected), 1)
            assert not ctx.get(dut.best.valid)

    simulate(dut, bench)


def test_a_new_load_drops_what_was_left() -> None:
    dut = RequestIssuer(LIMITS)

    async def bench(ctx: Any) -> None:
        await load(ctx, dut, np.arange(16) % 10, np.ones(16, bool), 16)
        await ctx.tick().repeat(9)
        scores = np.zeros(16, int)
        scores[11] = 5
        await load(ctx, dut, scores, scores > 0, 16)
        assert (await collect(ctx, dut, lambda: 1))[0] == [(11, 5, 1)]

    simulate(dut, bench)
