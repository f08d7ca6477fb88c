"""The whole engine in Amaranth's simulator: what lock-step replay does not do (off, changes between events)."""

import copy
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from cocotb_tests.payloads import pack_events
from predictor.st_moe.events import EngineCounter, EventError, RoutingEvent, StepResult
from predictor.st_moe.parameters import EngineConfiguration, EngineLimits
from predictor.st_moe.tables import StMoeTables, first_request_cycle
from rtl.prefetch.tables.engine import TableEngine
from rtl.prefetch.tables.address_map import (
    STATUS_ERROR_SHIFT,
    Window,
    address_map,
    configuration_writes,
    counter_offset,
    setting_offset,
)
from rtl.prefetch.tables.settings import SETTINGS
from tests.rtl.bus.axi_driver import OKAY, SLVERR, read, write
from tests.rtl.simulate import simulate

LIMITS = EngineLimits(experts_max=8, layers_max=6, top_k_max=3, candidates_max=3)
MAP = address_map(LIMITS)
CONFIGURATION = EngineConfiguration(experts=6, layers=5, top_k=2, candidates=3, issue_limit=6)


def twin(configuration: EngineConfiguration = CONFIGURATION) -> StMoeTables:
    generator = np.random.default_rng(6)
    shape = (configuration.layers, configuration.experts, configuration.candidates)
    candidates = generator.permuted(np.tile(np.arange(configuration.experts), (*shape[:2], 1)), axis=2)[..., : shape[2]]
    confidences = generator.integers(0, 4, shape)
    return StMoeTables(LIMITS, configuration, candidates.astype(np.int16), confidences.astype(np.int8))


@dataclass
class Driver:
    """The engine's ports by hand."""

    ctx: Any
    dut: TableEngine

    async def write(self, offset: int, value: int) -> int:
        return await write(self.ctx, self.dut.control, offset, value)

    async def read(self, offset: int) -> int:
        data, response = await read(self.ctx, self.dut.control, offset)
        assert response == OKAY
        return data

    async def load(self, tables: StMoeTables) -> None:
        window = Window.of(LIMITS)
        for address, words in enumerate(tables.to_memory_image().tolist()):
            for nth, word in enumerate(words):
                assert await self.write(window.offset(address, nth), word) == OKAY
        for offset, value in configuration_writes(tables.configuration):
            assert await self.write(offset, value) == OKAY
        assert await self.write(MAP.offset("CONTROL"), MAP.mask("CONTROL", "enable")) == OKAY

    async def step(self, event: RoutingEvent) -> tuple[list[tuple[int, ...]], list[tuple[int, int]], int, int]:
        """Requests, updates, the cycle of the first request (−1: none) and the cycles of one event."""
        payload = pack_events(LIMITS, [event], np.random.default_rng(7))[0]
        self.ctx.set(self.dut.events.payload.as_value(), int.from_bytes(payload.tobytes(), "little"))
        self.ctx.set(self.dut.events.valid, 1)
        self.ctx.set(self.dut.requests.ready, 1)
        assert self.ctx.get(self.dut.events.ready)
        await self.ctx.tick()
        self.ctx.set(self.dut.events.valid, 0)
        requests, updates, first = [], [], -1
        for cycle in range(1, 200):
            if self.ctx.get(self.dut.events.ready):
                return requests, updates, first, cycle
            if self.ctx.get(self.dut.requests.valid):
                first = cycle if first < 0 else first
                payload = self.dut.requests.payload
                requests.append(
                    tuple(self.ctx.get(x) for x in (payload.layer, payload.expert, payload.score, payload.last))
                )
            if self.ctx.get(self.dut.table_writes.valid):
                writes = self.dut.table_writes
                updates.append((self.ctx.get(writes.address), self.ctx.get(writes.row.as_value())))
            await self.ctx.tick()
        raise AssertionError("the engine hangs")

    async def compare(self, tables: StMoeTables, event: RoutingEvent) -> StepResult:
        """Step both and compare."""
        expected = tables.step(event)
        requests, updates, first, cycles = await self.step(event)
        assert requests == [(r.layer, r.expert, r.score, int(r.last)) for r in expected.requests]
        assert updates == [(update.address, update.row) for update in expected.updates]
        assert cycles == expected.cycles
        if requests:
            assert first == first_request_cycle(LIMITS, top_k=tables.configuration.top_k)
        return expected


def run(body: Callable[[Driver], Awaitable[None]]) -> None:
    dut = TableEngine(LIMITS)

    async def bench(ctx: Any) -> None:
        await body(Driver(ctx, dut))

    simulate(dut, bench)


def event(layer: int, *experts: int, token: bool = False, sequence: bool = False) -> RoutingEvent:
    return RoutingEvent(layer, experts, starts_token=token or sequence, starts_sequence=sequence)


FIRST_TOKEN = [event(0, 1, 2, sequence=True), event(1, 3, 4), event(2, 0, 5), event(3, 1, 3), event(4, 2, 0)]


