"""The registers over AXI4-Lite: map, ranges, locks, sticky errors, counters."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from predictor.st_moe.events import EngineCounter, EventError
from predictor.st_moe.parameters import EngineLimits
from rtl.bus.axi_lite import AxiLiteSignature, AxiLiteSlave
from rtl.prefetch.tables.address_map import (
    Window,
    address_map,
    counter_offset,
    setting_offset,
)
from rtl.prefetch.tables.memory import TableMemory
from rtl.prefetch.tables.register_file import RegisterFile
from rtl.prefetch.tables.settings import SETTINGS
from tests.rtl.bus.axi_driver import OKAY, SLVERR, read, write
from tests.rtl.simulate import simulate

LIMITS = EngineLimits(experts_max=16, layers_max=6, top_k_max=3, candidates_max=5, slots_max=3, domains_max=2)
MAP = address_map(LIMITS)
WINDOW = Window.of(LIMITS)


class Registers(wiring.Component):
    """Slave, register file and table memory, with the engine's side of the register file exposed."""

    def __init__(self) -> None:
        super().__init__({"bus": In(AxiLiteSignature(WINDOW.address_bits)), "busy": In(1), "engine_reads": In(1)})
        self.file = RegisterFile(LIMITS)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.slave = slave = AxiLiteSlave(WINDOW.address_bits)
        m.submodules.file = self.file
        m.submodules.tables = tables = TableMemory(LIMITS)
        wiring.connect(m, wiring.flipped(self.bus), slave.bus)
        wiring.connect(m, slave.registers, self.file.registers)
        wiring.connect(m, self.file.window, tables.window)
        m.d.comb += [self.file.busy.eq(self.busy), tables.read.eq(self.engine_reads)]
        return m


def run(body: Callable[[Any, Registers], Awaitable[None]]) -> None:
    dut = Registers()

    async def bench(ctx: Any) -> None:
        await body(ctx, dut)

    simulate(dut, bench)


def test_what_the_engine_says_of_itself() -> None:
    async def body(ctx: Any, dut: Registers) -> None:
        expected = {
            "IDENTITY": 0x4653_5045,
            "VERSION": 2,
            "LIMITS": 16 | 6 << 16,
            "CAPABILITY": 3 | 5 << 8 | 1 << 16 | 11 << 24,  # 5 entries of 6 bits: a word
            "WINDOW": 12 | 2 << 8,
            "SEQUENCES": 3 | 2 << 8,
            "CONTROL": 0,
            "STATUS": 0,
        }
        for name, value in expected.items():
            assert await read(ctx, dut.bus, MAP.offset(name)) == (value, OKAY)
            assert MAP.register(name).reset == value

    run(body)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_setting_holds_its_range_and_no_more(setting: Any) -> None:
    async def body(ctx: Any, dut: Registers) -> None:
        high, offset = setting.high(LIMITS), setting_offset(setting.name)
        assert await read(ctx, dut.bus, offset) == (setting.field(LIMITS).reset, OKAY)
        for value in (high, setting.low):
            assert await write(ctx, dut.bus, offset, value) == OKAY
            assert await read(ctx, dut.bus, offset) == (value, OKAY)
            assert ctx.get(getattr(dut.file.settings, setting.name)) == value
        assert await read(ctx, dut.bus, MAP.offset("STATUS")) == (0, OKAY)
        for value in (high + 1, *([0] if setting.low else []), high | 1 << 31):
            assert await write(ctx, dut.bus, offset, value) == SLVERR
            assert await read(ctx, dut.bus, offset) == (setting.low, OKAY)
            assert await read(ctx, dut.bus, MAP.offset("STATUS")) == (MAP.mask("STATUS", "error_configuration"), OKAY)
        assert await write(ctx, dut.bus, MAP.offset("COMMAND"), MAP.mask("COMMAND", "clear_errors")) == OKAY
        assert await read(ctx, dut.bus, MAP.offset("STATUS")) == (0, OKAY)

        assert await write(ctx, dut.bus, MAP.offset("CONTROL"), MAP.mask("CONTROL", "enable")) == OKAY
        expected = SLVERR if setting.locked else OKAY
        assert await write(ctx, dut.bus, offset, high) == expected
        assert await write(ctx, dut.bus, MAP.offset("CONTROL"), 0) == OKAY
        ctx.set(dut.busy, 1)
        assert await write(ctx, dut.bus, offset, high) == expected
        status = await read(ctx, dut.bus, MAP.offset("STATUS"))
        assert status == (
            MAP.mask("STATUS", "busy") | (MAP.mask("STATUS", "error_configuration") if setting.locked else 0),
            OKAY,
        )
        assert await read(ctx, dut.bus, offset) == (setting.low if setting.locked else high, OKAY)

    run(body)


