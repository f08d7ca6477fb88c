"""The engine's driver on the engine's register file, and what it makes of settings."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator

from catalog.errors import ForestageError
from predictor.engine.counters import EngineCounter
from predictor.engine.events import EngineError
from predictor.engine.settings import LinkSettings, Missing, Mode, PrefetchEngineSettings
from predictor.row_network.text_traffic import TextSettings
from predictor.st_moe.parameters import EngineConfiguration
from rtl.prefetch.address_map import Command, Interrupt
from rtl.prefetch.driver import PrefetchEngineDriver, setting_values
from rtl.prefetch.payloads import HostRequest
from rtl.prefetch.setting_registers import settings
from staging.stager.limits import StagerSettings
from tests.rtl.bus.axi_driver import OKAY, read, write
from tests.rtl.prefetch.register_bench import LIMITS, MAP, Registers

SETTINGS = PrefetchEngineSettings(
    mode=Mode.LEARNED,
    layers=5,
    experts=12,
    top_k=2,
    domains=2,
    next_use=False,
    distance=2,
    prefetched=4,
    threshold=700,
    identity_rows=77,
    missing=Missing.ELSEWHERE,
    stager=StagerSettings(
        shares=(4, 3, 0, 7, 2), value_scale=5, chance_scale=6, price=7, by_recency=False, background=True, retries=1
    ),
    link=LinkSettings(
        expert_bytes=3000, expert_base=0x12_3456_7801, expert_stride=4096, staging_base=0xFF_0000_0000,
        staging_stride=3008, chunk_bytes=1024, outstanding=5, share=100, silence=70000,
    ),
)  # fmt: skip
TEXT = TextSettings(
    layers=5, experts=12, top_k=2, lengths=(1, 2, 4), by_routing=True, entries=512, log_tokens=256, at_match=True,
    window=(1, 9), identities=2, row_beats=1, text_base=0x10_0000_0040, text_stride=0x2_0000,
    identity_base=0x11_0000_0000, identity_stride=640,
)  # fmt: skip
TABLES = EngineConfiguration(
    experts=12, layers=5, top_k=2, candidates=4, lookahead=2, issue_limit=3, domains=2, threshold=3, aggregation="sum",
    replacement="reversed",
)  # fmt: skip


class Engine:
    """A register file whose engine does nothing but load images and take commands."""

    def __init__(self, ctx: Any, dut: Registers) -> None:
        self.ctx, self.dut = ctx, dut
        self.driver = PrefetchEngineDriver(LIMITS, self.read, self.write, self.clear_text)
        self.cleared: list[tuple[int, int, int]] = []
        self.commands: list[tuple[HostRequest, int, int]] = []
        self.shares: dict[int, int] = {}
        self.load_fails = False

    async def read(self, address: int) -> int:
        data, response = await read(self.ctx, self.dut.bus, address)
        assert response == OKAY, hex(address)
        return data

    async def write(self, address: int, value: int) -> None:
        response = await write(self.ctx, self.dut.bus, address, value)
        if response != OKAY:
            raise AssertionError(f"write of {value:#x} to {address:#x} is refused")

    async def clear_text(self, first: int, count: int) -> None:
        self.cleared.append((self.ctx.get(self.dut.file.settings.mode), first, count))

    async def watch(self, ctx: Any) -> None:
        """Take the host's commands and shares; a load takes ten cycles."""
        file, loading = self.dut.file, 0
        ctx.set(self.dut.host_ready, 1)
        while True:
            if ctx.get(file.host.valid):
                payload = file.host.payload
                self.commands.append((ctx.get(payload.kind), ctx.get(payload.layer), ctx.get(payload.expert)))
            if ctx.get(file.shares.valid):
                self.shares[ctx.get(file.shares.layer)] = ctx.get(file.shares.share)
            loading = 10 if ctx.get(file.load) else loading - (loading > 0)
            ctx.set(file.load_done, loading == 1)
            ctx.set(file.load_failed, loading == 1 and self.load_fails)
            ctx.set(file.errors, EngineError.IMAGE_CHECKSUM if loading == 1 and self.load_fails else 0)
            await ctx.tick()


def run(body: Callable[[Engine], Awaitable[None]]) -> None:
    dut = Registers()
    engines: list[Engine] = []

    async def bench(ctx: Any) -> None:
        engines.append(Engine(ctx, dut))
        await body(engines[0])

    async def watch(ctx: Any) -> None:
        while not engines:
            await ctx.tick()
        await engines[0].watch(ctx)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.add_testbench(watch, background=True)
    simulator.run()


def test_an_engine_is_set_up_and_set_up_anew() -> None:
    async def body(engine: Engine) -> None:
        driver, signals = engine.driver, engine.dut.file.settings
        await driver.identify()
        await driver.configure(SETTINGS, tables=TABLES, text=TEXT, image_base=0x12_0000_1000)
        expected = setting_values(LIMITS, SETTINGS, tables=TABLES, text=TEXT, image_base=0x12_0000_1000)
        for name, value in expected.items():
            assert engine.ctx.get(getattr(signals, name)) == value, name
            assert await driver.get(name) == value, name
        assert engine.ctx.get(signals.mode) == Mode.LEARNED
        assert engine.shares == dict(enumerate(SETTINGS.stager.shares))
        assert [kind for kind, _, _ in engine.commands] == [HostRequest.CLEAR]
        # A table has 512 entries of 16 bytes, the log 256 records of a beat.
        assert engine.cleared == [
            (Mode.OFF, 0x10_0000_0040 + slot * 0x2_0000, 3 * 512 * 16 + 256 * 64) for slot in range(LIMITS.slots_max)
        ]
        assert await driver.errors() == 0
        status = await driver.status()
        assert (status.busy, status.loaded, status.unclear) == (False, True, False)

        # Another model, from the running engine; nothing of the text stays.
        other = SETTINGS.model_copy(
            update={"mode": Mode.TABLES, "layers": 3, "distance": 1, "stager": StagerSettings(shares=(9,))}
        )
        await driver.configure(other, tables=TABLES.model_copy(update={"layers": 3, "lookahead": 1}))
        assert [engine.ctx.get(getattr(signals, name)) for name in ("mode", "layers", "text_tables")] == [1, 3, 0]
        assert engine.ctx.get(signals.stager_by_layer) == 0
        assert engine.shares[0] == 9
        assert not (await driver.status()).loaded
        assert len(engine.cleared) == LIMITS.slots_max, "no text is looked up"

    run(body)


