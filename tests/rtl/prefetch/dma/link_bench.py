"""The link between two memories and the stager's twin, in Amaranth's simulator."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rtl.prefetch.dma.layouts import LinkRequest
from rtl.prefetch.dma.link import Link, product_bits
from rtl.prefetch.stager.layouts import ActionKind, ActionWhy, Command, StagerShape
from staging.stager.answers import Kind, Step, Why
from staging.stager.directory import NO_PLACE, NONE
from staging.stager.limits import StagerLimits, StagerSettings
from staging.stager.twin import Stager
from staging.transfer.limits import TransferLimits
from tests.rtl.prefetch.dma.memory_bench import FarMemory, Faults, Log, StagingMemory, far_byte
from tests.rtl.simulate import simulate
from tests.staging.stager.random_commands import Chooser, tell

LIMITS = TransferLimits(
    data_bytes=4, address_bits=24, burst_beats=8, outstanding=3, landing_beats=16, write_outstanding=4, descriptors=4
)
SHAPE = StagerShape(
    limits=StagerLimits(
        layers=3, experts=4, places=6, spare=2, queue_depth=6, sequence_slots=2, event_experts=3, value_bits=8, lanes=4
    ),
    named_experts=4,
)
SHARED = StagerSettings(shares=(5,), value_scale=1, chance_scale=2, price=0, retries=1)
CODES = {kind: ActionKind[kind.name] for kind in Kind}


@dataclass(frozen=True)
class Service:
    """What the link did from a command that starts it to the one that ends it.

    Attributes:
        key, place: what moved, and where to.
        start: the first cycle after the command that started it.
        told: the cycle in which the command that ends it was offered.
        ends_with: that command.
    """

    key: int
    place: int
    start: int
    told: int
    ends_with: LinkRequest


@dataclass
class Run:
    """What happened: the memories' log, services, arrivals (key, place), failed transfers; by cycle, whether a demand
    waits for the link, and which keys were dropped."""

    log: Log = field(default_factory=Log)
    services: list[Service] = field(default_factory=list)
    arrived: list[tuple[int, int]] = field(default_factory=list)
    failed: int = 0
    kinds: dict[Kind, int] = field(default_factory=dict)
    stops: dict[int, bool] = field(default_factory=dict)
    drops: list[tuple[int, int]] = field(default_factory=list)
    written: int = 0
    strays: int = 0


SETTINGS = {
    "experts": SHAPE.limits.experts,
    "expert_bytes": 150,
    "expert_base": 0x1001,
    "expert_stride": 157,
    "staging_base": 0x20002,
    "staging_stride": 170,
    "chunk_log2": 5,
    "outstanding": 1,
    "share": 256,
    "silence": 60,
}


def run(
    *,
    arrivals: int,
    seed: int = 0,
    waits: float = 0.0,
    latency: int = 3,
    answer_latency: int = 2,
    rate: float = 0.3,
    faults: Faults | None = None,
    settings: dict[str, int] | None = None,
    stager_settings: StagerSettings = SHARED,
    on_arrival: Callable[[int, int, Log], None] | None = None,
) -> Run:
    """Tell the stager commands at random (about ``rate`` of the cycles) until so many transfers have arrived or failed.

    Raises:
        AssertionError: the link asks for what the stager's twin does not allow, or nothing moves any more.
    """
    link, twin, result = Link(LIMITS, SHAPE), Stager(SHAPE.limits, stager_settings), Run()
    chosen = SETTINGS | (settings or {})
    chance = random.Random(seed)
    chooser = Chooser(SHAPE.limits, np.random.default_rng(seed))

    async def bench(ctx: Any) -> None:
        log, bad = result.log, faults or Faults()
        read, write = FarMemory(LIMITS, latency, bad), StagingMemory(LIMITS, answer_latency, bad)
        ctx.set(link.settings, chosen)
        cycle, free, quiet = 0, 0, 0
        shown: dict[int, dict[str, Any]] = {}  # actions by cycle
        done: tuple[int, dict[str, Any]] | None = None
        levels = 0, 0
        moving: dict[str, int] = {}
        while len(result.arrived) + result.failed < arrivals:
            go = {name: chance.random() >= waits for name in ("ar", "r", "aw", "w", "b")}
            read.drive(ctx, link.far, cycle, go)
            write.drive(ctx, link.staging, cycle, go)
            if cycle == free:
                holds = twin.queue.holds_demand
                levels = int(holds), int(twin.moving[0] in twin.queue.demanded)
            ctx.set(link.demand_waits, levels[0])
            ctx.set(link.moving_demanded, levels[1])
            result.stops[cycle] = bool(levels[0] and not levels[1])
            ctx.set(link.actions, shown.pop(cycle, {"valid": 0}))
            ctx.set(link.done, done[1] if done and done[0] == cycle else {"valid": 0})
            ctx.set(link.told, 0)
            ctx.set(link.requests.ready, 0)
            request = LinkRequest(ctx.get(link.requests.payload.kind))
            wants = ctx.get(link.requests.valid)
            if wants and request is not LinkRequest.GRANT and "told" not in moving:
                moving["told"] = cycle
            if cycle >= free:
                step: Step | None = None
                command = Command.GRANT
                urgent = wants and request is not LinkRequest.GRANT
                other = None if urgent or chance.random() >= rate else chooser.next(twin.moving)
                if other is not None and other[0] in ("grant", "preempt", "arrive", "fail"):
                    other = None
                if urgent or (wants and other is None):
                    ctx.set(link.requests.ready, 1)
                    if request is LinkRequest.GRANT:
                        step = twin.grant()
                    else:
                        result.services.append(Service(**moving, ends_with=request))
                        step = _tell(twin, request, result, on_arrival)
                        command = Command[request.name]
                        ctx.set(link.told, 1)
                elif other is not None:
                    name, arguments = other
                    step = tell(twin, name, arguments)
                    command = Command.DEMAND if name == "demand_residents" else Command[name.upper()]
                    ctx.set(link.told, 1)
                if step is not None:
                    chooser.heard(*(other or (command.name.lower(), ())), step)
                    free = cycle + step.cycles
                    assert step.cycles > len(step.actions)
                    for nth, action in enumerate(step.actions):
                        result.kinds[action.kind] = result.kinds.get(action.kind, 0) + 1
                        result.drops += [(cycle, action.key)] if action.kind is Kind.DROP else []
                        shown[free - len(step.actions) + nth] = _action(action.kind, action.key, action.why)
                    answer: dict[str, Any] = {"valid": 1, "kind": command}
                    if step.transfer is not None:
                        place = SHAPE.all_places if step.transfer.place == NO_PLACE else step.transfer.place
                        answer["transfer"] = {"valid": 1, "place": place, "key": _key(step.transfer.key)}
                        moving = {"key": step.transfer.key, "place": place, "start": free}
                    elif command is Command.PREEMPT:
                        answer["stopped"] = int(twin.moving[0] == NONE)
                        if twin.moving[0] != NONE:
                            moving = {"key": moving["key"], "place": moving["place"], "start": free}
                    done = free - 1, answer
            before = len(log.beats) + len(log.answers) + len(log.reads)
            result.written += ctx.get(link.written)
            result.strays += ctx.get(link.stray)
            read.see(ctx, link.far, cycle, log)
            write.see(ctx, link.staging, cycle, log)
            quiet = 0 if len(log.beats) + len(log.answers) + len(log.reads) > before else quiet + 1
            assert quiet < 20_000, f"nothing moves any more; {len(result.arrived)} arrived, {result.failed} failed"
            await ctx.tick()
            cycle += 1

    simulate(link, bench)
    return result


def start_cycles() -> int:
    """From the first cycle after the command to that in which the first chunk is asked for."""
    return product_bits(SHAPE) + 2


def expert_at(key: int, settings: dict[str, int] | None = None) -> int:
    """Address of an expert's first byte."""
    chosen = SETTINGS | (settings or {})
    return chosen["expert_base"] + key * chosen["expert_stride"]


