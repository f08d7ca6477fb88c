"""Distances, slots and refreshes."""

from typing import Any

import numpy as np
import pytest

from pim_model.unit.parameters import MOST_POSTPONED_REFRESHES, UnitParameters
from rtl.pim.base_die.refresh import Refresh
from rtl.pim.base_die.serial import SerialDivider, SerialMultiplier
from rtl.pim.base_die.timers import Slots, Timer, WindowTimer
from tests.rtl.pim.base_die.devices import HBM2_PIM
from tests.rtl.simulate import simulate


def elapsed_after(dut: Any, starts: list[int], clocks: int) -> list[int]:
    """Clocks in which ``elapsed`` is true, of ``clocks``."""
    found = []

    async def bench(ctx: Any) -> None:
        for clock in range(clocks):
            ctx.set(dut.start, clock in starts)
            if ctx.get(dut.elapsed):
                found.append(clock)
            await ctx.tick()

    simulate(dut, bench)
    return found


@pytest.mark.parametrize("distance", [1, 2, 3, 7])
def test_a_distance_is_kept_to_the_clock(distance: int) -> None:
    found = elapsed_after(Timer(distance), [3, 20, 21], 40)
    expected = [clock for clock in range(40) if all(not start < clock < start + distance for start in (3, 20, 21))]
    assert found == expected


def test_four_in_a_window() -> None:
    """As tFAW: the fifth has to be 10 after the first."""
    found = elapsed_after(WindowTimer(4, 10), [0, 2, 4, 6, 12, 13], 24)
    assert found == [0, 1, 2, 3, 4, 5, 6, 10, 11, 12, 13, *range(14, 24)]


@pytest.mark.parametrize(
    ("row", "column", "rows", "columns", "firsts"),
    [
        ((4, 2), (2, 1), [2, 6, 10], [1, 3, 5, 7, 9, 11], [3, 7, 11]),
        ((2, 0), (2, 0), [0, 2, 4, 6, 8, 10], [0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]),
    ],
)
def test_slots(row: Any, column: Any, rows: Any, columns: Any, firsts: Any) -> None:
    dut, found = Slots(row=row, column=column), ([], [], [])

    async def bench(ctx: Any) -> None:
        for clock in range(12):
            for clocks, name in zip(found, ("row", "column", "first"), strict=True):
                if ctx.get(getattr(dut, name)):
                    clocks.append(clock)
            await ctx.tick()

    simulate(dut, bench)
    assert found == (list(rows), list(columns), list(firsts))


def test_refreshes_are_due_at_their_intervals_and_postponed_ones_are_made_up_for() -> None:
    often = HBM2_PIM.model_copy(update={"trefi_ck": 30, "trfc_ck": 5})
    dut = Refresh(UnitParameters(device=often))
    due, overdue = [], []

    async def bench(ctx: Any) -> None:
        for clock in range(420):
            ctx.set(dut.enable, clock < 100 or clock >= 395)
            issue = ctx.get(dut.due) and not ctx.get(dut.refreshing)
            ctx.set(dut.issue, issue)
            if issue:
                due.append(clock)
            if ctx.get(dut.overdue):
                overdue.append(clock)
            await ctx.tick()

    simulate(dut, bench)
    # Those of 120, 150 … 390 are postponed; the ninth and tenth are more than a DRAM allows.
    assert due == [30, 60, 90, 395, 400, 405, 410, 415]
    assert overdue == [120 + 30 * MOST_POSTPONED_REFRESHES - 1, 120 + 30 * (MOST_POSTPONED_REFRESHES + 1) - 1]


def test_a_division_and_a_product_take_as_many_clocks_as_they_have_bits() -> None:
    rng = np.random.default_rng(2)
    divider, multiplier = SerialDivider(9), SerialMultiplier(6, 16)

    async def divides(ctx: Any) -> None:
        for dividend, divisor in [(511, 1), (0, 7), (5, 511), *rng.integers(1, 512, (20, 2)).tolist()]:
            ctx.set(divider.dividend, dividend)
            ctx.set(divider.divisor, divisor)
            ctx.set(divider.start, 1)
            await ctx.tick()
            ctx.set(divider.start, 0)
            await ctx.tick().repeat(8)
            for _ in range(2):
                assert (ctx.get(divider.quotient), ctx.get(divider.remainder)) == divmod(dividend, divisor)
                await ctx.tick()

    async def multiplies(ctx: Any) -> None:
        for a, b in [(0, 0), (1023, 63), *rng.integers(0, [1024, 64], (20, 2)).tolist()]:
            ctx.set(multiplier.a, a)
            ctx.set(multiplier.b, b)
            ctx.set(multiplier.start, 1)
            await ctx.tick()
            ctx.set(multiplier.start, 0)
            await ctx.tick().repeat(5)
            assert ctx.get(multiplier.product) == a * b

    simulate(divider, divides)
    simulate(multiplier, multiplies)