def test_settings_that_are_not_locked_take_effect_at_the_next_event() -> None:
    async def body(driver: Driver) -> None:
        tables = twin()
        await driver.load(tables)
        issued = 0
        changes: list[dict[str, Any]] = [
            {"threshold": 1, "ht_confidence": 3, "aggregation": "sum"},
            {"issue_limit": 2},
            {"replacement": "reversed", "replacement_confidence": 3},
            {"threshold": 3, "issue_limit": 6, "aggregation": "max"},
        ]
        for change in changes:
            configuration = tables.configuration.model_copy(update=change)
            tables.configuration = configuration
            for offset, value in configuration_writes(configuration):
                if not next(setting for setting in SETTINGS if setting_offset(setting.name) == offset).locked:
                    assert await driver.write(offset, value) == OKAY
            for step in FIRST_TOKEN:
                issued += len((await driver.compare(tables, step)).requests)
        assert issued > 20
        assert tables.counters[EngineCounter.REPLACEMENTS] > 3

    run(body)


def test_off_discards_every_cycle_and_forgets_the_history() -> None:
    async def body(driver: Driver) -> None:
        tables = twin()
        await driver.load(tables)
        for step in FIRST_TOKEN[:3]:
            await driver.compare(tables, step)
        assert await driver.write(MAP.offset("CONTROL"), 0) == OKAY
        tables.enabled = False
        for step in FIRST_TOKEN[:2]:
            await driver.compare(tables, step)  # one cycle each
        assert await driver.write(MAP.offset("CONTROL"), MAP.mask("CONTROL", "enable")) == OKAY
        tables.enabled = True
        assert (await driver.compare(tables, event(3, 1, 3))).updates == ()
        for counter in (EngineCounter.EVENTS, EngineCounter.DISCARDED, EngineCounter.BUSY_CYCLES):
            assert await driver.read(counter_offset(counter)) == tables.counters[counter]
        await driver.write(MAP.offset("COMMAND"), MAP.mask("COMMAND", "clear_counters"))
        assert await driver.read(counter_offset(EngineCounter.EVENTS)) == 0

    run(body)


def test_switching_off_during_an_event_lets_it_finish() -> None:
    async def body(driver: Driver) -> None:
        tables = twin()
        await driver.load(tables)
        expected = tables.step(FIRST_TOKEN[0])
        assert len(expected.requests) >= 2
        payload = pack_events(LIMITS, [FIRST_TOKEN[0]], np.random.default_rng(0))[0]
        driver.ctx.set(driver.dut.events.payload.as_value(), int.from_bytes(payload.tobytes(), "little"))
        driver.ctx.set(driver.dut.events.valid, 1)
        await driver.ctx.tick()
        driver.ctx.set(driver.dut.events.valid, 0)
        # Nobody takes the requests, and yet the bus answers.
        assert await driver.write(MAP.offset("CONTROL"), 0) == OKAY
        assert await driver.read(MAP.offset("STATUS")) == MAP.mask("STATUS", "busy")
        assert await driver.write(setting_offset("experts"), 3) == SLVERR
        assert await driver.read(Window.of(LIMITS).offset(0, 0)) == tables.to_memory_image()[0, 0]
        await driver.ctx.tick().until(driver.dut.requests.valid)
        driver.ctx.set(driver.dut.requests.ready, 1)
        experts = []
        while not driver.ctx.get(driver.dut.events.ready):
            if driver.ctx.get(driver.dut.requests.valid):
                experts.append(driver.ctx.get(driver.dut.requests.payload.expert))
            await driver.ctx.tick()
        assert experts == [request.expert for request in expected.requests]
        assert await driver.read(counter_offset(EngineCounter.STALL_CYCLES)) > 0

    run(body)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (event(5, 1, 2), EventError.LAYER),
        (event(2, 6, 2), EventError.EXPERT),
        (event(2, 1, 7), EventError.EXPERT),
        (event(2, 4, 4), EventError.DUPLICATE),
        (event(5, 7, 7), EventError.LAYER | EventError.EXPERT | EventError.DUPLICATE),
    ],
)
def test_a_bad_event_is_counted_and_changes_nothing(bad: RoutingEvent, error: EventError) -> None:
    async def body(driver: Driver) -> None:
        tables = twin()
        await driver.load(tables)
        # Were it remembered, layer 3 would be verified against the rows of the wrong experts.
        for step in (*FIRST_TOKEN[:3], bad, *FIRST_TOKEN[3:], event(1, 3, 4, token=True)):
            await driver.compare(tables, step)
        assert await driver.read(MAP.offset("STATUS")) == error << STATUS_ERROR_SHIFT
        assert await driver.read(counter_offset(EngineCounter.REJECTED)) == 1

    run(body)


