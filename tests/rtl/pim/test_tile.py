"""The tile's parts by themselves, in Amaranth's simulator; the whole is replayed in tests/cocotb_tests."""

import random

import pytest

pytest.importorskip("amaranth", reason="needs the extra 'hardware'")

from amaranth.sim import Simulator

from pim_model.tile import TileParameters
from rtl.pim import tile as pim_tile

PARAMETERS = TileParameters(lanes=4, vector_chunks=3, accumulators=3, max_rows=9)


def test_lanes_take_beats_in_any_order() -> None:
    """Three sums, their beats interleaved at random, with gaps and a consumer that waits: no order but its own."""
    generator = random.Random(3)
    dut = pim_tile.DotProductLanes(PARAMETERS)
    terms = {
        a: [([generator.randrange(-128, 128) for _ in range(4)], [-128, 127, 5, 0]) for _ in range(5)] for a in range(3)
    }
    order = [a for a in terms for _ in terms[a]]
    generator.shuffle(order)
    taken: list[int] = []
    finished = []

    async def feed(ctx) -> None:
        done = dict.fromkeys(terms, 0)
        for accumulator in order:
            while generator.random() < 0.3:
                await ctx.tick()
            weights, inputs = terms[accumulator][done[accumulator]]
            done[accumulator] += 1
            ctx.set(dut.weights, weights)
            ctx.set(dut.inputs, inputs)
            last = done[accumulator] == 5
            ctx.set(dut.beat, {"accumulator": accumulator, "first": done[accumulator] == 1, "last": last, "end": 0})
            ctx.set(dut.valid, 1)
            await ctx.tick().until(dut.advance)
            ctx.set(dut.valid, 0)
            if last:
                finished.append(accumulator)

    async def drain(ctx) -> None:
        while len(taken) < 3:
            ctx.set(dut.results.ready, generator.random() < 0.4)
            _, _, valid, ready, value = await ctx.tick().sample(
                dut.results.valid, dut.results.ready, dut.results.p.value
            )
            if valid and ready:
                taken.append(value)

    simulator = Simulator(dut)
    simulator.add_clock(1e-9)
    simulator.add_testbench(feed)
    simulator.add_testbench(drain)
    simulator.run_until(2e-6)
    sums = {a: sum(w * x for ws, xs in beats for w, x in zip(ws, xs, strict=True)) for a, beats in terms.items()}
    assert taken == [sums[a] for a in finished]


def test_the_vector_buffer_holds_two_vectors_and_no_third() -> None:
    dut = pim_tile.VectorBuffer(PARAMETERS)

    async def bench(ctx) -> None:
        async def load(values: list[int], *, last: bool) -> None:
            ctx.set(dut.vector.payload, {"chunk": values, "last": last})
            ctx.set(dut.vector.valid, 1)
            await ctx.tick()
            ctx.set(dut.vector.valid, 0)

        async def read(address: int) -> list[int]:
            ctx.set(dut.address, address)
            ctx.set(dut.enable, 1)
            await ctx.tick()
            ctx.set(dut.enable, 0)
            return list(ctx.get(dut.chunk))

        await load([1, 2, 3, -4], last=False)
        assert not ctx.get(dut.full)
        await load([5, 6, 7, 8], last=True)
        assert ctx.get(dut.full)
        assert ctx.get(dut.vector.ready)
        await load([9, 9, 9, 9], last=True)
        assert not ctx.get(dut.vector.ready)
        await load([66, 66, 66, 66], last=True)  # not accepted
        assert await read(0) == [1, 2, 3, -4]
        assert await read(1) == [5, 6, 7, 8]
        await ctx.tick().repeat(2)
        assert list(ctx.get(dut.chunk)) == [5, 6, 7, 8]  # held while not enabled
        ctx.set(dut.release, 1)
        await ctx.tick()
        ctx.set(dut.release, 0)
        assert ctx.get(dut.vector.ready)
        assert ctx.get(dut.full)
        assert await read(0) == [9, 9, 9, 9]

    simulator = Simulator(dut)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("seed", range(4))
def test_the_sequencer_walks_groups_chunks_and_rows(seed: int) -> None:
    """Against three nested loops, with vectors that are late and beats that wait; jobs follow without a gap."""
    generator = random.Random(seed)
    dut = pim_tile.GemvSequencer(PARAMETERS)
    jobs = [
        {
            "rows": generator.randint(1, 9),
            "chunks": generator.randint(1, 3),
            "group": generator.randint(1, 3),
            "release": r,
        }
        for r in (1, 0, 1)
    ]
    expected = []
    for job in jobs:
        beats = [
            (chunk, row, chunk == 0, chunk == job["chunks"] - 1)
            for first in range(0, job["rows"], job["group"])
            for chunk in range(job["chunks"])
            for row in range(min(job["group"], job["rows"] - first))
        ]
        expected += [(*beat, n == len(beats), n == len(beats) and job["release"]) for n, beat in enumerate(beats, 1)]

    async def bench(ctx) -> None:
        waiting = list(jobs)
        found = []
        assert not ctx.get(dut.ready)
        while len(found) < len(expected):
            ctx.set(dut.command.valid, bool(waiting))
            if waiting:
                ctx.set(dut.command.payload, waiting[0])
            ctx.set(dut.vector_full, generator.random() < 0.8)
            ready = ctx.get(dut.ready)
            assert not ready or ctx.get(dut.vector_full)
            step = bool(ready and generator.random() < 0.7)
            ctx.set(dut.step, step)
            beat = dut.beat
            if step:
                values = (dut.chunk, beat.accumulator, beat.first, beat.last, beat.end, dut.release)
                found.append(tuple(ctx.get(value) for value in values))
            taken = bool(waiting and ctx.get(dut.command.ready))
            # Between jobs: taken in the cycle of the last beat.
            assert not taken or not found or (step and found[-1][4])
            if taken:
                waiting.pop(0)
            await ctx.tick()
        assert found == expected
        ctx.set(dut.step, 0)
        assert not ctx.get(dut.ready)
        assert ctx.get(dut.command.ready)

    simulator = Simulator(dut)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()
