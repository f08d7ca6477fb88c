"""Checks of the accumulators that a block cannot break, as its columns take four clocks each."""

from typing import Any

import pytest

pytest.importorskip("amaranth", reason="needs the extra 'hardware'")

from rtl.pim.block.accumulators import SCALE_ONE, Accumulators
from tests.rtl.simulate import simulate

GIVEN = {"valid": 1, "scale": SCALE_ONE, "line": 3, "row": 2}


def play(clocks: dict[int, dict[str, int]], integer: int = 0, fp32: int = 0) -> int:
    """Give sums, all alike, to accumulators; what the one of `GIVEN` is in the end."""
    dut = Accumulators()
    shown = []

    async def bench(ctx: Any) -> None:
        ctx.set(dut.integer, integer)
        ctx.set(dut.fp32.as_value(), fp32)
        ctx.set(dut.line, GIVEN["line"])
        for clock in range(max(clocks) + Accumulators.LATENCY):
            ctx.set(dut.destination, clocks.get(clock, {"valid": 0}))
            await ctx.tick()
        shown.append(ctx.get(dut.shown) >> 32 * GIVEN["row"] & 0xFFFFFFFF)

    simulate(dut, bench)
    return shown[0]


def test_a_sum_may_follow_another_once_that_is_stored() -> None:
    integers = {clock: {**GIVEN, "integer": 1, "first": clock == 0} for clock in (0, Accumulators.LATENCY)}
    assert play(integers, integer=-5) == 2**32 - 10


def test_a_sum_that_comes_sooner_is_caught() -> None:
    with pytest.raises(AssertionError, match="a sum comes before the last one is in its accumulator"):
        play({0: GIVEN, Accumulators.LATENCY - 1: GIVEN})


def test_neighbours_may_come_in_every_clock() -> None:
    play({clock: {**GIVEN, "row": clock % 4} for clock in range(12)})


def test_an_integer_sum_that_overflows_is_caught() -> None:
    """The pattern of the greatest FP32 is an integer that is less than 2³¹ by 2²³ + 1."""
    greatest = 0x7F7FFFFF
    begin = {0: {**GIVEN, "first": 1}}
    more = {Accumulators.LATENCY * n: {**GIVEN, "integer": 1} for n in range(1, 17)}
    assert play({**begin, **more}, integer=1 << 18, fp32=greatest) == greatest + (1 << 22)
    more[Accumulators.LATENCY * 17] = {**GIVEN, "integer": 1}
    with pytest.raises(AssertionError, match="an integer sum overflows"):
        play({**begin, **more}, integer=(1 << 19) - 1, fp32=greatest)
