"""The fork: every taker gets every payload once, in order, whenever it likes."""

import random
from typing import Any

from amaranth.hdl import unsigned

from rtl.prefetch.fork import Fork
from tests.rtl.simulate import simulate


def test_every_taker_gets_every_payload_once() -> None:
    dut = Fork(unsigned(8), 2)
    taken: list[list[int]] = [[], []]
    generator = random.Random(4)

    async def bench(ctx: Any) -> None:
        sent = 0
        while sent < 100:
            offered = generator.random() < 0.7 or ctx.get(dut.input.valid)
            ctx.set(dut.input.valid, offered)
            ctx.set(dut.input.payload, sent)
            for nth in range(2):
                ctx.set(dut.outputs[nth].ready, generator.random() < 0.5)
            for nth in range(2):
                if ctx.get(dut.outputs[nth].valid) and ctx.get(dut.outputs[nth].ready):
                    taken[nth].append(ctx.get(dut.outputs[nth].payload))
            if ctx.get(dut.input.valid) and ctx.get(dut.input.ready):
                sent += 1
                await ctx.tick()
                ctx.set(dut.input.valid, 0)
            else:
                await ctx.tick()

    simulate(dut, bench)
    assert taken == [list(range(100))] * 2
