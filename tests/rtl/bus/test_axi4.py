"""AXI4's rules as checks: lawful traffic passes, and each breach is named."""

from typing import Any

import pytest
from amaranth.hdl import Module, Shape
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from rtl.bus.axi4 import (
    Axi4ReadSignature,
    Axi4Signature,
    Axi4WriteSignature,
    Burst,
    always_read_manager,
    always_read_subordinate,
    always_write_manager,
    always_write_subordinate,
    size_code,
)
from tests.rtl.simulate import simulate

WIDTHS = {
    "awid": 2, "awaddr": 48, "awlen": 8, "awsize": 3, "awburst": 2, "awvalid": 1, "awready": 1,
    "wdata": 512, "wstrb": 64, "wlast": 1, "wvalid": 1, "wready": 1,
    "bid": 2, "bresp": 2, "bvalid": 1, "bready": 1,
    "arid": 2, "araddr": 48, "arlen": 8, "arsize": 3, "arburst": 2, "arvalid": 1, "arready": 1,
    "rid": 2, "rdata": 512, "rresp": 2, "rlast": 1, "rvalid": 1, "rready": 1,
}  # fmt: skip
"""AMBA AXI protocol specification, chapter A2, with 48 bits of address and 2 of identifier."""


def test_each_signal_has_its_width() -> None:
    whole = Axi4Signature(512, 48, id_bits=2)
    assert {name: Shape.cast(member.shape).width for name, member in whole.members.items()} == WIDTHS
    parts = [Axi4ReadSignature(512, 48, id_bits=2), Axi4WriteSignature(512, 48, id_bits=2)]
    assert {name: member for part in parts for name, member in part.members.items()} == dict(whole.members.items())


def test_a_width_that_axi4_lacks_is_refused() -> None:
    assert size_code(512) == 6
    with pytest.raises(ValueError, match="data_bits: 96"):
        Axi4ReadSignature(96, 48)


class Watched(wiring.Component):
    """A bus of four-byte beats whose signals the test sets, under all four rules, two bursts at once."""

    def __init__(self) -> None:
        members = Axi4Signature(32, 16).members
        super().__init__({name: In(member.shape, init=member.init) for name, member in members.items()})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        always_read_manager(m, "b", self)
        always_read_subordinate(m, "b", self, outstanding=2)
        always_write_manager(m, "b", self, outstanding=2)
        always_write_subordinate(m, "b", self, outstanding=2)
        return m


Cycle = dict[str, int]


def ar(address: int, beats: int, ready: int = 1, **others: int) -> Cycle:
    return {"arvalid": 1, "arready": ready, "araddr": address, "arlen": beats - 1} | others


def r(last: int, ready: int = 1, **others: int) -> Cycle:
    return {"rvalid": 1, "rready": ready, "rlast": last} | others


def aw(address: int, beats: int, ready: int = 1, **others: int) -> Cycle:
    return {"awvalid": 1, "awready": ready, "awaddr": address, "awlen": beats - 1} | others


def w(last: int, ready: int = 1, **others: int) -> Cycle:
    return {"wvalid": 1, "wready": ready, "wlast": last} | others


B: Cycle = {"bvalid": 1, "bready": 1}


def said(cycles: list[Cycle]) -> str:
    """The first breach that the rules find; empty where there is none."""
    dut = Watched()
    rest = {name: member.init or 0 for name, member in dut.signature.members.items()}
    rest |= {"arsize": 2, "awsize": 2, "arburst": Burst.INCR, "awburst": Burst.INCR}

    async def bench(ctx: Any) -> None:
        for cycle in [*cycles, {}]:
            for name, value in (rest | cycle).items():
                ctx.set(getattr(dut, name), value)
            await ctx.tick()

    try:
        simulate(dut, bench)
    except AssertionError as error:
        return str(error).removeprefix("Assertion violated: ").strip()
    return ""