@pytest.mark.parametrize("error", EventError)
def test_event_errors_stick(error: EventError) -> None:
    async def body(ctx: Any, dut: Registers) -> None:
        ctx.set(dut.file.event_errors, error)
        await ctx.tick()
        ctx.set(dut.file.event_errors, 0)
        expected = {
            1: MAP.mask("STATUS", "error_layer"),
            2: MAP.mask("STATUS", "error_expert"),
            4: MAP.mask("STATUS", "error_duplicate"),
            8: MAP.mask("STATUS", "error_slot"),
            16: MAP.mask("STATUS", "error_domain"),
        }[error]
        assert await read(ctx, dut.bus, MAP.offset("STATUS")) == (expected, OKAY)
        assert await read(ctx, dut.bus, MAP.offset("STATUS")) == (expected, OKAY)
        await write(ctx, dut.bus, MAP.offset("COMMAND"), MAP.mask("COMMAND", "clear_errors"))
        assert await read(ctx, dut.bus, MAP.offset("STATUS")) == (0, OKAY)

    run(body)


def test_both_words_of_a_counter_belong_together() -> None:
    async def body(ctx: Any, dut: Registers) -> None:
        for counter in EngineCounter:
            ctx.set(dut.file.counters[counter.value], (counter + 1) << 32 | 0xFFFF_FFFF)
            assert await read(ctx, dut.bus, counter_offset(counter)) == (0xFFFF_FFFF, OKAY)
            ctx.set(dut.file.counters[counter.value], (counter + 2) << 32)
            assert await read(ctx, dut.bus, counter_offset(counter) + 4) == (counter + 1, OKAY)
        assert not ctx.get(dut.file.clear_counters)

    run(body)


def test_the_window_holds_words() -> None:
    async def body(ctx: Any, dut: Registers) -> None:
        place = WINDOW.offset(17, 0)
        assert await write(ctx, dut.bus, place, 0xDEAD_BEEF) == OKAY
        assert await read(ctx, dut.bus, place) == (0xDEAD_BEEF, OKAY)
        assert await read(ctx, dut.bus, WINDOW.offset(16, 0)) == (0, OKAY)

    run(body)


@pytest.mark.parametrize(
    ("address", "strobe"),
    [
        (MAP.offset("STATUS"), 0b1111),
        (MAP.offset("IDENTITY"), 0b1111),
        (0x7C, 0b1111),
        (setting_offset("experts"), 0b0111),
        (setting_offset("experts") + 1, 0b1111),
        (WINDOW.offset(LIMITS.rows, 0), 0b1111),  # layers 6 and 7 have addresses and no rows
    ],
)
def test_a_write_to_no_register_is_refused(address: int, strobe: int) -> None:
    async def body(ctx: Any, dut: Registers) -> None:
        before = await read(ctx, dut.bus, setting_offset("experts"))
        assert await write(ctx, dut.bus, address, 3, strobe=strobe) == SLVERR
        assert await read(ctx, dut.bus, setting_offset("experts")) == before
        assert await read(ctx, dut.bus, MAP.offset("STATUS")) == (0, OKAY)

    run(body)


@pytest.mark.parametrize("address", [MAP.offset("COMMAND"), 0x7C, 0x22, WINDOW.offset(LIMITS.rows, 0)])
def test_a_read_of_no_register_is_refused(address: int) -> None:
    async def body(ctx: Any, dut: Registers) -> None:
        assert await read(ctx, dut.bus, address) == (0, SLVERR)

    run(body)


def test_reads_and_writes_take_turns() -> None:
    async def body(ctx: Any, dut: Registers) -> None:
        bus = dut.bus
        for signal, value in ((bus.awaddr, 0x34), (bus.wdata, 3), (bus.wstrb, 15), (bus.araddr, 0)):
            ctx.set(signal, value)
        for signal in (bus.awvalid, bus.wvalid, bus.arvalid, bus.bready, bus.rready):
            ctx.set(signal, 1)
        order = []
        while len(order) < 6:
            order += ["write"] if ctx.get(bus.awready) else []
            order += ["read"] if ctx.get(bus.arready) else []
            await ctx.tick()
        assert order == ["write", "read"] * 3

    run(body)


def test_no_ready_before_both_halves_of_a_write() -> None:
    async def body(ctx: Any, dut: Registers) -> None:
        ctx.set(dut.bus.wvalid, 1)
        for _ in range(3):
            await ctx.tick()
            assert not ctx.get(dut.bus.wready)

    run(body)
