"""The whole engine's registers over AXI4-Lite: ranges, locks, commands, errors, interrupts, counters."""

from collections.abc import Awaitable, Callable
from typing import Any

from predictor.engine.counters import EngineCounter
from predictor.engine.events import EngineError
from predictor.engine.settings import Mode
from rtl.prefetch.address_map import Command, Interrupt, counter_offset
from rtl.prefetch.payloads import HostRequest
from rtl.prefetch.setting_registers import Setting, settings
from tests.rtl.bus.axi_driver import OKAY, SLVERR, read, write
from tests.rtl.prefetch.register_bench import LIMITS, MAP, Registers
from tests.rtl.simulate import simulate


class Bench:
    """Registers by name."""

    def __init__(self, ctx: Any, dut: Registers) -> None:
        self.ctx, self.dut, self.file = ctx, dut, dut.file

    async def write(self, register: str, value: int) -> int:
        return await write(self.ctx, self.dut.bus, MAP.offset(register), value)

    async def read(self, register: str) -> tuple[int, int]:
        return await read(self.ctx, self.dut.bus, MAP.offset(register))

    async def command(self, *commands: Command) -> int:
        return await self.write("COMMAND", sum(commands))

    async def status(self) -> set[str]:
        word, response = await self.read("STATUS")
        assert response == OKAY
        return {one.name for one in MAP.register("STATUS").fields if word & one.mask}

    async def errors(self) -> EngineError:
        """Read and cleared."""
        word, _ = await self.read("ERRORS")
        assert await self.command(Command.CLEAR_ERRORS) == OKAY
        return EngineError(word)

    async def strobe(self, **values: int) -> None:
        """Inputs of the register file, for one cycle."""
        for name, value in values.items():
            self.ctx.set(getattr(self.file, name), value)
        await self.ctx.tick()
        for name in values:
            self.ctx.set(getattr(self.file, name), 0)

    async def load(self, *, failed: bool = False) -> None:
        assert await self.command(Command.LOAD) == OKAY
        assert await self.status() >= {"busy", "loading"}
        await self.strobe(load_done=1, load_failed=int(failed))


def run(body: Callable[[Bench], Awaitable[None]]) -> None:
    dut = Registers()

    async def bench(ctx: Any) -> None:
        await body(Bench(ctx, dut))

    simulate(dut, bench)


def test_every_register_reads_what_the_map_says_after_reset() -> None:
    async def body(bench: Bench) -> None:
        for register in MAP.registers:
            if register.readable:
                unclear = MAP.mask("STATUS", "unclear") if register.name == "STATUS" else 0
                assert await bench.read(register.name) == (register.reset | unclear, OKAY), register.name
            else:
                assert (await bench.read(register.name))[1] == SLVERR
        for setting in settings(LIMITS):
            reset = setting.high(LIMITS) if setting.reset is None else setting.reset
            assert bench.ctx.get(getattr(bench.file.settings, setting.name)) == reset
        assert await bench.status() == {"unclear"}

    run(body)


