"""The checks by themselves, in Amaranth's simulator: what breaks one stops the run, and says so."""

from collections.abc import Callable
from typing import Any

import pytest
from amaranth.hdl import Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from rtl.checks import always, always_kept, always_stable, always_within, at_most_one, exactly_one, implies
from tests.rtl.simulate import simulate


class Checked(wiring.Component):
    """Inputs, and whatever checks them."""

    a: In(1)
    b: In(1)
    word: In(4)

    def __init__(self, check: Callable[[Module, "Checked"], None]) -> None:
        self._check = check
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        kept = Signal()
        m.d.sync += kept.eq(self.a)
        self._check(m, self)
        return m


def broken(check: Callable[[Module, Checked], None], cycles: list[tuple[int, int, int]]) -> str:
    """What the check says of values of (a, b, word), cycle by cycle; empty where it says nothing."""
    dut = Checked(check)

    async def bench(ctx: Any) -> None:
        for a, b, word in cycles:
            ctx.set(dut.a, a)
            ctx.set(dut.b, b)
            ctx.set(dut.word, word)
            await ctx.tick()

    try:
        simulate(dut, bench)
    except AssertionError as error:
        return str(error).removeprefix("Assertion violated: ").strip()
    return ""


def offered(m: Module, dut: Checked) -> None:
    always_stable(m, "s", valid=dut.a, ready=dut.b, payload=dut.word)


@pytest.mark.parametrize(
    ("cycles", "said"),
    [
        ([(1, 0, 3), (1, 0, 3), (1, 1, 3), (1, 1, 4), (0, 0, 5), (1, 0, 6), (1, 1, 6), (0, 0, 0)], ""),
        ([(1, 0, 3), (0, 0, 3)], "s: withdrawn before it was taken"),
        ([(1, 0, 3), (1, 1, 2)], "s: changed before it was taken"),
    ],
)
def test_what_is_offered_stays(cycles: list[tuple[int, int, int]], said: str) -> None:
    assert broken(offered, cycles) == said


@pytest.mark.parametrize(
    ("cycles", "said"),
    [
        ([(0, 0, 1), (1, 0, 2), (0, 0, 2), (0, 0, 3)], ""),
        ([(1, 0, 2), (0, 0, 3)], "w: changed while it must hold still"),
    ],
)
def test_what_is_held_is_kept(cycles: list[tuple[int, int, int]], said: str) -> None:
    assert broken(lambda m, dut: always_kept(m, "w", dut.word, where=dut.a), cycles) == said


@pytest.mark.parametrize("word", range(16))
def test_conditions(word: int) -> None:
    conditions: dict[str, tuple[Callable[[Value], Value], bool]] = {
        "at most one": (at_most_one, word.bit_count() <= 1),
        "exactly one": (lambda w: exactly_one([w[n] for n in range(4)]), word.bit_count() == 1),
        "implies": (lambda w: implies(w[0], w[1:]), word % 2 == 0 or word > 1),
    }
    for name, (condition, holds) in conditions.items():

        def check(m: Module, dut: Checked, condition: Any = condition, name: str = name) -> None:
            always(m, condition(dut.word), name)

        assert (broken(check, [(0, 0, word)]) == "") == holds


@pytest.mark.parametrize(("least", "most"), [(0, 15), (2, 15), (0, 9), (2, 9)])
def test_ranges(least: int, most: int) -> None:
    def check(m: Module, dut: Checked) -> None:
        always_within(m, dut.word, least, most, "range", where=dut.a)

    for word in range(16):
        assert (broken(check, [(1, 0, word)]) == "") == (least <= word <= most)
        assert broken(check, [(0, 0, word)]) == ""