LAWFUL: dict[str, list[Cycle]] = {
    "a burst of two": [ar(8, 2), r(0), {}, r(1)],
    "two bursts at once": [ar(8, 2), ar(0, 1) | r(0), r(1), r(1)],
    "waits": [ar(8, 1, ready=0), ar(8, 1), r(1, ready=0, rdata=5), r(1, rdata=5)],
    "up to a page's end": [ar(4096 - 8, 2), r(0), r(1)],
    "a whole burst of 256": [ar(3072, 256), *[r(0)] * 255, r(1)],
    "a write": [aw(8, 2), w(0), w(1), B],
    "data with the address": [aw(8, 2) | w(0), w(1), B],
    "data before the address is taken": [aw(8, 1, ready=0) | w(1), aw(8, 1), B],
    "the next address while data wait": [aw(8, 1), aw(12, 2) | w(1, ready=0), w(1), w(0) | B, w(1), B],
}

BREACHES: list[tuple[list[Cycle], str]] = [
    ([ar(8, 1, ready=0), {}], "b_ar: withdrawn before it was taken"),
    ([ar(8, 1, ready=0), ar(8, 2)], "b_ar: changed before it was taken"),
    ([ar(8, 1, arid=1)], "b_ar: another identifier than 0"),
    ([ar(8, 1, arburst=2)], "b_ar: a burst that does not count up"),
    ([ar(8, 1, arsize=1)], "b_ar: beats narrower or wider than the bus"),
    ([ar(6, 1)], "b_ar: the address is not a whole beat's"),
    ([ar(4096 - 8, 3)], "b_ar: a burst crosses 4 KiB"),
    ([ar(0, 2)] * 3, "b_ar: more bursts than may be under way"),
    ([r(1)], "b_r: answers nothing"),
    ([ar(0, 1), r(1), r(1)], "b_r: answers nothing"),
    ([ar(0, 2), r(1)], "b_r: rlast at another beat than the last"),
    ([ar(0, 1), r(0)], "b_r: rlast at another beat than the last"),
    ([ar(0, 1), r(1, rid=1)], "b_r: of another identifier"),
    ([ar(0, 1), r(1, ready=0), {}], "b_r: withdrawn before it was taken"),
    ([ar(0, 1), r(1, ready=0), r(1, rdata=1)], "b_r: changed before it was taken"),
    ([aw(8, 1, ready=0), {}], "b_aw: withdrawn before it was taken"),
    ([aw(4096 - 4, 2)], "b_aw: a burst crosses 4 KiB"),
    ([aw(0, 2)] * 3, "b_aw: more bursts than may be under way"),
    ([w(1)], "b_w: data of no burst"),
    ([aw(0, 1) | w(1), w(1)], "b_w: data of no burst"),
    ([aw(0, 2), w(1)], "b_w: wlast at another beat than the last"),
    ([aw(0, 1) | w(0)], "b_w: wlast at another beat than the last"),
    ([aw(0, 1), w(1, ready=0), w(1, wstrb=1)], "b_w: changed before it was taken"),
    ([B], "b_b: answers no burst whose aw was taken"),
    ([aw(0, 2), w(0), B], "b_b: answers no burst whose w was taken"),
    ([aw(0, 1, ready=0) | w(1), aw(0, 1, ready=0) | B], "b_b: answers no burst whose aw was taken"),
    ([aw(0, 1) | w(1), B | {"bid": 1}], "b_b: of another identifier"),
    ([aw(0, 1) | w(1), {"bvalid": 1}, {}], "b_b: withdrawn before it was taken"),
]


@pytest.mark.parametrize("name", LAWFUL)
def test_lawful_traffic_passes(name: str) -> None:
    assert said(LAWFUL[name]) == ""


@pytest.mark.parametrize(("cycles", "breach"), BREACHES)
def test_each_breach_is_named(cycles: list[Cycle], breach: str) -> None:
    assert said(cycles) == breach
