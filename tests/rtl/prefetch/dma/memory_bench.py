"""Two memories on a DMA's ports in Amaranth's simulator: small, with latency, waits and faults."""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from amaranth.lib import wiring

from rtl.bus.axi_lite import Response
from rtl.prefetch.dma.dma import Dma
from staging.transfer.bursts import Burst, Descriptor
from staging.transfer.limits import TransferLimits
from tests.rtl.simulate import simulate


def far_byte(address: int) -> int:
    """What the far memory holds: a function of the address without a short period."""
    return (address * 2654435761 >> 8 ^ address >> 3) & 0xFF


@dataclass
class Log:
    """What the memories saw, in order, with the cycles of handshakes."""

    reads: list[tuple[int, Burst]] = field(default_factory=list)
    beats: list[int] = field(default_factory=list)
    writes: list[tuple[int, Burst]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    ends: list[tuple[int, int]] = field(default_factory=list)
    staging: dict[int, int] = field(default_factory=dict)
    strays: int = 0


@dataclass
class Faults:
    """Bursts, by number, that the memory treats badly.

    ``reads``: response of one beat of a burst: (beat, response); ``lasts``: beats at which rlast is inverted; ``cut``:
    beats after which a burst ends at once, without rlast; ``writes``: responses.
    """

    reads: dict[int, tuple[int, int]] = field(default_factory=dict)
    lasts: dict[int, int] = field(default_factory=dict)
    cut: dict[int, int] = field(default_factory=dict)
    writes: dict[int, int] = field(default_factory=dict)


def move(
    limits: TransferLimits,
    descriptors: Sequence[Descriptor],
    *,
    latency: int = 3,
    answer_latency: int = 2,
    waits: float = 0.0,
    seed: int = 0,
    faults: Faults | None = None,
    settings: dict[str, int] | None = None,
    patience: int = 5000,
) -> Log:
    """Run the descriptors, in order; ``waits`` is the chance that a channel is not ready, or has nothing, in a cycle.

    ``latency``: from the handshake on AR to the first beat; ``answer_latency``: from that of the last beat, or of AW if
    it comes later, to B.

    Raises:
        AssertionError: nothing happened for ``patience`` cycles, or a check of the circuit failed.
    """
    dut, log, bad = Dma(limits), Log(), faults or Faults()
    chance = random.Random(seed)

    async def bench(ctx: Any) -> None:
        for name, value in (settings or {}).items():
            ctx.set(getattr(dut, name), value)
        read, write = FarMemory(limits, latency, bad), StagingMemory(limits, answer_latency, bad)
        waiting, cycle, quiet = deque(descriptors), 0, 0
        offering = False
        while len(log.ends) < len(descriptors):
            go = {name: chance.random() >= waits for name in ("d", "e", "ar", "r", "aw", "w", "b")}
            offering = bool(waiting) and (offering or go["d"])
            ctx.set(dut.descriptors.valid, offering)
            if offering:
                ctx.set(dut.descriptors.payload, vars_of(waiting[0]))
            ctx.set(dut.ends.ready, go["e"])
            read.drive(ctx, dut.far, cycle, go)
            write.drive(ctx, dut.staging, cycle, go)
            before = len(log.beats) + len(log.ends) + len(log.reads) + len(log.answers)
            if offering and ctx.get(dut.descriptors.ready):
                waiting.popleft()
                offering = False
                log.accepted.append(cycle)
            if ctx.get(dut.ends.valid) and go["e"]:
                log.ends.append((cycle, ctx.get(dut.ends.payload)))
            log.strays += ctx.get(dut.stray)
            read.see(ctx, dut.far, cycle, log)
            write.see(ctx, dut.staging, cycle, log)
            quiet = 0 if len(log.beats) + len(log.ends) + len(log.reads) + len(log.answers) > before else quiet + 1
            assert quiet < patience, f"nothing happens any more; {len(log.ends)} of {len(descriptors)} ended"
            await ctx.tick()
            cycle += 1

    simulate(dut, bench)
    return log


def vars_of(descriptor: Descriptor) -> dict[str, int]:
    """The fields of a descriptor."""
    return {"source": descriptor.source, "destination": descriptor.destination, "bytes": descriptor.bytes}


class FarMemory:
    """Answers reads in order."""

    def __init__(self, limits: TransferLimits, latency: int, faults: Faults) -> None:
        self.limits, self.latency, self.faults = limits, latency, faults
        self.beats: deque[tuple[int, dict[str, int]]] = deque()
        self.bursts = 0
        self.held = False
        self.offered = False

    def drive(self, ctx: Any, bus: wiring.PureInterface, cycle: int, go: dict[str, bool]) -> None:
        ctx.set(bus.arready, go["ar"])
        self.offered = bool(self.beats) and self.beats[0][0] <= cycle and (self.held or go["r"])
        ctx.set(bus.rvalid, self.offered)
        if self.offered:
            for name, value in self.beats[0][1].items():
                ctx.set(getattr(bus, name), value)

    def see(self, ctx: Any, bus: wiring.PureInterface, cycle: int, log: Log) -> None:
        self.held = self.offered and not ctx.get(bus.rready)
        assert not self.held, "the read channel must never wait"
        if self.offered:
            self.beats.popleft()
            log.beats.append(cycle)
        if ctx.get(bus.arvalid) and ctx.get(bus.arready):
            burst = Burst(ctx.get(bus.araddr), ctx.get(bus.arlen) + 1)
            log.reads.append((cycle, burst))
            self._answer(burst, cycle + self.latency)
            self.bursts += 1

    def _answer(self, burst: Burst, when: int) -> None:
        number, width = self.bursts, self.limits.data_bytes
        at, response = self.faults.reads.get(number, (0, 0))
        for beat in range(self.faults.cut.get(number, burst.beats)):
            first = burst.address + beat * width
            last = (beat == burst.beats - 1) ^ (self.faults.lasts.get(number) == beat)
            self.beats.append(
                (
                    when,
                    {
                        "rdata": int.from_bytes(bytes(far_byte(first + n) for n in range(width)), "little"),
                        "rresp": Response(response if beat == at else 0),
                        "rlast": int(last),
                    },
                )
            )


class StagingMemory:
    """Takes writes in order, data possibly before their address."""

    def __init__(self, limits: TransferLimits, latency: int, faults: Faults) -> None:
        self.limits, self.latency, self.faults = limits, latency, faults
        self.bursts: deque[Burst] = deque()
        self.beats: deque[tuple[int, int, int]] = deque()
        self.answers: deque[int] = deque()
        self.answered = 0
        self.held = False
        self.offered = False

    def drive(self, ctx: Any, bus: wiring.PureInterface, cycle: int, go: dict[str, bool]) -> None:
        ctx.set(bus.awready, go["aw"])
        ctx.set(bus.wready, go["w"])
        self.offered = bool(self.answers) and self.answers[0] <= cycle and (self.held or go["b"])
        ctx.set(bus.bvalid, self.offered)
        if self.offered:
            ctx.set(bus.bresp, Response(self.faults.writes.get(self.answered, 0)))

    def see(self, ctx: Any, bus: wiring.PureInterface, cycle: int, log: Log) -> None:
        self.held = self.offered and not ctx.get(bus.bready)
        if self.offered and not self.held:
            self.answers.popleft()
            self.answered += 1
            log.answers.append(cycle)
        if ctx.get(bus.awvalid) and ctx.get(bus.awready):
            burst = Burst(ctx.get(bus.awaddr), ctx.get(bus.awlen) + 1)
            self.bursts.append(burst)
            log.writes.append((cycle, burst))
        if ctx.get(bus.wvalid) and ctx.get(bus.wready):
            self.beats.append((ctx.get(bus.wdata), ctx.get(bus.wstrb), ctx.get(bus.wlast)))
        while self.bursts and len(self.beats) >= self.bursts[0].beats:
            burst = self.bursts.popleft()
            for beat in range(burst.beats):
                data, strobe, last = self.beats.popleft()
                assert last == (beat == burst.beats - 1)
                first = burst.address + beat * self.limits.data_bytes
                for lane in range(self.limits.data_bytes):
                    if strobe >> lane & 1:
                        log.staging[first + lane] = data >> 8 * lane & 0xFF
            self.answers.append(cycle + self.latency)
