"""Results on their way out."""

from typing import Any

import pytest

from pim_model.unit.parameters import UnitParameters
from rtl.pim.base_die.output_queue import OutputQueue
from tests.rtl.pim.base_die.devices import HBM2_PIM
from tests.rtl.simulate import simulate

UNIT = UnitParameters(device=HBM2_PIM, output_beats=16)


async def push(ctx: Any, dut: OutputQueue, value: int, *, last: bool = False) -> None:
    ctx.set(dut.beat, {"data": value, "keep": 255, "last": last})
    ctx.set(dut.push, 1)
    await ctx.tick()
    ctx.set(dut.push, 0)


async def reserve(ctx: Any, dut: OutputQueue, beats: int) -> None:
    ctx.set(dut.reserve, beats)
    await ctx.tick()
    ctx.set(dut.reserve, 0)


async def pulse(ctx: Any, signal: Any) -> None:
    ctx.set(signal, 1)
    await ctx.tick()
    ctx.set(signal, 0)


async def take(ctx: Any, dut: OutputQueue, most: int = 40) -> list[tuple[int, int, int]]:
    """Beats until none has come for some clocks, as (data, keep, last)."""
    found, stream = [], dut.stream
    ctx.set(stream.tready, 1)
    for _ in range(most):
        if ctx.get(stream.tvalid):
            found.append((ctx.get(stream.tdata), ctx.get(stream.tkeep), ctx.get(stream.tlast)))
        await ctx.tick()
    ctx.set(stream.tready, 0)
    return found


def run(body: Any) -> None:
    dut = OutputQueue(UNIT)

    async def bench(ctx: Any) -> None:
        await body(ctx, dut)

    simulate(dut, bench)


def test_no_more_is_reserved_than_there_is_room_for_and_all_comes_out_in_order() -> None:
    async def body(ctx: Any, dut: OutputQueue) -> None:
        for _ in range(4):
            assert ctx.get(dut.room)
            await reserve(ctx, dut, 4)
        assert not ctx.get(dut.room)
        for value in range(16):
            await push(ctx, dut, value, last=value == 15)
        for _ in range(4):
            await ctx.tick()
        assert not ctx.get(dut.room)  # one beat left the queue for the port
        assert not ctx.get(dut.empty)
        assert await take(ctx, dut) == [(value, 255, value == 15) for value in range(16)]
        assert ctx.get(dut.room)
        assert ctx.get(dut.empty)

    run(body)


def test_a_packet_that_is_cut_short_ends_without_bytes() -> None:
    async def body(ctx: Any, dut: OutputQueue) -> None:
        await reserve(ctx, dut, 4)
        for value in range(3):
            await push(ctx, dut, value)
        for _ in range(4):
            await ctx.tick()
        await pulse(ctx, dut.flush)
        await pulse(ctx, dut.end)
        # What was offered stays; what was behind it is dropped.
        assert await take(ctx, dut) == [(0, 255, 0), (0, 0, 1)]
        for _ in range(4):
            assert ctx.get(dut.room)
            await reserve(ctx, dut, 4)

    run(body)


@pytest.mark.parametrize("whole", [False, True])
def test_nothing_ends_that_has_not_begun(whole: bool) -> None:
    async def body(ctx: Any, dut: OutputQueue) -> None:
        if whole:
            await reserve(ctx, dut, 1)
            await push(ctx, dut, 7, last=True)
            assert await take(ctx, dut) == [(7, 255, 1)]
        await pulse(ctx, dut.flush)
        await pulse(ctx, dut.end)
        assert await take(ctx, dut) == []

    run(body)


def test_a_push_without_room_is_seen() -> None:
    async def body(ctx: Any, dut: OutputQueue) -> None:
        for _ in range(4):
            await reserve(ctx, dut, 4)
        for value in range(20):
            await push(ctx, dut, value)

    with pytest.raises(AssertionError, match="a beat for which no room is reserved"):
        run(body)
