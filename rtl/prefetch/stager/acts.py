"""What happens to an expert in the last cycle of its touch, by what it is touched for."""

from amaranth.hdl import Const, Mux, Signal

from rtl.checks import always, implies
from rtl.prefetch.stager.control import Control, Purpose
from rtl.prefetch.stager.directory import word_of
from rtl.prefetch.stager.layouts import ActionKind, ActionWhy, Command
from staging.stager.directory import Status


def act(c: Control) -> None:
    """The last cycle of a touch: what becomes of the entry, and of what is known of it elsewhere."""
    m, shape = c.module, c.shape
    entry, new = c.entry, c.new
    m.d.comb += [
        new.eq(entry),
        c.writes.eq(1),
        c.queue.given.key.eq(c.key),
        c.queue.given.placed.eq(entry.placed),
        c.queue.given.deadline.eq(new.deadline),
        c.queue.given.worth.eq(c.worth),
    ]
    with m.Switch(c.purpose):
        for purpose, act in {
            Purpose.DEMAND: _demand,
            Purpose.ENQUEUE: _enqueue,
            Purpose.RELEASE: _release,
            Purpose.EXPECT: _expect,
            Purpose.PRELOAD: _preload,
            Purpose.FIX: _fix,
            Purpose.REFRESH: _refresh,
            Purpose.BACKGROUND: _background,
            Purpose.EVICT: _evict,
            Purpose.DROP: _drop,
            Purpose.REFUSE_FULL: _refuse_full,
            Purpose.PAUSE: _pause,
            Purpose.FAIL: _fail,
            Purpose.ARRIVE: _arrive,
        }.items():
            with m.Case(purpose):
                act(c)
        with m.Case(Purpose.START_KEPT, Purpose.START_FREE, Purpose.START_TAKEN, Purpose.START_NONE):
            _start(c)

    with m.If(c.writes):
        m.d.comb += c.directory.write.eq(
            Const(1, c.limits.lanes) << c.key.expert[: shape.lane_bits] if shape.lane_bits else 1
        )
    m.d.comb += [
        c.directory.write_word.eq(word_of(shape, c.key.layer, c.key.expert)),
        c.directory.entry.eq(new),
    ]
    _account_places(c)


def _account_places(c: Control) -> None:
    """What follows where the entry's place is another than before."""
    m = c.module
    enters, leaves = Signal(), Signal()
    group = c.group_of(c.key.layer)
    m.d.comb += [
        enters.eq(c.writes & c.new.placed & ~c.entry.placed),
        leaves.eq(c.writes & ~c.new.placed & c.entry.placed),
        c.places.take.eq(enters & (c.purpose != Purpose.START_TAKEN)),
        c.places.give.eq(leaves & ~c.keeps_place),
    ]
    with m.If(enters):
        m.d.sync += [c.held[group].eq(c.group_held + 1), c.spare_taken.eq(c.spare_taken + c.is_full)]
        m.d.sync += c.taken.bit_select(c.new.place, 1).eq(1)
    with m.If(leaves):
        m.d.sync += [c.held[group].eq(c.group_held - 1), c.spare_taken.eq(c.spare_taken - c.is_over)]
        m.d.sync += c.taken.bit_select(c.entry.place, 1).eq(0)
    always(m, implies(enters, ~c.taken.bit_select(c.new.place, 1)), "stager: a place is given to a second expert")
    always(m, implies(leaves, c.taken.bit_select(c.entry.place, 1)), "stager: a place is left that nobody holds")


def _demand(c: Control) -> None:
    m, entry, new = c.module, c.entry, c.new
    resident = entry.status == Status.RESIDENT
    with m.If(c.command.option & ~resident):
        m.d.comb += c.writes.eq(0)
        c.say(ActionKind.ELSEWHERE)
    with m.Else():
        m.d.comb += new.pins.eq(entry.pins + 1)
        m.d.sync += c.pins_out.eq(c.pins_out + 1)
        with m.If(resident):
            m.d.comb += new.unused.eq(0)
            c.tally("hits")
            c.tally("useful", entry.unused)
            c.say(ActionKind.HIT)
        with m.Elif(entry.status == Status.ABSENT):
            m.d.sync += c.absent.bit_select(c.nth, 1).eq(1)
            c.tally("waits")
            c.say(ActionKind.WAIT)
        with m.Else():
            c.tally("promoted")
            c.say(ActionKind.PROMOTE)
            with m.If((entry.status == Status.QUEUED) & ~c.queue.matched.demanded):
                m.d.comb += [
                    c.queue.remove.eq(1),
                    c.queue.append.eq(1),
                    c.queue.given.eq(c.queue.matched),
                    c.queue.given.demanded.eq(1),
                ]
            with m.If(entry.status == Status.MOVING):
                m.d.sync += [c.moving.demanded.eq(1), c.moving.useless.eq(0)]
    c.next_named("ENQUEUE")


