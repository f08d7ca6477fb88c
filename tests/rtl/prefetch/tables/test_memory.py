"""The table memory: the engine's port first, the window in between."""

from typing import Any

from predictor.st_moe.parameters import EngineLimits
from rtl.prefetch.tables.memory import TableMemory
from tests.rtl.simulate import simulate

# 12 entries of 6 bits: three words a row.
LIMITS = EngineLimits(experts_max=16, layers_max=2, top_k_max=2, candidates_max=12)


async def window_write(ctx: Any, dut: TableMemory, address: int, word: int, value: int) -> None:
    ctx.set(dut.window.address, address)
    ctx.set(dut.window.word, word)
    ctx.set(dut.window.write_data, value)
    ctx.set(dut.window.write, 1)
    assert ctx.get(dut.window.ready)
    await ctx.tick()
    ctx.set(dut.window.write, 0)


async def window_read(ctx: Any, dut: TableMemory, address: int, word: int) -> int:
    ctx.set(dut.window.address, address)
    ctx.set(dut.window.word, word)
    ctx.set(dut.window.read, 1)
    assert ctx.get(dut.window.ready)
    await ctx.tick()
    ctx.set(dut.window.read, 0)
    return ctx.get(dut.window.read_data)


async def engine_read(ctx: Any, dut: TableMemory, address: int) -> int:
    ctx.set(dut.read_address, address)
    ctx.set(dut.read, 1)
    await ctx.tick()
    ctx.set(dut.read, 0)
    return ctx.get(dut.row.as_value())


def test_words_and_rows_are_the_same_bits() -> None:
    dut = TableMemory(LIMITS)
    words = [0x1234_5678, 0x9ABC_DEF0, 0x0F1E_2D3C]
    row = sum(word << 32 * nth for nth, word in enumerate(words))

    async def bench(ctx: Any) -> None:
        for nth, word in enumerate(words):
            await window_write(ctx, dut, 21, nth, word)
        assert await engine_read(ctx, dut, 21) == row
        assert await engine_read(ctx, dut, 20) == 0
        ctx.set(dut.write.valid, 1)
        ctx.set(dut.write.address, 31)
        ctx.set(dut.write.row.as_value(), row ^ 1)
        await ctx.tick()
        ctx.set(dut.write.valid, 0)
        assert [await window_read(ctx, dut, 31, nth) for nth in range(3)] == [words[0] ^ 1, *words[1:]]
        await window_write(ctx, dut, 31, 1, 7)
        assert await engine_read(ctx, dut, 31) == row ^ 1 ^ (words[1] ^ 7) << 32

    simulate(dut, bench)


def test_the_window_waits_for_the_engine() -> None:
    dut = TableMemory(LIMITS)

    async def bench(ctx: Any) -> None:
        await window_write(ctx, dut, 1, 0, 11)
        await window_write(ctx, dut, 2, 0, 22)
        ctx.set(dut.window.read, 1)
        ctx.set(dut.window.address, 1)
        ctx.set(dut.window.word, 0)
        ctx.set(dut.read, 1)
        ctx.set(dut.read_address, 2)
        assert not ctx.get(dut.window.ready)
        await ctx.tick()
        assert ctx.get(dut.row.as_value()) == 22
        ctx.set(dut.read, 0)
        assert ctx.get(dut.window.ready)
        ctx.set(dut.window.read, 0)

        ctx.set(dut.window.write, 1)
        ctx.set(dut.window.write_data, 33)
        ctx.set(dut.write.valid, 1)
        ctx.set(dut.write.address, 2)
        ctx.set(dut.write.row.as_value(), 44)
        assert not ctx.get(dut.window.ready)
        await ctx.tick()
        ctx.set(dut.write.valid, 0)
        ctx.set(dut.window.write, 0)
        assert await window_read(ctx, dut, 1, 0) == 11
        assert await window_read(ctx, dut, 2, 0) == 44

    simulate(dut, bench)
