"""The stager's circuit in Amaranth's simulator: it runs a script, and all that it does is the twin's."""

import numpy as np

from cocotb_tests.prefetch_stager.script import Observed, StagerScript, clear_payload
from rtl.prefetch.stager.layouts import COUNTERS, StagerShape
from rtl.prefetch.stager.stager import Stager
from tests.rtl.simulate import simulate
from tests.staging.stager.random_commands import Chooser


def random_script(limits, registers, seed, commands, *, layers=None, experts=None, named=None):
    """A script of random commands that are allowed; ``layers`` and ``experts`` in use, where not all are."""
    shape = StagerShape(limits=limits, named_experts=named or max(4, limits.event_experts))
    script = StagerScript(shape, registers, layers=layers, experts=experts)
    random = np.random.default_rng(seed)
    chooser = Chooser(script.used, random)
    directory = script.twin.directory
    for layer in range(script.used.layers):  # a static placement of some, as far as there are places
        share = registers.shares[layer if len(registers.shares) > 1 else 0]
        room = share - directory.held[directory.group_of(layer * script.used.experts)]
        if held := chooser.some(min(2, room, script.used.experts)):
            script.tell("preload", (layer, held))
        script.tell("fix", (layer, held[:1]))
    while len(script.payloads) < commands:
        if chosen := chooser.next(script.twin.moving):
            chooser.heard(*chosen, script.tell(*chosen))
        if random.random() < 0.03:
            script.tell(str(random.choice(["fix", "unfix"])), (chooser.layer(), chooser.some(2)))
    return script


def run_script(script, *, wait=None):
    """Run the circuit and compare every answer and the state at the end; ``wait``: a generator of idle cycles."""
    dut = Stager(script.shape)
    observed = []

    async def bench(ctx):
        ctx.set(dut.settings.as_value(), script.settings_word)
        for layer, share in enumerate(script.shares):
            ctx.set(dut.shares.valid, 1)
            ctx.set(dut.shares.layer, layer)
            ctx.set(dut.shares.share, share)
            await ctx.tick()
        ctx.set(dut.shares.valid, 0)
        clear = Observed()
        await _told(ctx, dut, script, clear_payload(script.shape), [], clear)
        for payload, values in zip(script.payloads, script.values, strict=True):
            for _ in range(int(wait.integers(4)) if wait else 0):
                await ctx.tick()
            observed.append(Observed())
            await _told(ctx, dut, script, payload, values, observed[-1])
            answer, said = script.answers[len(observed) - 1], script.said(observed[-1])
            expected = {name: answer[name] for name in said}
            assert said == expected, f"command {len(observed)}, {answer['command']}:\n{said}\n{expected}"
        await _compare_state(ctx, dut, script)

    simulate(dut, bench)


async def _told(ctx, dut, script, payload, values, observed):
    """One command, until the next could be taken."""
    commands, lanes = dut.commands, script.shape.limits.lanes
    ctx.set(commands.payload.as_value(), payload)
    ctx.set(commands.valid, 1)
    assert ctx.get(commands.ready)
    await ctx.tick()
    ctx.set(commands.valid, 0)
    observed.cycles = 1
    while not ctx.get(commands.ready):
        if ctx.get(dut.actions.valid):
            observed.actions.append(ctx.get(dut.actions.as_value()))
        if ctx.get(dut.done.valid):
            observed.done = ctx.get(dut.done.as_value())
        read, word = ctx.get(dut.values.read), ctx.get(dut.values.word)
        await ctx.tick()
        if read:
            told = values[word * lanes :][:lanes]
            ctx.set(dut.values.values, told + [77] * (lanes - len(told)))
        observed.cycles += 1
        assert observed.cycles < 100_000, "it hangs"
    assert not ctx.get(dut.actions.valid), "an action after the command's end"
    levels = (dut.demand_waits, dut.queue_empty, dut.moving, dut.moving_demanded)
    observed.levels = sum(ctx.get(level) << at for at, level in enumerate(levels))


async def _compare_state(ctx, dut, script):
    """The directory, the queue and the counters."""
    for key in range(script.used.keys):
        layer, expert = script.split(key)
        ctx.set(dut.look.key, {"layer": layer, "expert": expert})
        ctx.set(dut.look.read, 1)
        await ctx.tick()
        ctx.set(dut.look.read, 0)
        ctx.set(dut.look.key, {"layer": 0, "expert": 0})
        await ctx.tick()
        entry = script.entry_of(ctx.get(dut.look.entry.as_value()), ctx.get(dut.look.value))
        assert entry == script.entry(key), (key, entry, script.entry(key))
    waiting = ctx.get(dut.queue.waiting)
    keys = [dut.queue.keys[at] for at in range(waiting)]
    found = [ctx.get(key.layer) * script.used.experts + ctx.get(key.expert) for key in keys]
    demanded = ctx.get(dut.queue.demanded)
    assert [(key, bool(demanded >> at & 1)) for at, key in enumerate(found)] == script.waiting
    assert {name: ctx.get(getattr(dut.counters, name)) for name in COUNTERS} == script.counters