def _enqueue(c: Control) -> None:
    m = c.module
    m.d.comb += [c.new.status.eq(Status.QUEUED), c.queue.given.demanded.eq(1)]
    c.append(lambda: c.go("ENQUEUE"))


def _release(c: Control) -> None:
    m, entry, new = c.module, c.entry, c.new
    m.d.comb += new.pins.eq(entry.pins - 1)
    m.d.sync += c.pins_out.eq(c.pins_out - 1)
    c.stamp()
    with m.If(entry.pins == 1):
        with m.If((entry.status == Status.RESIDENT) & ~entry.placed):
            c.vacate()
            m.d.comb += new.unused.eq(0)
        with m.If((entry.status == Status.QUEUED) & c.queue.matched.demanded):
            with m.If(c.is_past):
                m.d.comb += c.queue.remove.eq(1)
                c.give_up(ActionWhy.RELEASED)
            with m.Else():
                m.d.comb += c.queue.demote.eq(1)
        with m.If((entry.status == Status.MOVING) & c.moving.demanded):
            m.d.sync += [c.moving.demanded.eq(0), c.moving.useless.eq(c.is_past)]
    c.next_named("TRIM")


def _expect(c: Control) -> None:
    m, entry, new = c.module, c.entry, c.new
    with m.If(c.is_late | c.is_far):
        m.d.comb += c.writes.eq(0)
        c.tally("refused")
        c.say(ActionKind.REFUSE, Mux(c.is_late, ActionWhy.LATE, ActionWhy.FAR))
        c.next_named("END")
    with m.Else():
        with m.If(~c.stands):
            m.d.comb += [
                new.chance.eq(c.chance),
                new.deadline.eq(c.code),
                c.queue.given.worth.eq(c.expected_worth),
            ]
        with m.If(entry.status == Status.ABSENT):
            m.d.comb += new.status.eq(Status.QUEUED)
            with m.If(c.queue.waiting != c.limits.queue_depth):
                c.say(ActionKind.QUEUE)
            c.append(lambda: c.next_named("END"))
        with m.Else():
            m.d.comb += c.queue.update.eq(1)
            with m.If(entry.status == Status.MOVING):
                m.d.sync += [c.moving.useless.eq(0), c.moving.deadline.eq(new.deadline)]
            c.say(ActionKind.HOLD)
            c.next_named("END")


def _preload(c: Control) -> None:
    m, new = c.module, c.new
    with m.If((c.entry.status == Status.ABSENT) & ~c.is_full):
        m.d.comb += [new.status.eq(Status.RESIDENT), new.placed.eq(1), new.place.eq(c.places.lowest)]
        c.stamp()
    with m.Else():
        m.d.comb += c.writes.eq(0)
        m.d.sync += c.rejected.eq(1)
    c.next_named("END")


def _fix(c: Control) -> None:
    c.module.d.comb += c.new.fixed.eq(c.command.option)
    c.next_named("END")


def _refresh(c: Control) -> None:
    m = c.module
    m.d.comb += [c.writes.eq(0), c.queue.update.eq(1)]
    m.next = "WALK"


def _background(c: Control) -> None:
    m, chosen = c.module, c.chosen
    m.d.sync += [chosen.key.eq(c.key), chosen.demanded.eq(0), chosen.placed.eq(0), chosen.worth.eq(c.worth)]
    with m.If(c.is_past):
        m.d.comb += [c.new.chance.eq(0), c.new.deadline.eq(1 << c.limits.deadline_bits)]
        m.d.sync += chosen.worth.eq(c.value)
    m.next = "CLAIM"


