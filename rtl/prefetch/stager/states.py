"""The states of the stager's control."""

from amaranth.hdl import Const, Mux, Signal, Value
from amaranth.lib import data

from rtl.prefetch.stager.acts import act
from rtl.prefetch.stager.control import Control, Purpose
from rtl.prefetch.stager.layouts import ActionKind, ActionWhy, Command, entry_layout

NAMED = {
    Command.DEMAND: Purpose.DEMAND,
    Command.RELEASE: Purpose.RELEASE,
    Command.PREFETCH: Purpose.EXPECT,
    Command.PRELOAD: Purpose.PRELOAD,
    Command.FIX: Purpose.FIX,
}
"""Commands that name experts, and for what each is touched."""


def add_states(c: Control) -> None:
    """All states of the control; the first is that after a reset."""
    with c.module.FSM(name="state") as c.states:
        _idle(c)
        _touching(c)
        _looking(c)
        _walking(c)
        _granting(c)
        _background(c)
        _trimming(c)
        _ending(c)


def _idle(c: Control) -> None:
    m, ports = c.module, c.ports
    offered = ports.commands.payload
    with m.State("IDLE"):
        m.d.comb += [ports.commands.ready.eq(1), c.writer.layer.eq(offered.layer)]
        m.d.sync += [
            c.command.eq(offered),
            c.code.eq(offered.deadline + 1),
            c.nth.eq(0),
            c.told_chance.eq(offered.chances[0]),
            c.absent.eq(0),
            c.at.eq(0),
            c.count.eq(c.clears - 1),
            c.stopped.eq(0),
            c.rejected.eq(0),
            c.from_background.eq(0),
            c.transfer.valid.eq(0),
            c.transfer.evicts.eq(0),
        ]
        with m.If(ports.commands.valid):
            _dispatch(c, offered)
    with m.State("PREEMPT"):
        m.next = "END"
        with m.If(~c.moving.demanded & c.queue.holds_demand):
            m.d.sync += c.stopped.eq(1)
            with m.If(c.moving.useless):
                c.touch(Purpose.DROP, why=ActionWhy.USELESS)
            with m.Else():
                c.touch(Purpose.PAUSE)
    with m.State("ENQUEUE"):
        m.next = "END"
        for nth in reversed(range(c.shape.named_experts)):
            with m.If(c.absent[nth]):
                key = Signal.like(c.key, name=f"absent{nth}")
                m.d.comb += [key.layer.eq(c.command.layer), key.expert.eq(c.command.experts[nth])]
                m.d.sync += c.absent.eq(c.absent & (c.absent - 1))
                c.touch(Purpose.ENQUEUE, key)
    with m.State("CLEAR"):
        _clear(c)


def _dispatch(c: Control, offered: data.View) -> None:
    """The first state of a command."""
    m = c.module
    named = Signal.like(c.key, name="first_named")
    m.d.comb += [named.layer.eq(offered.layer), named.expert.eq(offered.experts[0])]
    with m.Switch(offered.kind):
        for command, purpose in NAMED.items():
            with m.Case(command):
                c.touch(purpose, named)
                with m.If(offered.count == 0):
                    m.next = "ENQUEUE" if command is Command.DEMAND else "END"
        with m.Case(Command.SET_VALUES):
            m.d.comb += c.writer.start.eq(1)
            m.next = "VALUES"
        with m.Case(Command.EXPIRE):
            m.next = "EXPIRE"
        with m.Case(Command.GRANT):
            m.next = "GRANT"
        with m.Case(Command.PREEMPT):
            m.d.sync += c.key.eq(c.moving.key)
            m.next = "PREEMPT"
        with m.Case(Command.ARRIVE):
            c.touch(Purpose.ARRIVE, c.moving.key)
        with m.Case(Command.FAIL):
            c.touch(Purpose.FAIL, c.moving.key)
        with m.Case(Command.CLEAR):
            m.next = "CLEAR"