def test_texts_are_not_looked_up_where_nobody_clears_their_memory() -> None:
    async def body(engine: Engine) -> None:
        driver = PrefetchEngineDriver(LIMITS, engine.read, engine.write)
        with pytest.raises(ForestageError, match="nobody clears their memory; give the driver clear_text"):
            await driver.configure(SETTINGS, text=TEXT, image_base=0)
        await driver.configure(SETTINGS, image_base=0)
        assert engine.ctx.get(engine.dut.file.settings.mode) == Mode.LEARNED

    run(body)


def test_experts_are_preloaded_fixed_and_let_go() -> None:
    async def body(engine: Engine) -> None:
        await engine.driver.preload(4, (15, 0))
        await engine.driver.fix(4, (15,))
        await engine.driver.fix(4, (15,), fixed=False)
        kinds = (HostRequest.PRELOAD, HostRequest.PRELOAD, HostRequest.FIX, HostRequest.UNFIX)
        assert engine.commands == list(zip(kinds, (4,) * 4, (15, 0, 15, 15), strict=True))

    run(body)


def test_an_image_that_cannot_be_loaded_is_said() -> None:
    async def body(engine: Engine) -> None:
        engine.load_fails = True
        with pytest.raises(ForestageError, match="not loaded; errors: IMAGE_CHECKSUM"):
            await engine.driver.configure(SETTINGS, text=TEXT, image_base=0)
        assert engine.ctx.get(engine.dut.file.settings.mode) == Mode.OFF
        # That error is still told when the next is loaded.
        engine.load_fails = False
        await engine.driver.configure(SETTINGS, text=TEXT, image_base=0)
        assert engine.ctx.get(engine.dut.file.settings.mode) == Mode.LEARNED
        await engine.driver.command(Command.CLEAR_ERRORS | Command.CLEAR_INTERRUPTS)
        assert await engine.driver.interrupts() == Interrupt(0)

    run(body)


def test_a_busy_engine_is_not_set_up() -> None:
    async def body(engine: Engine) -> None:
        engine.ctx.set(engine.dut.busy, 1)
        with pytest.raises(ForestageError, match="busy after 3 polls"):
            await engine.driver.configure(SETTINGS, polls=3)

    run(body)


def test_tables_and_counters_are_read_and_written() -> None:
    async def body(engine: Engine) -> None:
        memory = MAP.memory
        assert memory is not None
        image = np.random.default_rng(1).integers(0, 1 << 32, (memory.rows, memory.words), np.uint32)
        await engine.driver.load_tables(image)
        assert (await engine.driver.read_tables() == image).all()
        for counter in EngineCounter:
            engine.ctx.set(engine.dut.file.counters[counter], counter << 33 | 5)
        assert await engine.driver.counters() == {counter: counter << 33 | 5 for counter in EngineCounter}

    run(body)


def test_another_engine_is_recognised() -> None:
    async def wrong(address: int) -> int:
        return MAP.register("LIMITS").reset + 1 if address == MAP.offset("LIMITS") else _constant(address)

    async def refuse(address: int, value: int) -> None:
        raise AssertionError

    with pytest.raises(ForestageError, match="LIMITS is"):
        asyncio.run(PrefetchEngineDriver(LIMITS, wrong, refuse).identify())


def _constant(address: int) -> int:
    return {register.offset: register.reset for register in MAP.registers}[address]


@pytest.mark.parametrize(
    ("change", "more", "says"),
    [
        ({"layers": 7}, {}, "layers is 7; it is generated for at most 6"),
        ({"mode": Mode.TABLES}, {}, "their configuration is not given"),
        ({}, {"tables": TABLES.model_copy(update={"lookahead": 1})}, "differ in distance"),
        ({}, {"text": TEXT.model_copy(update={"top_k": 3})}, "differ in top_k"),
        ({}, {"text": TEXT.model_copy(update={"lengths": (1, 2, 8)})}, "the longest n-gram"),
        ({}, {"image_base": 32}, "image_base: 0x20 is no multiple of 64"),
        ({}, {"image_base": 1 << 40}, "image_base is"),
        ({}, {"tables": TABLES.model_copy(update={"issue_limit": 6})}, "table_issue_limit is 6"),
    ],
)
def test_settings_that_the_engine_cannot_hold_are_refused(
    change: dict[str, Any], more: dict[str, Any], says: str
) -> None:
    with pytest.raises(ForestageError, match=says):
        setting_values(LIMITS, SETTINGS.model_copy(update=change), **more)


def test_every_setting_has_a_value() -> None:
    found = setting_values(LIMITS, SETTINGS, tables=TABLES, text=TEXT)
    assert {one.name for one in settings(LIMITS)} - set(found) == {"mode", "share_layer"}