def _start(c: Control) -> None:
    m, new, transfer, purpose = c.module, c.new, c.transfer, c.purpose
    place = Mux(purpose == Purpose.START_FREE, c.places.lowest, c.taken_place)
    m.d.comb += [new.status.eq(Status.MOVING), c.queue.remove.eq(1)]
    with m.If((purpose == Purpose.START_FREE) | (purpose == Purpose.START_TAKEN)):
        m.d.comb += [new.placed.eq(1), new.place.eq(place)]
    with m.If(purpose == Purpose.START_NONE):
        c.tally("passed")
    m.d.sync += [
        transfer.valid.eq(1),
        transfer.key.eq(c.key),
        transfer.place.eq(Mux(new.placed, new.place, c.shape.all_places)),
        transfer.demanded.eq(c.chosen.demanded),
        c.moving.valid.eq(1),
        c.moving.key.eq(c.key),
        c.moving.demanded.eq(c.chosen.demanded),
        c.moving.useless.eq(0),
        c.moving.deadline.eq(c.entry.deadline),
        c.moving.tries.eq(c.queue.matched.tries),
    ]
    m.next = "END"


def _evict(c: Control) -> None:
    m, entry = c.module, c.entry
    c.vacate()
    m.d.comb += c.new.unused.eq(0)
    c.tally("evicted")
    c.tally("wasted", entry.unused)
    c.say(ActionKind.EVICT, c.why)
    with m.If(c.command.kind == Command.GRANT):
        m.d.comb += c.keeps_place.eq(1)
        m.d.sync += [
            c.taken_place.eq(entry.place),
            c.transfer.evicts.eq(1),
            c.transfer.victim.eq(c.key),
        ]
        c.touch(Purpose.START_TAKEN, c.chosen.key)
    with m.Else():
        m.next = "TRIM"


def _drop(c: Control) -> None:
    m = c.module
    m.d.sync += c.overflows.eq(0)
    m.d.comb += c.queue.remove.eq(1)
    c.give_up(c.why)
    with m.Switch(c.command.kind):
        with m.Case(Command.EXPIRE):
            m.next = "WALK"
        with m.Case(Command.GRANT):
            with m.If(c.why == ActionWhy.PLACE):
                m.next = "CLAIM"
            with m.Elif(c.from_background):
                m.next = "END"
            with m.Else():
                m.next = "GRANT"
        with m.Case(Command.PREEMPT):
            m.d.sync += c.moving.valid.eq(0)
            m.next = "END"
        with m.Case(Command.FAIL):
            m.next = "END"
        with m.Case(Command.DEMAND):
            m.next = "ENQUEUE"
        with m.Default():
            c.next_prediction()


def _refuse_full(c: Control) -> None:
    c.module.d.comb += c.queue.remove.eq(1)
    c.module.d.sync += c.overflows.eq(0)
    c.vacate()
    c.tally("refused")
    c.say(ActionKind.REFUSE, ActionWhy.FULL)
    c.next_prediction()


def _pause(c: Control) -> None:
    m = c.module
    m.d.comb += [c.new.status.eq(Status.QUEUED), c.queue.given.tries.eq(c.moving.tries)]
    m.d.sync += c.moving.valid.eq(0)
    c.say(ActionKind.PAUSE)
    c.append(lambda: c.go("END"))


def _fail(c: Control) -> None:
    m, moving = c.module, c.moving
    m.d.sync += moving.valid.eq(0)
    c.tally("failed")
    with m.If(moving.demanded & (moving.tries < c.ports.settings.retries)):
        m.d.comb += [
            c.new.status.eq(Status.QUEUED),
            c.queue.given.demanded.eq(1),
            c.queue.given.tries.eq(moving.tries + 1),
        ]
        c.say(ActionKind.PAUSE, ActionWhy.FAILED)
        c.append(lambda: c.go("END"))
    with m.Else():
        c.tally("lost", moving.demanded)
        c.give_up(ActionWhy.FAILED)
        m.next = "END"


def _arrive(c: Control) -> None:
    m, entry, new, moving = c.module, c.entry, c.new, c.moving
    m.d.comb += new.status.eq(Status.RESIDENT)
    m.d.sync += moving.valid.eq(0)
    c.stamp()
    with m.If(moving.demanded):
        c.tally("moved_demands")
    with m.Else():
        m.d.comb += new.unused.eq(1)
        c.tally("moved_prefetches")
    m.next = "END"
    with m.If(entry.pins == 0):
        with m.If(~entry.placed):
            c.vacate()
            m.d.comb += new.unused.eq(0)
        m.next = "TRIM"