def _clear(c: Control) -> None:
    """Write every word of the memories, and forget what registers hold."""
    m, directory = c.module, c.directory
    m.d.comb += [
        directory.write.eq((1 << c.limits.lanes) - 1),
        directory.write_word.eq(c.count),
        directory.entry.eq(Const(0, entry_layout(c.shape).size)),
        directory.write_values.eq(1),
        directory.values_word.eq(c.count),
        directory.new_values.as_value().eq(0),
        c.queue.clear.eq(1),
        c.places.clear.eq(c.count < c.places.words),
        c.places.clear_word.eq(c.count),
    ]
    with m.If(c.count >= c.shape.directory_words):
        m.d.comb += [directory.write.eq(0), directory.write_values.eq(0)]
    m.d.sync += [
        c.held.as_value().eq(0),
        c.spare_taken.eq(0),
        c.moving.valid.eq(0),
        c.now.eq(0),
        c.stamps.eq(0),
        c.pins_out.eq(0),
        c.taken.eq(0),
        Value.cast(c.ports.counters).eq(0),
        c.count.eq(c.count - 1),
    ]
    with m.If(c.count == 0):
        m.next = "END"


def _touching(c: Control) -> None:
    m = c.module
    with m.State("READ"):
        m.d.comb += [c.reads_key.eq(1), c.places.find.eq(1)]
        m.next = "PICK"
    with m.State("PICK"):
        m.d.comb += c.picks.eq(1)
        m.next = "DECIDE"
    m.d.comb += c.places.place.eq(c.entry.place)
    with m.State("DECIDE"):
        m.next = "ACT"
    with m.State("ACT"):
        m.d.comb += c.acts.eq(1)
        act(c)


def _looking(c: Control) -> None:
    m, queue = c.module, c.queue
    with m.State("LOOK"):
        m.d.sync += c.count.eq(c.count - 1)
        with m.If(c.count == 0):
            with m.If(queue.placed_only):
                m.next = "PAUSED"
            with m.Elif(queue.last):
                m.next = "OVERFLOW"
            with m.Else():
                m.next = "SELECT"
    with m.State("OVERFLOW"):
        found = queue.found.entry.key
        with m.If((c.command.kind == Command.PREFETCH) & (found == c.key)):
            c.touch(Purpose.REFUSE_FULL)
        with m.Else():
            with m.If(c.command.kind == Command.PREFETCH):
                c.say(ActionKind.QUEUE)
            c.touch(Purpose.DROP, found, ActionWhy.FULL)


def _walking(c: Control) -> None:
    """EXPIRE drops what is useless, SET_VALUES renews the worth of what is of its layer."""
    m, moving = c.module, c.moving
    with m.State("EXPIRE"):
        with m.If(c.code > c.now):
            m.d.sync += c.now.eq(c.code)
        m.next = "WALK"
    with m.State("VALUES"), m.If(c.writer.finishing):
        m.next = "WALK"
    with m.State("WALK"):
        m.d.sync += c.visited.eq(c.queue.nth)
        m.next = "TEST"
        with m.If(c.at == c.queue.waiting):
            with m.If((c.command.kind == Command.EXPIRE) & ~moving.demanded & (moving.deadline <= c.now)):
                m.d.sync += moving.useless.eq(1)
            m.next = "END"
    with m.State("TEST"):
        m.next = "WALK"
        useless = ~c.visited.demanded & (c.visited.deadline <= c.now)
        with m.If(c.command.kind == Command.EXPIRE):
            with m.If(useless):
                c.touch(Purpose.DROP, c.visited.key, ActionWhy.USELESS)
            with m.Else():
                m.d.sync += c.at.eq(c.at + 1)
        with m.Else():
            m.d.sync += c.at.eq(c.at + 1)
            with m.If(c.visited.key.layer == c.command.layer):
                c.touch(Purpose.REFRESH, c.visited.key)


