"""Between engine and tables: flags go with the next gate, requests become one prediction."""

from typing import Any

from predictor.engine.events import EventKind
from predictor.engine.limits import PrefetchEngineLimits
from rtl.prefetch.table_port import CERTAIN, TablePort
from tests.rtl.simulate import simulate

LIMITS = PrefetchEngineLimits(
    slots_max=2, layers_max=4, experts_max=8, top_k_max=2, candidates_max=2, domains_max=2, queue_depth=8
)


def test_a_tokens_flags_go_with_its_slots_next_gate_that_is_known() -> None:
    dut = TablePort(LIMITS)
    told: list[tuple[int, int, int, int, int]] = []

    async def give(ctx: Any, **event: Any) -> None:
        event["kind"] = int(event["kind"])
        ctx.set(dut.known.payload, {"event": event, "step": 8})
        ctx.set(dut.known.valid, 1)
        assert ctx.get(dut.known.ready), "each is taken in one cycle"
        if ctx.get(dut.events.valid):
            payload = ctx.get(dut.events.payload)
            told.append(
                (payload.slot, payload.layer, payload.starts_token, payload.starts_sequence, payload.domain)
            )
        await ctx.tick()
        ctx.set(dut.known.valid, 0)

    async def bench(ctx: Any) -> None:
        ctx.set(dut.events.ready, 1)
        await give(ctx, kind=EventKind.TOKEN, slot=0, starts_sequence=1, domain=1)
        await give(ctx, kind=EventKind.TOKEN, slot=1, starts_sequence=0, domain=0)
        await give(ctx, kind=EventKind.GATE, slot=0, layer=0, known=0)
        await give(ctx, kind=EventKind.GATE, slot=0, layer=1, known=1)
        await give(ctx, kind=EventKind.GATE, slot=0, layer=2, known=1)
        await give(ctx, kind=EventKind.GATE, slot=1, layer=2, known=1)

    simulate(dut, bench)
    assert told == [(0, 1, 1, 1, 1), (0, 2, 0, 0, 1), (1, 2, 1, 0, 0)]


def test_requests_of_an_event_become_one_prediction_and_the_next_event_waits_for_it() -> None:
    dut = TablePort(LIMITS)

    async def bench(ctx: Any) -> None:
        ctx.set(dut.events.ready, 1)
        ctx.set(dut.known.payload, {"event": {"kind": int(EventKind.GATE), "layer": 1, "known": 1}, "step": 12})
        ctx.set(dut.known.valid, 1)
        await ctx.tick()
        ctx.set(dut.events.ready, 0)
        ctx.set(dut.known.payload, {"event": {"kind": int(EventKind.GATE), "layer": 2, "known": 1}, "step": 16})
        for expert, last in ((5, 0), (3, 0), (6, 1)):
            assert not ctx.get(dut.predictions.valid)
            ctx.set(dut.requests.payload, {"layer": 2, "expert": expert, "score": 4, "last": last})
            ctx.set(dut.requests.valid, 1)
            assert ctx.get(dut.requests.ready)
            await ctx.tick()
        ctx.set(dut.requests.valid, 0)
        ctx.set(dut.events.ready, 1)
        for _ in range(3):
            assert ctx.get(dut.predictions.valid)
            assert not ctx.get(dut.known.ready), "an answer waits"
            payload = ctx.get(dut.predictions.payload)
            assert (payload.layer, payload.count, payload.deadline) == (2, 3, 14)
            assert list(payload.experts)[:3] == [5, 3, 6]
            assert list(payload.chances)[:3] == [CERTAIN] * 3
            await ctx.tick()
        ctx.set(dut.predictions.ready, 1)
        await ctx.tick()
        assert not ctx.get(dut.predictions.valid)
        assert ctx.get(dut.known.ready)

    simulate(dut, bench)
