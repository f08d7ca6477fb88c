"""The front end: what each event asks, when, and which events are refused."""

import random
from typing import Any

from predictor.engine.events import EVENT_ERRORS, NO_ROW, EngineError, EventKind
from predictor.engine.limits import PrefetchEngineLimits
from rtl.prefetch.front_end import FrontEnd
from rtl.prefetch.payloads import UrgentKind
from tests.rtl.simulate import simulate

LIMITS = PrefetchEngineLimits(slots_max=3, layers_max=4, experts_max=8, top_k_max=3, candidates_max=2, deadline_bits=8)
LAYERS, EXPERTS, TOP_K, ROWS, DOMAINS = 3, 7, 2, 5, 2

Event = dict[str, Any]


class Model:
    """The rules of ``FrontEnd``, one event at a time."""

    def __init__(self) -> None:
        self.begun = [False] * 4
        self.open = [False] * 4
        self.next_layer = [0] * 4
        self.step = 0
        self.stepped = False

    def errors(self, event: Event) -> EngineError:
        """Why the event is refused."""
        kind, slot, layer = event["kind"], event["slot"], event["layer"]
        found = EngineError(0)
        token, gate, release = (kind == which for which in EventKind)
        experts = event["experts"][:TOP_K] if gate and event["known"] else []
        complete = self.begun[slot] and self.next_layer[slot] == LAYERS
        if kind == 3:
            found |= EngineError.KIND
        if slot >= LIMITS.slots_max:
            found |= EngineError.SLOT
        if not token and layer >= LAYERS:
            found |= EngineError.LAYER
        if any(expert >= EXPERTS for expert in experts):
            found |= EngineError.EXPERT
        if len(set(experts)) < len(experts):
            found |= EngineError.DUPLICATE
        if token and event["row"] != NO_ROW and event["row"] >= ROWS:
            found |= EngineError.ROW
        if token and event["domain"] >= DOMAINS:
            found |= EngineError.DOMAIN
        out_of_order = (
            (token and (self.open[slot] or not (event["starts_sequence"] or complete)))
            or (token and not (event["first"] or self.stepped))
            or (gate and (self.open[slot] or not self.begun[slot] or layer != self.next_layer[slot]))
            or (release and (not self.open[slot] or layer != self.next_layer[slot]))
        )
        if out_of_order and slot < LIMITS.slots_max:  # a slot that there is not has no order
            found |= EngineError.ORDER
        if token and event["first"] and self.step + 2 * LAYERS >= 1 << LIMITS.deadline_bits:
            found |= EngineError.DEADLINE
        return found

    def take(self, event: Event) -> tuple[list[tuple[UrgentKind, int, int]], bool]:
        """What a good event asks (kind, layer, deadline of EXPIRE or count of DEMAND), and if predictors see it."""
        kind, slot, layer = event["kind"], event["slot"], event["layer"]
        if kind == EventKind.TOKEN:
            if event["first"]:
                self.step += LAYERS
            self.stepped |= bool(event["first"])
            self.begun[slot], self.next_layer[slot] = True, 0
            return [], True
        if kind == EventKind.GATE:
            self.open[slot] = True
            asked = [(UrgentKind.DEMAND, layer, TOP_K if event["known"] else 0)]
            return asked + [(UrgentKind.EXPIRE, layer, self.step + layer)] * event["last"], True
        self.open[slot] = False
        self.next_layer[slot] += 1
        return [(UrgentKind.RELEASE, layer, 0)], False


def _event(generator: random.Random, model: Model) -> Event:
    """Mostly the next one of a slot, sometimes with something wrong."""
    slot = generator.randrange(3)
    layer = model.next_layer[slot]
    kind = (
        EventKind.RELEASE
        if model.open[slot]
        else EventKind.TOKEN
        if layer == LAYERS or not model.begun[slot]
        else EventKind.GATE
    )
    event: Event = {
        "kind": int(kind),
        "slot": slot,
        "layer": min(layer, 3),
        "first": generator.randrange(2),
        "last": generator.randrange(2),
        "starts_sequence": int(not model.begun[slot] or generator.random() < 0.2),
        "known": int(generator.random() < 0.8),
        "identity": generator.getrandbits(32),
        "row": generator.choice([0, ROWS - 1, NO_ROW]),
        "domain": generator.randrange(DOMAINS),
        "experts": generator.sample(range(EXPERTS), 3),
    }
    if generator.random() < 0.3:
        field, value = generator.choice(
            [
                ("kind", generator.randrange(4)),
                ("slot", generator.randrange(4)),
                ("layer", generator.randrange(4)),
                ("experts", [7, 1, 2]),
                ("experts", [1, 1, 2]),
                ("experts", [1, 2, 7]),
                ("row", ROWS),
                ("domain", DOMAINS),
            ]
        )
        event[field] = value
    return event


def _setup(ctx: Any, dut: FrontEnd) -> None:
    ctx.set(dut.layers, LAYERS)
    ctx.set(dut.experts, EXPERTS)
    ctx.set(dut.top_k, TOP_K)
    ctx.set(dut.rows, ROWS)
    ctx.set(dut.domains, DOMAINS)
    ctx.set(dut.predicts, 1)


