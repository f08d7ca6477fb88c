"""The walk of the adaptation against the kernel of the twin."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="needs the extra 'hardware'")

from predictor.row_network import kernels
from predictor.row_network.integers import ADAPTED_LIMIT, CHANCE_SHIFT
from predictor.row_network.score_cycles import adapt_interval
from predictor.row_network.twin import RowNetwork
from rtl.prefetch.net.scores.adaptation import Adaptation
from tests.learned_samples import random_predictor
from tests.rtl.simulate import simulate

SLOTS, LAYERS, EXPERTS, TOP_K = 2, 2, 5, 2


def adapted_biases(steps: int, *, forget: bool) -> None:
    """Adapt rows at random, some so often that they reach the limits, and compare all of them after every walk."""
    network: RowNetwork = random_predictor(layers=LAYERS, experts=EXPERTS, top_k=TOP_K).network
    network.compiled_tables.chances[0] = 65535  # what is not chosen falls to the limit
    network.compiled_tables.chances[1, :, :, :128] = 0  # what is chosen rises to it
    states = [network.new_state(1) for _ in range(SLOTS)]
    dut = Adaptation(rows=SLOTS * LAYERS, rows_of_slot=LAYERS, experts=8)
    generator = np.random.default_rng(steps)
    seen = set()

    async def forget_slot(ctx: Any) -> None:
        ctx.set(dut.forget, 1)
        await ctx.tick()
        ctx.set(dut.forget, 0)

    async def bench(ctx: Any) -> None:
        ctx.set(dut.experts, EXPERTS)
        for step in range(steps):
            slot, layer = (int(v) for v in generator.integers(0, 2, 2)) if forget else (1, step % 2)
            ctx.set(dut.slot, slot)
            # Long before the walk, or in the clock before.
            early, late = (bool(forget and draw < 0.1) for draw in generator.random(2))
            if early or late:
                states[slot].adapted[:] = 0
            if early:
                await forget_slot(ctx)
            scores = generator.integers(1, 4096, EXPERTS).astype(np.int32) if layer == 0 else np.ones(EXPERTS, np.int32)
            chosen = generator.choice(EXPERTS, TOP_K, replace=False) if forget else np.array([1, 3])
            chances = network.compiled_tables.chances[layer, 0, 0][scores >> CHANCE_SHIFT]
            for expert, chance in enumerate(chances.tolist()):
                ctx.set(dut.keep, 1)
                ctx.set(dut.keep_row, slot * LAYERS + layer)
                ctx.set(dut.keep_expert, expert)
                ctx.set(dut.chance, chance)
                await ctx.tick()
            ctx.set(dut.keep, 0)
            if late:
                await forget_slot(ctx)
            ctx.set(dut.start, 1)
            ctx.set(dut.row, slot * LAYERS + layer)
            ctx.set(dut.chosen, sum(1 << int(expert) for expert in chosen))
            await ctx.tick()
            ctx.set(dut.start, 0)
            cycles = 1
            while ctx.get(dut.busy):
                await ctx.tick()
                cycles += 1
            assert cycles == adapt_interval(EXPERTS)
            kernels.adapt(
                network.rules, network.compiled_tables, states[slot], 0, layer, 1, chosen.astype(np.int16), True, scores
            )
            if forget or step > steps - 5:
                seen.update(await all_biases(ctx))

    async def all_biases(ctx: Any) -> list[int]:
        biases = []
        for row in range(SLOTS * LAYERS):
            for expert in range(EXPERTS):
                ctx.set(dut.read, 1)
                ctx.set(dut.read_row, row)
                ctx.set(dut.read_expert, expert)
                await ctx.tick()
                ctx.set(dut.read, 0)
                await ctx.tick()
                biases.append(ctx.get(dut.adapted))
        assert biases == np.array([state.adapted[0] for state in states]).reshape(-1).tolist()
        return biases

    simulate(dut, bench)
    if not forget:
        assert {-ADAPTED_LIMIT, ADAPTED_LIMIT} <= seen


def test_rows_of_all_slots_and_layers_adapt_and_are_forgotten() -> None:
    adapted_biases(60, forget=True)


def test_a_bias_stops_at_its_limits() -> None:
    adapted_biases(2 * 260, forget=False)


def test_reading_during_a_walk_is_caught() -> None:
    dut = Adaptation(rows=2, rows_of_slot=1, experts=4)

    async def bench(ctx: Any) -> None:
        ctx.set(dut.experts, 4)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        ctx.set(dut.read, 1)
        await ctx.tick()
        await ctx.tick()

    with pytest.raises(AssertionError, match="read during a walk"):
        simulate(dut, bench)
