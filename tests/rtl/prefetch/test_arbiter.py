"""The arbiter: of what waits, the first in its order; nothing while the stager may not be told."""

from itertools import product
from typing import Any

from predictor.engine.limits import PrefetchEngineLimits
from rtl.prefetch.arbiter import Arbiter
from rtl.prefetch.dma.layouts import LinkRequest
from rtl.prefetch.payloads import HostRequest, UrgentKind
from rtl.prefetch.stager.layouts import Command
from tests.rtl.simulate import simulate

LIMITS = PrefetchEngineLimits(slots_max=2, layers_max=4, experts_max=8, top_k_max=3, candidates_max=2)


def test_of_all_that_waits_the_first_in_order_is_offered() -> None:
    dut = Arbiter(LIMITS)
    link_kinds = {
        None: None,
        LinkRequest.ARRIVE: Command.ARRIVE,
        LinkRequest.FAIL: Command.FAIL,
        LinkRequest.PREEMPT: Command.PREEMPT,
        LinkRequest.GRANT: Command.GRANT,
    }
    urgent_kinds = {
        None: None,
        UrgentKind.DEMAND: Command.DEMAND,
        UrgentKind.RELEASE: Command.RELEASE,
        UrgentKind.EXPIRE: Command.EXPIRE,
    }
    host_kinds = {
        None: None,
        HostRequest.PRELOAD: Command.PRELOAD,
        HostRequest.FIX: Command.FIX,
        HostRequest.UNFIX: Command.FIX,
        HostRequest.CLEAR: Command.CLEAR,
    }

    async def bench(ctx: Any) -> None:
        ctx.set(dut.elsewhere, 1)
        ctx.set(dut.release_count, 2)
        ctx.set(dut.release_experts, [6, 7, 0])
        ctx.set(dut.values.payload.layer, 3)
        for link, urgent, count, values, host, is_open, ready in product(
            link_kinds, urgent_kinds, (None, 0, 2), (0, 1), host_kinds, (0, 1), (0, 1)
        ):
            ctx.set(dut.link.valid, link is not None)
            ctx.set(dut.link.payload, {"kind": link or LinkRequest.ARRIVE})
            ctx.set(dut.urgent.valid, urgent is not None)
            ctx.set(
                dut.urgent.payload,
                {
                    "kind": urgent or UrgentKind.DEMAND,
                    "slot": 1,
                    "layer": 2,
                    "count": 3,
                    "experts": [5, 4, 3],
                    "deadline": 9,
                },
            )
            ctx.set(dut.predictions.valid, count is not None)
            ctx.set(
                dut.predictions.payload,
                {
                    "layer": 1,
                    "count": count or 0,
                    "experts": [2, 1] + [0] * 6,
                    "chances": [90, 80] + [0] * 6,
                    "deadline": 7,
                },
            )
            ctx.set(dut.values.valid, values)
            ctx.set(dut.host.valid, host is not None)
            ctx.set(dut.host.payload, {"kind": host or HostRequest.PRELOAD, "layer": 3, "expert": 6})
            ctx.set(dut.open, is_open)
            ctx.set(dut.commands.ready, ready)
            waiting = [
                link_kinds[link] if link is not LinkRequest.GRANT else None,
                urgent_kinds[urgent],
                Command.PREFETCH if count else None,
                Command.SET_VALUES if values else None,
                host_kinds[host],
                Command.GRANT if link is LinkRequest.GRANT else None,
            ]
            first = next((kind for kind in waiting if kind is not None), None) if is_open and ready else None
            command = ctx.get(dut.commands.payload)
            assert ctx.get(dut.commands.valid) == (first is not None)
            if first is not None:
                assert command.kind is first
            link_taken = first is not None and first is link_kinds[link]
            host_taken = first is not None and first is host_kinds[host]
            assert ctx.get(dut.link.ready) == link_taken
            assert ctx.get(dut.urgent.ready) == (first is not None and first is urgent_kinds[urgent])
            if count is not None:
                assert ctx.get(dut.predictions.ready) == (count == 0 or first is Command.PREFETCH)
            assert not ctx.get(dut.values.ready), "the values are not read yet"
            assert ctx.get(dut.host.ready) == host_taken
            named = list(command.experts)[: command.count]
            if first is Command.DEMAND:
                assert (command.layer, named, command.option) == (2, [5, 4, 3], 1)
            if first is Command.RELEASE:
                assert (command.layer, named) == (2, [6, 7])
                assert ctx.get(dut.release_slot) == 1
            if first is Command.EXPIRE:
                assert command.deadline == 9
            if first is Command.PREFETCH:
                assert (command.layer, named, command.deadline) == (1, [2, 1], 7)
                assert list(command.chances)[:2] == [90, 80]
            if first is Command.SET_VALUES:
                assert command.layer == 3
            if first in (Command.PRELOAD, Command.FIX):
                assert (command.layer, named, command.option) == (3, [6], host is HostRequest.FIX)

    simulate(dut, bench)


def test_values_are_taken_when_the_stager_has_read_them() -> None:
    dut = Arbiter(LIMITS)

    async def bench(ctx: Any) -> None:
        ctx.set(dut.values.valid, 1)
        ctx.set(dut.open, 1)
        ctx.set(dut.commands.ready, 1)
        assert ctx.get(dut.commands.valid)
        await ctx.tick()
        ctx.set(dut.commands.ready, 0)
        for kind, taken in ((Command.GRANT, 0), (Command.SET_VALUES, 1)):
            ctx.set(dut.done, {"valid": 1, "kind": kind})
            assert ctx.get(dut.values.ready) == taken
        ctx.set(dut.done, {"valid": 0, "kind": Command.SET_VALUES})
        assert not ctx.get(dut.values.ready)

    simulate(dut, bench)
