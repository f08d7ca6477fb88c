"""The whole engine in Amaranth's simulator: what lock-step replay does not do (off, changes between events)."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from cocotb_tests.payloads import pack_events
from predictor.st_moe.events import EngineCounter, EventError, RoutingEvent, StepResult
from predictor.st_moe.parameters import EngineConfiguration, EngineLimits
from predictor.st_moe.tables import StMoeTables, first_request_cycle
from rtl.prefetch.address_map import (
    SETTINGS,
    STATUS_ERROR_SHIFT,
    Window,
    address_map,
    configuration_writes,
    counter_offset,
)
from rtl.prefetch.engine import PrefetchEngine
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
    dut: PrefetchEngine

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
    dut = PrefetchEngine(LIMITS)

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
                if not next(setting for setting in SETTINGS if setting.offset == offset).locked:
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
        assert await driver.write(SETTINGS[0].offset, 3) == SLVERR
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