def test_a_setting_of_the_engine_holds_its_range_and_no_more() -> None:
    async def check(bench: Bench, setting: Setting) -> None:
        ctx, name, shift = bench.ctx, setting.name.upper(), setting.lowest_bit
        registers = setting.registers(LIMITS, 0)
        high = setting.high(LIMITS)
        if name == "MODE":
            await bench.load()
        for value in {high, setting.low, (setting.low + high) // 2}:
            words = (value << shift & 0xFFFF_FFFF, value << shift >> 32)[: len(registers)]
            for register, word in zip(registers, words, strict=True):
                assert await bench.write(register.name, word) == OKAY
                assert await bench.read(register.name) == (word, OKAY)
            assert ctx.get(getattr(bench.file.settings, setting.name)) == value
        assert await bench.errors() == 0
        held = ctx.get(getattr(bench.file.settings, setting.name))
        bad = []
        if not setting.wide:
            bad = [(name, high + 1 << shift), (name, 1 << 31)] if high < 1 << 31 else []
            bad += [(name, setting.low - 1 << shift)] if setting.low else []
        elif high >> 32 - shift < 1 << 31:
            bad = [(f"{name}_HIGH", (high >> 32 - shift) + 1)]
        bad += [(name, 1)] if setting.beats else []
        for register, word in bad:
            assert await bench.write(register, word) == SLVERR, (register, word)
            assert await bench.errors() == EngineError.CONFIGURATION
        assert ctx.get(getattr(bench.file.settings, setting.name)) == held

    async def body(bench: Bench) -> None:
        for setting in settings(LIMITS):
            await check(bench, setting)
            assert await bench.write("MODE", Mode.OFF) == OKAY

    run(body)


def test_what_is_locked_moves_only_while_nothing_runs() -> None:
    async def check(bench: Bench, setting: Setting) -> None:
        register = setting.name.upper()
        value, _ = await bench.read(register)
        expected = SLVERR if setting.locked else OKAY
        assert await bench.write("MODE", Mode.TABLES) == OKAY
        assert await bench.write(register, value) == expected
        assert await bench.write("MODE", Mode.OFF) == OKAY
        bench.ctx.set(bench.dut.busy, 1)
        assert await bench.write(register, value) == expected
        bench.ctx.set(bench.dut.busy, 0)
        assert await bench.errors() == (EngineError.CONFIGURATION if setting.locked else 0)
        # A command of the host that waits is work, too.
        assert await bench.command(Command.CLEAR) == OKAY
        assert await bench.write(register, value) == expected
        assert await bench.errors() == (EngineError.CONFIGURATION if setting.locked else 0)
        bench.ctx.set(bench.dut.host_ready, 1)
        await bench.ctx.tick()
        assert await bench.status() == set()
        assert await bench.write(register, value) == OKAY
        assert await bench.status() == ({"unclear"} if setting.locked else set())
        bench.ctx.set(bench.dut.host_ready, 0)

    async def body(bench: Bench) -> None:
        for setting in settings(LIMITS):
            if setting.name != "mode":
                await check(bench, setting)

    run(body)


def test_learned_wants_an_image_and_mode_nothing_in_work() -> None:
    async def body(bench: Bench) -> None:
        assert await bench.write("MODE", Mode.LEARNED) == SLVERR
        await bench.load(failed=True)
        assert await bench.write("MODE", Mode.LEARNED) == SLVERR
        await bench.load()
        assert "loaded" in await bench.status()
        bench.ctx.set(bench.dut.busy, 1)
        assert await bench.write("MODE", Mode.LEARNED) == SLVERR
        bench.ctx.set(bench.dut.busy, 0)
        assert await bench.write("MODE", Mode.LEARNED) == OKAY
        assert await bench.command(Command.LOAD) == SLVERR  # only in mode off
        assert await bench.write("MODE", Mode.OFF) == OKAY
        assert await bench.write("DISTANCE", 2) == OKAY
        assert "loaded" not in await bench.status()
        assert await bench.write("MODE", Mode.LEARNED) == SLVERR
        assert await bench.write("MODE", Mode.TABLES) == OKAY

    run(body)


def test_writing_the_mode_tells_the_engine_to_forget() -> None:
    async def body(bench: Bench) -> None:
        ctx, bus = bench.ctx, bench.dut.bus
        for mode, response in ((Mode.TABLES, OKAY), (Mode.LEARNED, SLVERR)):
            ctx.set(bus.awaddr, MAP.offset("MODE"))
            ctx.set(bus.wdata, mode)
            for signal, value in ((bus.awvalid, 1), (bus.wvalid, 1), (bus.wstrb, 15), (bus.bready, 1)):
                ctx.set(signal, value)
            pulses = 0
            for _ in range(4):
                pulses += ctx.get(bench.file.forget)
                await ctx.tick()
                ctx.set(bus.awvalid, 0)
                ctx.set(bus.wvalid, 0)
            assert pulses == (response == OKAY)

    run(body)


def test_a_command_of_the_host_waits_for_the_stager() -> None:
    async def check(bench: Bench, command: Command) -> None:
        ctx, host = bench.ctx, bench.file.host
        assert await bench.write("LAYERS", 5) == OKAY
        assert await bench.write("HOST_EXPERT", 4 << 16 | 13) == OKAY
        assert await bench.command(command) == OKAY
        assert "host_pending" in await bench.status()
        assert ctx.get(host.payload.kind) == HostRequest[command.name]
        if command is not Command.CLEAR:
            assert (ctx.get(host.payload.layer), ctx.get(host.payload.expert)) == (4, 13)
        for other in (Command.PRELOAD, Command.CLEAR, Command.LOAD):
            assert await bench.command(other, Command.CLEAR_ERRORS) == SLVERR  # the whole word
        assert await bench.errors() == EngineError.CONFIGURATION
        assert await bench.write("INTERRUPT_ENABLE", Interrupt.HOST) == OKAY
        assert not ctx.get(bench.dut.interrupt)
        ctx.set(bench.dut.host_ready, 1)
        await ctx.tick()
        assert await bench.status() == (set() if command is Command.CLEAR else {"unclear"})
        assert ctx.get(bench.dut.interrupt)
        assert await bench.read("INTERRUPT_STATUS") == (Interrupt.HOST, OKAY)
        assert await bench.command(Command.CLEAR_INTERRUPTS) == OKAY
        await ctx.tick()
        assert not ctx.get(bench.dut.interrupt)
        ctx.set(bench.dut.host_ready, 0)

    async def body(bench: Bench) -> None:
        for command in (Command.PRELOAD, Command.FIX, Command.UNFIX, Command.CLEAR):
            await check(bench, command)

    run(body)


def test_commands_that_cannot_begin_are_refused() -> None:
    async def body(bench: Bench) -> None:
        bench.ctx.set(bench.dut.busy, 1)
        for command in (Command.CLEAR, Command.LOAD):
            assert await bench.command(command) == SLVERR
        assert await bench.command(Command.FIX) == OKAY  # while layers run
        bench.ctx.set(bench.dut.host_ready, 1)
        bench.ctx.set(bench.dut.busy, 0)
        await bench.ctx.tick()
        assert await bench.command(Command.FIX, Command.PRELOAD) == SLVERR
        assert await bench.write("COMMAND", 1 << len(Command)) == SLVERR
        assert await bench.errors() == EngineError.CONFIGURATION
        assert await bench.write("EXPERTS", 11) == OKAY
        for place in (11, 6 << 16):  # beyond EXPERTS; beyond LAYERS
            assert await bench.write("HOST_EXPERT", place) == OKAY
            assert await bench.command(Command.PRELOAD) == SLVERR
            assert await bench.errors() == EngineError.CONFIGURATION | EngineError.HOST_COMMAND
        assert "host_pending" not in await bench.status()

    run(body)


def test_shares_are_told_and_can_be_read() -> None:
    async def body(bench: Bench) -> None:
        ctx, bus, shares = bench.ctx, bench.dut.bus, bench.file.shares
        told = []
        for layer in range(6):
            assert await bench.write("SHARE_LAYER", layer) == OKAY
            for signal, value in (
                (bus.awaddr, MAP.offset("SHARE")),
                (bus.wdata, 20 - layer),
                (bus.awvalid, 1),
                (bus.wvalid, 1),
                (bus.bready, 1),
            ):
                ctx.set(signal, value)
            for _ in range(4):
                if ctx.get(shares.valid):
                    told.append((ctx.get(shares.layer), ctx.get(shares.share)))
                await ctx.tick()
                ctx.set(bus.awvalid, 0)
                ctx.set(bus.wvalid, 0)
        assert told == [(layer, 20 - layer) for layer in range(6)]
        for layer in (3, 0, 5):
            assert await bench.write("SHARE_LAYER", layer) == OKAY
            assert await bench.read("SHARE") == (20 - layer, OKAY)
        assert await bench.write("SHARE", 21) == SLVERR
        assert await bench.write("MODE", Mode.TABLES) == OKAY
        assert await bench.write("SHARE", 1) == SLVERR
        assert await bench.read("SHARE") == (15, OKAY)

    run(body)


def test_an_error_sticks_and_interrupts() -> None:
    async def check(bench: Bench, error: EngineError) -> None:
        ctx = bench.ctx
        await bench.strobe(errors=int(error))
        await ctx.tick()
        assert ctx.get(bench.dut.interrupt)
        assert await bench.read("ERRORS") == (error, OKAY)
        assert await bench.read("INTERRUPT_STATUS") == (Interrupt.ERROR, OKAY)
        assert await bench.write("ERROR_ENABLE", int(~error & (1 << len(EngineError)) - 1)) == OKAY
        await ctx.tick()
        assert not ctx.get(bench.dut.interrupt)
        assert await bench.errors() == error
        assert await bench.read("ERRORS") == (0, OKAY)
        assert await bench.write("ERROR_ENABLE", (1 << len(EngineError)) - 1) == OKAY

    async def body(bench: Bench) -> None:
        assert await bench.write("INTERRUPT_ENABLE", Interrupt.ERROR) == OKAY
        for error in EngineError:
            await check(bench, error)

    run(body)


def test_the_end_of_a_load_interrupts() -> None:
    async def body(bench: Bench) -> None:
        assert await bench.write("INTERRUPT_ENABLE", Interrupt.LOADED) == OKAY
        await bench.load(failed=True)
        await bench.ctx.tick()
        assert bench.ctx.get(bench.dut.interrupt)

    run(body)


def test_both_words_of_a_counter_belong_together() -> None:
    async def check(bench: Bench, counter: EngineCounter) -> None:
        ctx, bus = bench.ctx, bench.dut.bus
        ctx.set(bench.file.counters[counter], 0x1234_FFFF_FFFF)
        assert await read(ctx, bus, counter_offset(counter)) == (0xFFFF_FFFF, OKAY)
        ctx.set(bench.file.counters[counter], 0x1235_0000_0000)
        assert await read(ctx, bus, counter_offset(counter) + 4) == (0x1234, OKAY)
        assert await read(ctx, bus, counter_offset(counter)) == (0, OKAY)
        assert await read(ctx, bus, counter_offset(counter) + 4) == (0x1235, OKAY)

    async def body(bench: Bench) -> None:
        for counter in EngineCounter:
            await check(bench, counter)

    run(body)


def test_what_does_not_exist_answers_an_error_and_the_table_its_rows() -> None:
    async def body(bench: Bench) -> None:
        ctx, bus, window = bench.ctx, bench.dut.bus, MAP.memory
        assert window is not None
        for offset in (0x2C, 0x3C, 0x3F0, window.offset - 4):
            assert (await read(ctx, bus, offset))[1] == SLVERR
            assert await write(ctx, bus, offset, 0) == SLVERR
        assert await write(ctx, bus, MAP.offset("IDENTITY"), 0) == SLVERR
        assert await bench.errors() == 0
        for row in (0, window.rows - 1):
            place = window.offset + row * window.stride
            assert await write(ctx, bus, place, 0x2BCD_1234 + row) == OKAY
            assert await read(ctx, bus, place) == (0x2BCD_1234 + row, OKAY)
        assert await write(ctx, bus, window.offset + window.rows * window.stride, 0) == SLVERR

    run(body)
