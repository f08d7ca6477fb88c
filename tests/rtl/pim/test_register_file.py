"""The PIM unit's registers over AXI4-Lite: what they hold, refuse and remember."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from pim_model.unit.events import Refusal, UnitCounter, UnitError
from pim_model.unit.parameters import UnitParameters
from rtl.bus.axi_lite import AxiLiteSignature, AxiLiteSlave
from rtl.pim.address_map import ADDRESS_BITS, address_map, counter_offset, descriptor_fields
from rtl.pim.register_file import RegisterFile
from tests.rtl.bus.axi_driver import OKAY, SLVERR, read, write
from tests.rtl.pim.base_die.devices import HBM2_PIM
from tests.rtl.simulate import simulate

UNIT = UnitParameters(device=HBM2_PIM)
MAP = address_map(UNIT)
COMMAND, STATUS, CONTROL = (MAP.offset(name) for name in ("COMMAND", "STATUS", "CONTROL"))
START, ABORT, CLEAR, CLEAR_COUNTERS = (
    MAP.mask("COMMAND", name) for name in ("start", "abort", "clear_status", "clear_counters")
)


class Registers(wiring.Component):
    """Slave and register file; counts the pulses of its commands."""

    def __init__(self) -> None:
        super().__init__({"bus": In(AxiLiteSignature(ADDRESS_BITS))})
        self.file = RegisterFile(UNIT)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.slave = slave = AxiLiteSlave(ADDRESS_BITS)
        m.submodules.file = self.file
        wiring.connect(m, wiring.flipped(self.bus), slave.bus)
        wiring.connect(m, slave.registers, self.file.registers)
        return m


def run(body: Callable[[Any, Registers, list[str]], Awaitable[None]]) -> None:
    dut, pulses = Registers(), []
    ended = False

    async def bench(ctx: Any) -> None:
        nonlocal ended
        await body(ctx, dut, pulses)
        ended = True

    async def watch(ctx: Any) -> None:
        names = ("start", "abort", "clear_counters")
        while not ended:
            values = await ctx.tick().sample(*(getattr(dut.file, name) for name in names))
            pulses.extend(name for name, value in zip(names, values[2:], strict=True) if value)

    simulate(dut, bench, watch)


async def pulse(ctx: Any, signal: Any, value: int = 1) -> None:
    ctx.set(signal, value)
    await ctx.tick()
    ctx.set(signal, 0)


async def status(ctx: Any, dut: Registers) -> int:
    value, response = await read(ctx, dut.bus, STATUS)
    assert response == OKAY
    return value


def bits(*names: str) -> int:
    return sum(MAP.mask("STATUS", name) for name in names)


def test_every_readable_register_has_its_reset_value() -> None:
    async def body(ctx: Any, dut: Registers, _: list[str]) -> None:
        for register in MAP.registers:
            if register.readable:
                assert await read(ctx, dut.bus, register.offset) == (register.reset, OKAY)
        assert await read(ctx, dut.bus, COMMAND) == (0, SLVERR)
        assert await read(ctx, dut.bus, 0xFC) == (0, SLVERR)

    run(body)


def test_a_descriptor_holds_what_fits_and_refuses_the_rest() -> None:
    async def body(ctx: Any, dut: Registers, _: list[str]) -> None:
        for part in descriptor_fields(UNIT):
            largest = (1 << part.width) - 1
            assert await write(ctx, dut.bus, part.offset, largest) == OKAY
            assert await read(ctx, dut.bus, part.offset) == (largest, OKAY)
            assert ctx.get(dut.file.descriptor[part.name]) == largest
            for value in (1 << part.width, 1 << 31):
                assert await write(ctx, dut.bus, part.offset, value) == SLVERR
            assert await read(ctx, dut.bus, part.offset) == (largest, OKAY)
        for offset in (MAP.offset("IDENTITY"), STATUS, 0xFC):
            assert await write(ctx, dut.bus, offset, 0) == SLVERR
        assert await status(ctx, dut) == 0

    run(body)


@pytest.mark.parametrize("why", ["busy", "dropping"])
def test_a_start_is_refused_while_the_unit_is_occupied(why: str) -> None:
    async def body(ctx: Any, dut: Registers, pulses: list[str]) -> None:
        assert await write(ctx, dut.bus, COMMAND, START) == OKAY
        ctx.set(getattr(dut.file, why), 1)
        assert await write(ctx, dut.bus, COMMAND, START) == SLVERR
        assert pulses == ["start"]
        assert await status(ctx, dut) == bits(why, "error_start")
        assert await write(ctx, dut.bus, COMMAND, ABORT | CLEAR_COUNTERS) == OKAY
        assert pulses == ["start", "abort", "clear_counters"]
        ctx.set(getattr(dut.file, why), 0)
        # The next program does not forget that a START before it was refused.
        assert await write(ctx, dut.bus, COMMAND, START) == OKAY
        assert await status(ctx, dut) == bits("error_start")
        assert await write(ctx, dut.bus, COMMAND, CLEAR | 16) == SLVERR
        assert await status(ctx, dut) == bits("error_start")
        assert await write(ctx, dut.bus, COMMAND, CLEAR) == OKAY
        assert await status(ctx, dut) == 0

    run(body)


def test_status_is_kept_until_it_is_cleared_or_the_next_program_begins() -> None:
    async def body(ctx: Any, dut: Registers, _: list[str]) -> None:
        file = dut.file
        for clears in (CLEAR, START):
            for name in ("done", "aborted"):
                await pulse(ctx, getattr(file, name))
                assert await status(ctx, dut) == bits(name)
                assert await write(ctx, dut.bus, COMMAND, clears) == OKAY
                assert await status(ctx, dut) == 0
        for error in UnitError:
            if error is UnitError.START:
                continue
            ctx.set(file.refusal, Refusal.ROOM)
            await pulse(ctx, file.errors, 1 << error)
            is_refusal = error is UnitError.DESCRIPTOR
            expected = bits(f"error_{error.name.lower()}") | (Refusal.ROOM << 16 if is_refusal else 0)
            assert await status(ctx, dut) == expected
            assert await write(ctx, dut.bus, COMMAND, START) == OKAY
            assert await status(ctx, dut) == (expected if error is UnitError.REFRESH else 0)
            assert await write(ctx, dut.bus, COMMAND, CLEAR) == OKAY
            assert await status(ctx, dut) == 0

    run(body)


def test_the_interrupt_is_high_while_there_is_something_to_be_told() -> None:
    async def body(ctx: Any, dut: Registers, _: list[str]) -> None:
        enable = MAP.mask("CONTROL", "interrupt_enable")
        await pulse(ctx, dut.file.done)
        await ctx.tick().repeat(3)
        assert not ctx.get(dut.file.interrupt)
        assert await write(ctx, dut.bus, CONTROL, enable) == OKAY
        await ctx.tick().repeat(2)
        assert ctx.get(dut.file.interrupt)
        assert not ctx.get(dut.file.refresh_enable)
        assert await write(ctx, dut.bus, COMMAND, CLEAR) == OKAY
        await ctx.tick().repeat(2)
        assert not ctx.get(dut.file.interrupt)
        await pulse(ctx, dut.file.errors, 1 << UnitError.REFRESH)
        await ctx.tick().repeat(2)
        assert ctx.get(dut.file.interrupt)

    run(body)


def test_the_words_of_a_counter_belong_together() -> None:
    async def body(ctx: Any, dut: Registers, _: list[str]) -> None:
        low, counter = counter_offset(UnitCounter.LOADS), dut.file.counters[int(UnitCounter.LOADS)]
        ctx.set(counter, 0x1234_FFFF_FFFF)
        assert await read(ctx, dut.bus, low) == (0xFFFF_FFFF, OKAY)
        ctx.set(counter, 0x1235_0000_0000)
        assert await read(ctx, dut.bus, low + 4) == (0x1234, OKAY)

    run(body)
