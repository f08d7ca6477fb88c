"""In the simulator: the engine of ST-MoE's tables and its twin get the same events, and everything they do is compared.

The stimulus (``cocotb_tests.lock_step`` writes it): limits, configuration, memory image, events and their payloads,
wait patterns. The twin is loaded with the image and fed with the events; it never sees an output.
"""

import random
import time
from dataclasses import dataclass, field
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from numpy.typing import NDArray

from cocotb_tests import exchange
from cocotb_tests.axi_lite import AxiLiteMaster
from cocotb_tests.streams import StableUntilReady, StreamConsumer, StreamProducer
from predictor.st_moe.events import EngineCounter, Request, RoutingEvent, StepResult
from predictor.st_moe.parameters import EngineConfiguration, EngineLimits
from predictor.st_moe.tables import StMoeTables
from rtl.bus.register_map import COUNTER_BITS, DATA_BITS
from rtl.prefetch.tables.address_map import (
    STATUS_ERROR_SHIFT,
    Window,
    address_map,
    configuration_writes,
    counter_offset,
)

_PROGRESS_EVENTS = 100
_HUNG_CYCLES = 20_000


@dataclass
class Observed:
    """What the hardware did since it accepted an event."""

    requests: list[int] = field(default_factory=list)
    updates: list[tuple[int, int]] = field(default_factory=list)
    accepted: int = 0


class Comparison:
    """Counts every difference and describes the first."""

    def __init__(self) -> None:
        self.mismatches = 0
        self.first = ""

    def equal(self, what: str, twin: Any, hardware: Any) -> None:
        """One value of each."""
        if twin != hardware:
            self.mismatches += 1
            self.first = self.first or f"{what}: twin {twin}, hardware {hardware}"

    def equal_lists(self, what: str, twin: list[Any], hardware: list[Any]) -> None:
        """Values in order."""
        if twin != hardware:
            longest = max(len(twin), len(hardware))
            pairs = zip(_padded(twin, longest), _padded(hardware, longest), strict=True)
            for nth, (expected, found) in enumerate(pairs):
                self.equal(f"{what} {nth}", expected, found)


def _padded(values: list[Any], length: int) -> list[Any]:
    return values + [None] * (length - len(values))