def test_one_expert_one_candidate_and_the_largest_lookahead() -> None:
    async def body(driver: Driver) -> None:
        configuration = EngineConfiguration(
            experts=8, layers=6, top_k=1, candidates=1, lookahead=5, issue_limit=8, threshold=1
        )
        tables = twin(configuration)
        await driver.load(tables)
        for token in range(4):
            for layer in range(6):
                step = event(layer, (token + layer) % 8, token=layer == 0, sequence=token == 0 and layer == 0)
                await driver.compare(tables, step)
        assert tables.counters[EngineCounter.UPDATES] == 4

    run(body)


POLICIES = {
    "threshold": (1, 4),
    "ht_confidence": (0, 3),
    "aggregation": ("max", "sum"),
    "replacement": ("none", "ranked"),
    "replacement_confidence": (0, 3),
    "issue_limit": (6, 1),
}


async def held_event(driver: Driver, event: RoutingEvent, offset: int, value: int) -> tuple[list[int], list[int]]:
    """Experts requested and rows written by an event during which ``value`` is written to ``offset``.

    The write begins with the event and reaches the register while its rows are read; requests are held up until then.
    """
    ctx, dut = driver.ctx, driver.dut
    payload = pack_events(LIMITS, [event], np.random.default_rng(7))[0]
    ctx.set(dut.events.payload.as_value(), int.from_bytes(payload.tobytes(), "little"))
    for signal, level in (
        (dut.events.valid, 1),
        (dut.requests.ready, 0),
        (dut.control.awaddr, offset),
        (dut.control.wdata, value),
        (dut.control.wstrb, 0b1111),
        (dut.control.awvalid, 1),
        (dut.control.wvalid, 1),
        (dut.control.bready, 1),
    ):
        ctx.set(signal, level)
    assert ctx.get(dut.events.ready)
    assert ctx.get(dut.control.awready)
    await ctx.tick()
    for signal in (dut.events.valid, dut.control.awvalid, dut.control.wvalid):
        ctx.set(signal, 0)
    experts, rows, written = [], [], False
    for cycle in range(1, 100):
        ctx.set(dut.requests.ready, cycle > 30)
        if ctx.get(dut.events.ready):
            break
        written |= bool(ctx.get(dut.control.bvalid)) and ctx.get(dut.control.bresp).value == OKAY
        if ctx.get(dut.requests.valid) and ctx.get(dut.requests.ready):
            experts.append(ctx.get(dut.requests.payload.expert))
        if ctx.get(dut.table_writes.valid):
            rows.append(ctx.get(dut.table_writes.row.as_value()))
        await ctx.tick()
    assert written
    ctx.set(dut.control.bready, 0)
    ctx.set(dut.requests.ready, 1)
    return experts, rows


@pytest.mark.parametrize("name", POLICIES)
def test_a_setting_written_during_an_event_waits_for_the_next(name: str) -> None:
    async def body(driver: Driver) -> None:
        tables = twin(CONFIGURATION.model_copy(update={name: POLICIES[name][0], "threshold": 1}))
        await driver.load(tables)
        would_differ = 0
        for nth, step in enumerate(
            [*FIRST_TOKEN, *(event(e.layer, *e.experts, token=not e.layer) for e in FIRST_TOKEN)] * 2
        ):
            following = tables.configuration.model_copy(update={name: POLICIES[name][(nth + 1) % 2]})
            other = copy.deepcopy(tables)
            other.configuration = following
            expected, too_soon = tables.step(step), other.step(step)
            would_differ += (expected.requests, expected.updates) != (too_soon.requests, too_soon.updates)
            value = following.register_values()[name]
            experts, rows = await held_event(driver, step, MAP.offset(name.upper()), value)
            assert experts == [request.expert for request in expected.requests]
            assert rows == [update.row for update in expected.updates]
            tables.configuration = following
        assert would_differ >= 2

    run(body)


def test_counters_cleared_while_they_count_start_from_zero() -> None:
    async def body(driver: Driver) -> None:
        await driver.load(twin(CONFIGURATION.model_copy(update={"threshold": 1})))
        payload = pack_events(LIMITS, [FIRST_TOKEN[0]], np.random.default_rng(0))[0]
        driver.ctx.set(driver.dut.events.payload.as_value(), int.from_bytes(payload.tobytes(), "little"))
        driver.ctx.set(driver.dut.events.valid, 1)
        await driver.ctx.tick()
        driver.ctx.set(driver.dut.events.valid, 0)
        await driver.ctx.tick().until(driver.dut.requests.valid)
        await driver.ctx.tick().repeat(20)
        assert await driver.write(MAP.offset("COMMAND"), MAP.mask("COMMAND", "clear_counters")) == OKAY
        driver.ctx.set(driver.dut.requests.ready, 1)
        await driver.ctx.tick().until(driver.dut.events.ready)
        assert 0 < await driver.read(counter_offset(EngineCounter.STALL_CYCLES)) < 20
        assert 0 < await driver.read(counter_offset(EngineCounter.BUSY_CYCLES)) < 20
        assert await driver.read(counter_offset(EngineCounter.EVENTS)) == 0

    run(body)