def test_every_event_asks_what_the_rules_say_and_a_bad_one_nothing() -> None:
    dut = FrontEnd(LIMITS)
    generator, model = random.Random(1), Model()
    urgent: list[tuple[UrgentKind, int, int]] = []
    known: list[tuple[int, int]] = []
    seen_urgent: list[tuple[UrgentKind, int, int]] = []
    seen_known: list[tuple[int, int]] = []
    refused = EngineError(0)
    done = False

    async def send(ctx: Any) -> None:
        nonlocal refused, done
        _setup(ctx, dut)
        await ctx.tick().repeat(3)
        for _ in range(1600):
            event = _event(generator, model)
            ctx.set(dut.events.payload, event)
            ctx.set(dut.events.valid, 1)
            await ctx.tick().until(dut.events.ready)
            ctx.set(dut.events.valid, 0)
            found = EngineError(ctx.get(dut.errors))
            assert found == model.errors(event), event
            refused |= found
            if not found:
                asked, predicted = model.take(event)
                urgent.extend(asked)
                if predicted:
                    known.append((event["identity"], model.step))
            await ctx.tick().repeat(generator.choice([0, 1, 1, 4]) or 1)
        await ctx.tick().repeat(300)
        done = True

    async def take(ctx: Any, stream: Any, look: Any) -> None:
        taking = random.Random(2)
        while not done:
            ctx.set(stream.ready, taking.random() < 0.4)
            *_, valid, payload = await ctx.tick().sample(stream.valid, stream.payload)
            if valid and ctx.get(stream.ready):
                look(payload)

    def look_urgent(payload: Any) -> None:
        kind = payload.kind
        amount = {UrgentKind.DEMAND: payload.count, UrgentKind.EXPIRE: payload.deadline}.get(kind, 0)
        seen_urgent.append((kind, payload.layer, amount))

    async def take_urgent(ctx: Any) -> None:
        await take(ctx, dut.urgent, look_urgent)

    async def take_known(ctx: Any) -> None:
        await take(ctx, dut.known, lambda payload: seen_known.append((payload.event.identity, payload.step)))

    simulate(dut, send, take_urgent, take_known)
    assert seen_urgent == urgent
    assert seen_known == known
    assert refused == EVENT_ERRORS, "not every error came about"
    assert len(urgent) > 100


def test_a_gate_is_told_two_cycles_after_it_is_accepted_and_the_next_event_accepted_three_cycles_after() -> None:
    dut = FrontEnd(LIMITS)
    cycles: dict[str, int] = {}
    events = [
        {"kind": int(EventKind.TOKEN), "slot": 1, "first": 1, "last": 1, "starts_sequence": 1, "row": NO_ROW},
        {"kind": int(EventKind.GATE), "slot": 1, "layer": 0, "last": 1, "known": 1, "experts": [4, 5, 0]},
        {"kind": int(EventKind.RELEASE), "slot": 1, "layer": 0},
    ]

    async def bench(ctx: Any) -> None:
        _setup(ctx, dut)
        ctx.set(dut.urgent.ready, 1)
        ctx.set(dut.known.ready, 1)
        await ctx.tick().repeat(3)
        pending = list(events)
        for cycle in range(12):
            ctx.set(dut.events.valid, bool(pending))
            if pending:
                ctx.set(dut.events.payload, pending[0])
            if ctx.get(dut.events.ready) and pending:
                cycles[f"accepts {EventKind(pending.pop(0)['kind']).name}"] = cycle
            if ctx.get(dut.urgent.valid):
                cycles[ctx.get(dut.urgent.payload.kind).name] = cycle
            if ctx.get(dut.known.valid):
                cycles[f"known {EventKind(ctx.get(dut.known.payload.event.kind)).name}"] = cycle
            await ctx.tick()

    simulate(dut, bench)
    assert cycles == {
        "accepts TOKEN": 0,
        "known TOKEN": 2,
        "accepts GATE": 2,
        "DEMAND": 4,
        "known GATE": 4,
        "EXPIRE": 5,
        "accepts RELEASE": 5,
        "RELEASE": 7,
    }


def test_no_event_is_accepted_for_which_there_may_be_no_room() -> None:
    dut = FrontEnd(LIMITS)

    async def bench(ctx: Any) -> None:
        _setup(ctx, dut)
        ctx.set(dut.known.ready, 1)
        await ctx.tick().repeat(3)
        accepted = 0
        ctx.set(dut.events.valid, 1)
        ctx.set(dut.events.payload, {"kind": int(EventKind.TOKEN), "first": 1, "starts_sequence": 1, "row": NO_ROW})
        await ctx.tick().until(dut.events.ready)
        layer, is_release = 0, False
        for _ in range(60):
            kind = EventKind.RELEASE if is_release else EventKind.GATE
            ctx.set(dut.events.payload, {"kind": int(kind), "layer": layer, "last": 1})
            if ctx.get(dut.events.ready):
                accepted += 1
                layer, is_release = layer + is_release, not is_release
            await ctx.tick()
        # Demand, expire, release, demand, expire: 5 of 6 entries; two more might not fit.
        assert accepted == 3
        assert ctx.get(dut.busy)
        ctx.set(dut.events.valid, 0)
        ctx.set(dut.urgent.ready, 1)
        await ctx.tick().repeat(8)
        assert ctx.get(dut.busy), "a gate is open"
        assert not ctx.get(dut.urgent.valid)

    simulate(dut, bench)