def place_at(place: int, settings: dict[str, int] | None = None) -> int:
    """Address of a place's first byte."""
    chosen = SETTINGS | (settings or {})
    return chosen["staging_base"] + place * chosen["staging_stride"]


def lies_at(key: int, place: int, log: Log, settings: dict[str, int] | None = None) -> bool:
    """Whether the expert's bytes lie at the place."""
    source, target = expert_at(key, settings), place_at(place, settings)
    length = (SETTINGS | (settings or {}))["expert_bytes"]
    return all(log.staging.get(target + n) == far_byte(source + n) for n in range(length))


def _tell(twin: Stager, request: LinkRequest, result: Run, on_arrival: Callable[[int, int, Log], None] | None) -> Step:
    key = twin.moving[0]
    if request is LinkRequest.PREEMPT:
        return twin.preempt(0)
    if request is LinkRequest.FAIL:
        result.failed += 1
        return twin.fail(0)
    place = int(twin.directory.place[key])
    place = SHAPE.all_places if place == NO_PLACE else place
    result.arrived.append((key, place))
    if on_arrival is not None:
        on_arrival(key, place, result.log)
    return twin.arrive(0)


def _key(key: int) -> dict[str, int]:
    layer, expert = divmod(key, SHAPE.limits.experts)
    return {"layer": layer, "expert": expert}


def _action(kind: Kind, key: int, why: Why | None) -> dict[str, Any]:
    reason = ActionWhy.NONE if why is None else ActionWhy[why.name]
    return {"valid": 1, "kind": CODES[kind], "why": reason, "key": _key(key)}