class Bench:
    """The engine, its bus, its twin."""

    def __init__(self, dut: Any, stimulus: dict[str, Any]) -> None:
        self.dut = dut
        self.edge = RisingEdge(dut.clk)
        self.limits = EngineLimits.model_validate(stimulus["limits"])
        self.configuration = EngineConfiguration.model_validate(stimulus["configuration"])
        self.image: NDArray[np.uint32] = stimulus["image"]
        self.map = address_map(self.limits)
        self.window = Window.of(self.limits)
        self.twin = StMoeTables.from_memory_image(self.limits, self.configuration, self.image)
        self.waits = bool(stimulus["waits"])
        self.random = random.Random(stimulus["seed"])
        self.bus = AxiLiteMaster(dut, "control", waits=self.random if self.waits else None)
        self.comparison = Comparison()
        self.request_fields: dict[str, list[int]] = stimulus["request_fields"]
        self.request_rule = StableUntilReady("requests")
        self.cycle = 0
        self.streaming = True
        self.not_ready_cycles = 0
        self.stall_cycles = 0

    async def reset(self) -> None:
        """Reset with all inputs quiet."""
        self.dut.rst.value = 1
        self.dut.events__valid.value = 0
        self.dut.requests__ready.value = 1
        Clock(self.dut.clk, 2, unit="ns").start()
        for _ in range(2):
            await self.edge
        self.dut.rst.value = 0
        await self.edge

    async def load(self) -> None:
        """Check what the engine says of itself, load its table, configure it, switch it on."""
        for register in self.map.registers:
            if register.readable:
                self.comparison.equal(register.name, register.reset, await self.bus.read(register.offset))
        for address, row in enumerate(self.image.tolist()):
            for word, value in enumerate(row):
                await self.bus.write(self.window.offset(address, word), value)
        for offset, value in configuration_writes(self.configuration):
            await self.bus.write(offset, value)
        command = self.map.register("COMMAND")
        await self.bus.write(command.offset, sum(field.mask for field in command.fields))
        await self.bus.write(self.map.offset("CONTROL"), self.map.mask("CONTROL", "enable"))

    async def stream(self, events: list[RoutingEvent], stimulus: dict[str, Any]) -> None:
        """Stream the events through and compare each one as the next is accepted."""
        dut = self.dut
        producer = StreamProducer(dut, "events", stimulus["payloads"], stimulus["event_pattern"])
        consumer = StreamConsumer(dut, "requests", stimulus["request_pattern"])
        ready, request_valid, write_valid = dut.events__ready, dut.requests__valid, dut.table_writes__valid
        request, address, row = dut.requests__payload, dut.table_writes__address, dut.table_writes__row
        observed, expected, label = Observed(), StepResult((), (), 0), "before the first event"
        idle_since = 0
        started = False
        while producer.taken < len(events) or not idle_since:
            producer.drive(self.cycle)
            consumer.drive(self.cycle)
            await self.edge
            if write_valid.value:
                observed.updates.append((address.value.to_unsigned(), row.value.to_unsigned()))
            valid = bool(request_valid.value)
            payload = request.value.to_unsigned() if valid else 0
            if valid and consumer.ready:
                observed.requests.append(payload)
            if self.waits:
                self.request_rule.sample(self.cycle, valid, consumer.ready, payload)
                self.stall_cycles += valid and not consumer.ready
            is_ready = bool(ready.value)
            self.not_ready_cycles += not is_ready
            if is_ready and started and not idle_since:
                self._compare(label, expected, observed, self.cycle - observed.accepted)
                idle_since = self.cycle
            if producer.sample(is_ready):
                nth = producer.taken - 1
                label, expected = _label(nth, events[nth]), self.twin.step(events[nth])
                observed, started, idle_since = Observed(accepted=self.cycle), True, 0
                if nth % _PROGRESS_EVENTS == 0:
                    exchange.report_progress(nth)
            elif not is_ready and self.cycle - observed.accepted > _HUNG_CYCLES:
                raise AssertionError(f"{label}: the engine hangs")
            self.cycle += 1
        exchange.report_progress(len(events))

    def _compare(self, label: str, expected: StepResult, observed: Observed, cycles: int) -> None:
        requests = [self._pack(request) for request in expected.requests]
        if requests != observed.requests:
            found = [self._unpack(payload) for payload in observed.requests]
            self.comparison.equal_lists(f"{label}, request", list(expected.requests), found)
        updates = [(update.address, update.row) for update in expected.updates]
        self.comparison.equal_lists(f"{label}, update (address, row)", updates, observed.updates)
        if not self.waits:
            self.comparison.equal(f"{label}, cycles", expected.cycles, cycles)

    def _pack(self, request: Request) -> int:
        return sum(getattr(request, name) << place for name, (place, _) in self.request_fields.items())

    def _unpack(self, payload: int) -> Request:
        values = {name: payload >> place & (1 << width) - 1 for name, (place, width) in self.request_fields.items()}
        return Request(values["layer"], values["expert"], values["score"], bool(values["last"]))

    async def read_back(self) -> dict[str, int]:
        """Compare the whole table, the counters and the sticky errors; returns the hardware's counters."""
        twin = self.twin
        for address, words in enumerate(twin.to_memory_image().tolist()):
            found = [await self.bus.read(self.window.offset(address, word)) for word in range(len(words))]
            self.comparison.equal_lists(f"read-back of row {address}, word", words, found)
        status = await self.bus.read(self.map.offset("STATUS"))
        self.comparison.equal("STATUS", int(twin.errors) << STATUS_ERROR_SHIFT, status)
        counters = {}
        for counter in EngineCounter:
            low, high = [await self.bus.read(counter_offset(counter) + place) for place in (0, 4)]
            name, expected = counter.name.lower(), int(twin.counters[counter])
            if self.waits and counter is EngineCounter.BUSY_CYCLES:
                expected = self.not_ready_cycles
            elif self.waits and counter is EngineCounter.STALL_CYCLES:
                expected = self.stall_cycles
            counters[name] = low | high << DATA_BITS
            self.comparison.equal(f"counter {name}", expected % (1 << COUNTER_BITS), counters[name])
        for violation in self.request_rule.violations + self.bus.violations:
            self.comparison.equal("protocol", "kept", violation)
        return counters


def _label(nth: int, event: RoutingEvent) -> str:
    return f"event {nth} (slot {event.slot}, layer {event.layer}, experts {event.experts})"


async def _disturb(bench: Bench) -> None:
    """Read registers and table words at random while the engine runs; nothing may change for it."""
    while bench.streaming:
        address = bench.random.randrange(len(bench.image))
        await bench.bus.read(bench.window.offset(address, 0))
        await bench.bus.read(bench.map.offset("STATUS"))


@cocotb.test()
async def lock_step(dut: Any) -> None:
    """Load, stream, read back; the comparison is written as the result."""
    stimulus = exchange.read_stimulus()
    events = [
        RoutingEvent(layer, tuple(experts), bool(token), bool(sequence), slot, domain)
        for slot, layer, token, sequence, domain, *experts in stimulus["events"].tolist()
    ]
    bench = Bench(dut, stimulus)
    await bench.reset()
    await bench.load()
    disturbance = cocotb.start_soon(_disturb(bench)) if bench.waits else None
    started = time.perf_counter()
    await bench.stream(events, stimulus)
    streaming_s = time.perf_counter() - started
    bench.streaming = False
    if disturbance is not None:
        await disturbance
    counters = await bench.read_back()
    exchange.write_results(
        {
            "mismatches": bench.comparison.mismatches,
            "first_mismatch": bench.comparison.first,
            "cycles": bench.cycle,
            "streaming_s": streaming_s,
            "counters": counters,
        }
    )