def _granting(c: Control) -> None:
    m, queue, chosen, settings = c.module, c.queue, c.chosen, c.ports.settings
    found = c.scan.found
    with m.State("GRANT"):
        with m.If(queue.waiting != 0):
            c.look(last=False, placed_only=False)
        with m.Elif(settings.background):
            m.d.sync += [c.group.eq(0), c.best_valid.eq(0), c.best_gain.eq(settings.price)]
            m.d.sync += c.from_background.eq(1)
            m.next = "GROUP"
        with m.Else():
            m.next = "END"
    with m.State("SELECT"):
        m.d.sync += chosen.eq(queue.found.entry)
        m.next = "CLAIM"
    with m.State("CLAIM"):
        group = c.group_of(chosen.key.layer)
        with m.If(chosen.placed):
            c.touch(Purpose.START_KEPT, chosen.key)
        with m.Elif(c.held[group] >= c.shares[group]):
            c.search(chosen.key.layer, "CLAIM_SCAN")
        with m.Elif(chosen.demanded | (chosen.worth > settings.price)):
            c.touch(Purpose.START_FREE, chosen.key)
        with m.Else():
            c.touch(Purpose.DROP, chosen.key, ActionWhy.WORTH)
    c.search_state("CLAIM_SCAN", "GAIN")
    with m.State("GAIN"):
        m.d.sync += c.gain.eq(chosen.worth - found.worth)
        m.next = "COMPARE"
    with m.State("COMPARE"):
        with m.If(found.valid & (chosen.demanded | (c.gain > settings.price))):
            c.touch(Purpose.EVICT, found.key, ActionWhy.NONE)
        with m.Elif(~chosen.demanded):
            c.touch(Purpose.DROP, chosen.key, ActionWhy.WORTH)
        with m.Elif(c.spare_taken < settings.spare):
            c.touch(Purpose.START_FREE, chosen.key)
        with m.Else():
            c.look(last=True, placed_only=True)
    with m.State("PAUSED"):
        with m.If(queue.found.valid):
            c.touch(Purpose.DROP, queue.found.entry.key, ActionWhy.PLACE)
        with m.Else():
            c.touch(Purpose.START_NONE, chosen.key)


def _background(c: Control) -> None:
    """The absent expert that gains most, over all groups."""
    m, settings, found = c.module, c.ports.settings, c.scan.found
    layer = c.group[: c.shape.layer_bits]
    with m.State("GROUP"):
        with m.If(c.group == Mux(settings.by_layer, settings.layers, 1)):
            with m.If(c.best_valid):
                c.touch(Purpose.BACKGROUND, c.best_key)
            with m.Else():
                m.next = "END"
        with m.Else():
            c.search(layer, "MOST_SCAN", most=True)
    c.search_state("MOST_SCAN", "MOST")
    with m.State("MOST"):
        m.d.sync += [c.most_key.eq(found.key), c.most_worth.eq(found.worth), c.gain.eq(found.worth)]
        with m.If(~found.valid):
            m.d.sync += c.group.eq(c.group + 1)
            m.next = "GROUP"
        with m.Elif(c.held[layer] >= c.shares[layer]):
            c.search(layer, "LEAST_SCAN")
        with m.Else():
            m.next = "BEST"
    c.search_state("LEAST_SCAN", "LEAST")
    with m.State("LEAST"):
        m.d.sync += c.gain.eq(c.most_worth - found.worth)
        m.next = "BEST"
        with m.If(~found.valid):
            m.d.sync += c.group.eq(c.group + 1)
            m.next = "GROUP"
    with m.State("BEST"):
        m.d.sync += c.group.eq(c.group + 1)
        with m.If(c.gain > c.best_gain):
            m.d.sync += [c.best_valid.eq(1), c.best_gain.eq(c.gain), c.best_key.eq(c.most_key)]
        m.next = "GROUP"


def _trimming(c: Control) -> None:
    """Residents give way until the group of the key touched last holds no more than its share."""
    m, found = c.module, c.scan.found
    with m.State("TRIM"):
        group = c.group_of(c.key.layer)
        with m.If(c.held[group] > c.shares[group]):
            c.search(c.key.layer, "TRIM_SCAN")
        with m.Else():
            m.next = "END"
    c.search_state("TRIM_SCAN", "TRIM_FOUND")
    with m.State("TRIM_FOUND"):
        with m.If(found.valid):
            c.touch(Purpose.EVICT, found.key, ActionWhy.SHARE)
        with m.Else():
            m.next = "END"


def _ending(c: Control) -> None:
    m, ports = c.module, c.ports
    with m.State("END"):
        m.d.comb += [
            ports.done.valid.eq(1),
            ports.done.kind.eq(c.command.kind),
            ports.done.transfer.eq(c.transfer),
            ports.done.stopped.eq(c.stopped),
            ports.done.rejected.eq(c.rejected),
        ]
        m.d.sync += [
            ports.demand_waits.eq(c.queue.holds_demand),
            ports.queue_empty.eq(c.queue.waiting == 0),
            ports.moving.eq(c.moving.valid),
            ports.moving_demanded.eq(c.moving.valid & c.moving.demanded),
        ]
        m.next = "IDLE"
