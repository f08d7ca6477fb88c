"""The stager: its parts, and the control that runs one command after the other."""

from collections.abc import Callable

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, enum, wiring
from typing_extensions import override

from rtl.checks import always, always_within, implies
from rtl.prefetch.stager.directory import DirectoryMemory, word_of
from rtl.prefetch.stager.layouts import (
    TRIES_BITS,
    ActionKind,
    ActionWhy,
    Command,
    StagerShape,
    StagerSignature,
    command_layout,
    entry_layout,
    key_layout,
    waiting_layout,
)
from rtl.prefetch.stager.places import WORD_PLACES, FreePlaces
from rtl.prefetch.stager.queue import TransferQueue
from rtl.prefetch.stager.scan import DirectoryScan
from rtl.prefetch.stager.values import ValueWriter
from staging.stager.cycles import clear_cycles, look_cycles
from staging.stager.directory import Status


class Purpose(enum.Enum, shape=5):  # type: ignore[call-arg]
    """What an entry is read and written for."""

    DEMAND = 0
    """A gate chose it."""
    ENQUEUE = 1
    """It is demanded and absent: it enters the queue."""
    RELEASE = 2
    EXPECT = 3
    """It is predicted."""
    PRELOAD = 4
    FIX = 5
    REFRESH = 6
    """It waits, and its value is a new one."""
    BACKGROUND = 7
    """It is absent and gains most."""
    START_KEPT = 8
    """It moves, to the place that it holds."""
    START_FREE = 9
    """It moves, to the lowest free place."""
    START_TAKEN = 10
    """It moves, to the place of who gave way."""
    START_NONE = 11
    """It moves, without a place."""
    EVICT = 12
    DROP = 13
    """It is given up, for the reason in ``why``."""
    REFUSE_FULL = 14
    """It came into a full queue, and is the last there."""
    PAUSE = 15
    FAIL = 16
    ARRIVE = 17


NAMED = {
    Command.DEMAND: Purpose.DEMAND,
    Command.RELEASE: Purpose.RELEASE,
    Command.PREFETCH: Purpose.EXPECT,
    Command.PRELOAD: Purpose.PRELOAD,
    Command.FIX: Purpose.FIX,
}
"""Commands that name experts, and for what each is touched."""


class Stager(wiring.Component):
    """The circuit of ``staging.stager.twin.Stager``; each command takes the cycles that the twin says.

    A command is a walk through a few kinds of work (``staging.stager.cycles`` says how long each takes): an entry of
    the directory is *touched* (read, lane picked, decided, written), a group is *scanned*, the queue is *looked* at or
    *walked* through. What happens to an expert happens in the last cycle of its touch, in one place (``_act``).
    """

    def __init__(self, shape: StagerShape) -> None:
        self.shape = shape
        super().__init__(StagerSignature(shape))

    @override
    def elaborate(self, platform: object) -> Module:
        return _Control(self).module


class _Control:
    """The stager's module while it is made: registers, parts and states by name."""

    def __init__(self, ports: Stager) -> None:
        self.ports, self.shape, self.limits = ports, ports.shape, ports.shape.limits
        self.module = Module()
        self._registers()
        self._parts()
        self._connect()
        self._touch_stages()
        with self.module.FSM(name="state"):
            self._idle()
            self._touching()
            self._looking()
            self._walking()
            self._granting()
            self._background()
            self._trimming()
            self._ending()
        self._checks()

    # --- what there is ---

    def _registers(self) -> None:
        shape, limits = self.shape, self.limits
        key = key_layout(shape)
        self.command = Signal(command_layout(shape), name="command")
        self.code = Signal(shape.deadline_code_bits)
        """The command's deadline, and one."""
        self.now = Signal(shape.deadline_code_bits)
        self.stamps = Signal(limits.stamp_bits)
        self.nth = Signal(range(self.shape.named_experts + 1))
        self.absent = Signal(self.shape.named_experts)
        """Of the named, those that are demanded and yet to be queued."""
        self.purpose, self.why = Signal(Purpose), Signal(ActionWhy)
        self.key = Signal(key)
        """That is touched."""
        self.moving = Signal(
            data.StructLayout(
                {
                    "valid": 1,
                    "key": key,
                    "demanded": 1,
                    "useless": 1,
                    "deadline": unsigned(shape.deadline_code_bits),
                    "tries": unsigned(TRIES_BITS),
                }
            )
        )
        groups = limits.layers
        self.shares = Signal(data.ArrayLayout(unsigned(shape.held_bits), groups))
        self.held = Signal(data.ArrayLayout(unsigned(shape.held_bits), groups))
        self.spare_taken = Signal(range(limits.spare + 2))
        self.chosen = Signal(waiting_layout(shape))
        """Of the queue, or in the background: who is to start."""
        self.taken_place = Signal(shape.place_bits)
        self.gain = Signal(signed(shape.worth_bits + 1))
        self.most_key, self.most_worth = Signal(key), Signal(signed(shape.worth_bits))
        self.best_key, self.best_gain, self.best_valid = Signal(key), Signal(signed(shape.worth_bits + 1)), Signal()
        self.group = Signal(range(limits.layers + 1))
        self.count = Signal(range(max(2, look_cycles(limits.queue_depth), self._clears)))
        """Down, of cycles that pass."""
        self.at = Signal(range(limits.queue_depth + 2))
        """In a walk through the queue."""
        self.visited = Signal(waiting_layout(shape))
        self.transfer = Signal(self.ports.done.transfer.shape(), name="transfer")
        self.stopped, self.rejected = Signal(), Signal()
        self.from_background = Signal()
        self.pins_out = Signal(range(limits.most_pins + self.shape.named_experts + 1))
        """Pins of all keys; only checks read it."""

    @property
    def _clears(self) -> int:
        limits = self.limits
        return clear_cycles(limits.layers, limits.experts, limits.lanes, self.shape.all_places, WORD_PLACES)

    def _parts(self) -> None:
        m = self.module
        m.submodules.directory = self.directory = DirectoryMemory(self.shape)
        m.submodules.queue = self.queue = TransferQueue(self.shape)
        m.submodules.scan = self.scan = DirectoryScan(self.shape)
        m.submodules.places = self.places = FreePlaces(self.shape)
        m.submodules.writer = self.writer = ValueWriter(self.shape)

    def _connect(self) -> None:
        """What the parts are told at all times; strobes are set where they are needed."""
        m, ports, settings = self.module, self.ports, self.ports.settings
        scan, writer, queue, directory = self.scan, self.writer, self.queue, self.directory
        m.d.comb += [
            scan.experts.eq(settings.experts),
            scan.by_recency.eq(settings.by_recency),
            scan.now.eq(self.now),
            scan.stamps.eq(self.stamps),
            scan.entries.eq(directory.entries),
            scan.values.eq(directory.values),
            writer.experts.eq(settings.experts),
            writer.scale.eq(settings.value_scale),
            writer.values.values.eq(ports.values.values),
            ports.values.read.eq(writer.values.read),
            ports.values.word.eq(writer.values.word),
            directory.write_values.eq(writer.write),
            directory.values_word.eq(writer.word),
            directory.new_values.eq(writer.times),
            queue.key.eq(self.key),
            queue.by_layer.eq(settings.by_layer),
            queue.layer.eq(self.chosen.key.layer),
            queue.at.eq(self.at),
            ports.queue.waiting.eq(queue.waiting),
            ports.busy.eq(~ports.commands.ready),
        ]
        for at in range(self.limits.queue_depth):
            m.d.comb += [
                ports.queue.keys[at].eq(queue.entries[at].key),
                ports.queue.demanded[at].eq(queue.entries[at].demanded),
            ]
        # A scan reads; otherwise what is touched is, and while the stager is idle what is looked at.
        self.reads_key = Signal()
        self.read_key = Signal(key_layout(self.shape))
        m.d.comb += [
            self.read_key.eq(Mux(ports.busy, self.key.as_value(), Value.cast(ports.look.key))),
            directory.read.eq(scan.read | self.reads_key | ~ports.busy),
            directory.read_word.eq(
                Mux(scan.read, scan.read_word, word_of(self.shape, self.read_key.layer, self.read_key.expert))
            ),
        ]
        m.d.sync += ports.actions.valid.eq(0)
        with m.If(ports.shares.valid):
            m.d.sync += self.shares[ports.shares.layer].eq(ports.shares.share)

    # --- a touch ---

    def _touch_stages(self) -> None:
        """Registers that follow from the entry: each is used only in the stage for which it is ready."""
        m, shape, settings = self.module, self.shape, self.ports.settings
        lane = Signal(max(1, shape.lane_bits))
        self.entry = entry = Signal(entry_layout(shape), name="entry")
        self.value = Signal(signed(shape.time_bits))
        self.picks = Signal()
        m.d.sync += lane.eq(self.read_key.expert[: shape.lane_bits] if shape.lane_bits else 0)
        picked = self.directory.entries[lane] if shape.lane_bits else self.directory.entries[0]
        picked_value = self.directory.values[lane] if shape.lane_bits else self.directory.values[0]
        with m.If(self.picks | ~self.ports.busy):
            m.d.sync += [entry.eq(picked), self.value.eq(picked_value)]
        m.d.comb += [self.ports.look.entry.eq(entry), self.ports.look.value.eq(self.value)]

        # Of the group: read, compare.
        group = self._group_of(self.key.layer)
        self.group_held, self.group_share = Signal(shape.held_bits), Signal(shape.held_bits)
        self.is_full, self.is_over = Signal(), Signal()
        m.d.sync += [
            self.group_held.eq(self.held[group]),
            self.group_share.eq(self.shares[group]),
            self.is_full.eq(self.group_held >= self.group_share),
            self.is_over.eq(self.group_held > self.group_share),
        ]

        # Of a prediction: the chance in time, in two halves and their sum; whether it is too late or too far.
        half = (self.limits.scale_bits + 1) // 2
        told = self.command.chances[self.nth]
        low, high = Signal(shape.time_bits), Signal(shape.time_bits)
        self.chance = Signal(shape.time_bits)
        ahead = Signal(signed(shape.deadline_code_bits + 1))
        self.is_late, self.is_far = Signal(), Signal()
        scale = settings.chance_scale
        forever = Const(1 << self.limits.deadline_bits, shape.deadline_code_bits)
        m.d.sync += [
            low.eq(told * scale[:half]),
            high.eq(told * scale[half:] if self.limits.scale_bits > half else 0),
            self.chance.eq(low + (high << half)),
            ahead.eq(self.code - self.now),
            self.is_late.eq(self.code <= self.now),
            self.is_far.eq((ahead > settings.horizon) & (self.code != forever)),
        ]

        # Of the entry: what it is worth, and whether its deadline lies ahead.
        self.is_past, self.stands = Signal(), Signal()
        self.worth, self.expected_worth = Signal(signed(shape.worth_bits)), Signal(signed(shape.worth_bits))
        m.d.sync += [
            self.is_past.eq(entry.deadline <= self.now),
            self.stands.eq((self.now < entry.deadline) & (entry.deadline < self.code)),
            self.worth.eq(self.value + entry.chance),
            self.expected_worth.eq(self.value + self.chance),
        ]

    def _group_of(self, layer: Value) -> Value:
        """The number of a layer's group."""
        return Mux(self.ports.settings.by_layer, layer, 0)

    def _touch(self, purpose: Purpose, key: Value | None = None, why: ActionWhy | None = None) -> None:
        """From the next cycle on, touch ``key`` (the same as before, unless said)."""
        m = self.module
        m.d.sync += self.purpose.eq(purpose)
        if key is not None:
            m.d.sync += self.key.eq(key)
        if why is not None:
            m.d.sync += self.why.eq(why)
        m.next = "READ"

    def _touching(self) -> None:
        m = self.module
        with m.State("READ"):
            m.d.comb += [self.reads_key.eq(1), self.places.find.eq(1)]
            m.next = "PICK"
        with m.State("PICK"):
            m.d.comb += self.picks.eq(1)
            m.next = "DECIDE"
        m.d.comb += self.places.place.eq(self.entry.place)
        with m.State("DECIDE"):
            m.next = "ACT"
        self.acts = Signal()
        with m.State("ACT"):
            m.d.comb += self.acts.eq(1)
            self._act()

    def _act(self) -> None:
        """The last cycle of a touch: what becomes of the entry, and of what is known of it elsewhere."""
        m, shape = self.module, self.shape
        self.new = Signal(entry_layout(shape), name="new_entry")
        self.writes, self.keeps_place = Signal(), Signal()
        entry, new = self.entry, self.new
        m.d.comb += [
            new.eq(entry),
            self.writes.eq(1),
            self.queue.given.key.eq(self.key),
            self.queue.given.placed.eq(entry.placed),
            self.queue.given.deadline.eq(new.deadline),
            self.queue.given.worth.eq(self.worth),
        ]
        with m.Switch(self.purpose):
            for purpose, act in {
                Purpose.DEMAND: self._act_demand,
                Purpose.ENQUEUE: self._act_enqueue,
                Purpose.RELEASE: self._act_release,
                Purpose.EXPECT: self._act_expect,
                Purpose.PRELOAD: self._act_preload,
                Purpose.FIX: self._act_fix,
                Purpose.REFRESH: self._act_refresh,
                Purpose.BACKGROUND: self._act_background,
                Purpose.EVICT: self._act_evict,
                Purpose.DROP: self._act_drop,
                Purpose.REFUSE_FULL: self._act_refuse_full,
                Purpose.PAUSE: self._act_pause,
                Purpose.FAIL: self._act_fail,
                Purpose.ARRIVE: self._act_arrive,
            }.items():
                with m.Case(purpose):
                    act()
            with m.Case(Purpose.START_KEPT, Purpose.START_FREE, Purpose.START_TAKEN, Purpose.START_NONE):
                self._act_start()

        with m.If(self.writes):
            m.d.comb += self.directory.write.eq(
                Const(1, self.limits.lanes) << self.key.expert[: shape.lane_bits] if shape.lane_bits else 1
            )
        m.d.comb += [
            self.directory.write_word.eq(word_of(shape, self.key.layer, self.key.expert)),
            self.directory.entry.eq(new),
        ]
        self._account_places()

    def _account_places(self) -> None:
        """What follows where the entry's place is another than before."""
        m = self.module
        enters, leaves = Signal(), Signal()
        group = self._group_of(self.key.layer)
        m.d.comb += [
            enters.eq(self.writes & self.new.placed & ~self.entry.placed),
            leaves.eq(self.writes & ~self.new.placed & self.entry.placed),
            self.places.take.eq(enters & (self.purpose != Purpose.START_TAKEN)),
            self.places.give.eq(leaves & ~self.keeps_place),
        ]
        with m.If(enters):
            m.d.sync += [self.held[group].eq(self.group_held + 1), self.spare_taken.eq(self.spare_taken + self.is_full)]
        with m.If(leaves):
            m.d.sync += [self.held[group].eq(self.group_held - 1), self.spare_taken.eq(self.spare_taken - self.is_over)]

    def _say(self, kind: ActionKind, why: Value | ActionWhy = ActionWhy.NONE) -> None:
        """An action of the touched key."""
        actions = self.ports.actions
        self.module.d.sync += [
            actions.valid.eq(1),
            actions.kind.eq(kind),
            actions.why.eq(why),
            actions.key.eq(self.key),
            actions.placed.eq(self.entry.placed),
            actions.place.eq(Mux(self.entry.placed, self.entry.place, self.shape.all_places)),
        ]

    def _count(self, name: str, by: Value | int = 1) -> None:
        counter = getattr(self.ports.counters, name)
        self.module.d.sync += counter.eq(counter + by)

    def _vacate(self) -> None:
        """The expert is absent from now on."""
        self.module.d.comb += [self.new.status.eq(Status.ABSENT), self.new.placed.eq(0)]

    def _stamp(self) -> None:
        m = self.module
        m.d.comb += self.new.last.eq(self.stamps)
        m.d.sync += self.stamps.eq(self.stamps + 1)

    def _go(self, state: str) -> None:
        self.module.next = state

    def _next_named(self, after: str) -> None:
        """Touch the next expert that the command names; ``after`` the last go on there."""
        m = self.module
        with m.If(self.nth + 1 == self.command.count):
            m.next = after
        with m.Else():
            m.d.sync += [
                self.nth.eq(self.nth + 1),
                self.key.layer.eq(self.command.layer),
                self.key.expert.eq(self.command.experts[self.nth + 1]),
            ]
            m.next = "READ"

    def _next_prediction(self) -> None:
        """As the last expert of a prediction is dealt with: touch the next."""
        self.module.d.sync += self.purpose.eq(Purpose.EXPECT)
        self._next_named("END")

    def _append(self, go_on: Callable[[], None]) -> None:
        """Enter the queue and ``go_on``; where it was full, first look for who loses its entry."""
        m = self.module
        m.d.comb += self.queue.append.eq(1)
        with m.If(self.queue.waiting == self.limits.queue_depth):
            self._look(last=True, placed_only=False)
        with m.Else():
            go_on()

    def _act_demand(self) -> None:
        m, entry, new = self.module, self.entry, self.new
        resident = entry.status == Status.RESIDENT
        with m.If(self.command.option & ~resident):
            m.d.comb += self.writes.eq(0)
            self._say(ActionKind.ELSEWHERE)
        with m.Else():
            m.d.comb += new.pins.eq(entry.pins + 1)
            m.d.sync += self.pins_out.eq(self.pins_out + 1)
            with m.If(resident):
                m.d.comb += new.unused.eq(0)
                self._count("hits")
                self._count("useful", entry.unused)
                self._say(ActionKind.HIT)
            with m.Elif(entry.status == Status.ABSENT):
                m.d.sync += self.absent.bit_select(self.nth, 1).eq(1)
                self._count("waits")
                self._say(ActionKind.WAIT)
            with m.Else():
                self._count("promoted")
                self._say(ActionKind.PROMOTE)
                with m.If((entry.status == Status.QUEUED) & ~self.queue.matched.demanded):
                    m.d.comb += [
                        self.queue.remove.eq(1),
                        self.queue.append.eq(1),
                        self.queue.given.eq(self.queue.matched),
                        self.queue.given.demanded.eq(1),
                    ]
                with m.If(entry.status == Status.MOVING):
                    m.d.sync += [self.moving.demanded.eq(1), self.moving.useless.eq(0)]
        self._next_named("ENQUEUE")

    def _act_enqueue(self) -> None:
        m = self.module
        m.d.comb += [self.new.status.eq(Status.QUEUED), self.queue.given.demanded.eq(1)]
        self._append(lambda: self._go("ENQUEUE"))

    def _act_release(self) -> None:
        m, entry, new = self.module, self.entry, self.new
        m.d.comb += new.pins.eq(entry.pins - 1)
        m.d.sync += self.pins_out.eq(self.pins_out - 1)
        self._stamp()
        with m.If(entry.pins == 1):
            with m.If((entry.status == Status.RESIDENT) & ~entry.placed):
                self._vacate()
                m.d.comb += new.unused.eq(0)
            with m.If((entry.status == Status.QUEUED) & self.queue.matched.demanded):
                with m.If(self.is_past):
                    m.d.comb += self.queue.remove.eq(1)
                    self._give_up(ActionWhy.RELEASED)
                with m.Else():
                    m.d.comb += self.queue.demote.eq(1)
            with m.If((entry.status == Status.MOVING) & self.moving.demanded):
                m.d.sync += [self.moving.demanded.eq(0), self.moving.useless.eq(self.is_past)]
        self._next_named("TRIM")

    def _give_up(self, why: Value | ActionWhy) -> None:
        self._vacate()
        self._count("dropped")
        self._say(ActionKind.DROP, why)

    def _act_expect(self) -> None:
        m, entry, new = self.module, self.entry, self.new
        with m.If(self.is_late | self.is_far):
            m.d.comb += self.writes.eq(0)
            self._count("refused")
            self._say(ActionKind.REFUSE, Mux(self.is_late, ActionWhy.LATE, ActionWhy.FAR))
            self._next_named("END")
        with m.Else():
            with m.If(~self.stands):
                m.d.comb += [
                    new.chance.eq(self.chance),
                    new.deadline.eq(self.code),
                    self.queue.given.worth.eq(self.expected_worth),
                ]
            with m.If(entry.status == Status.ABSENT):
                m.d.comb += new.status.eq(Status.QUEUED)
                with m.If(self.queue.waiting != self.limits.queue_depth):
                    self._say(ActionKind.QUEUE)
                self._append(lambda: self._next_named("END"))
            with m.Else():
                m.d.comb += self.queue.update.eq(1)
                with m.If(entry.status == Status.MOVING):
                    m.d.sync += [self.moving.useless.eq(0), self.moving.deadline.eq(new.deadline)]
                self._say(ActionKind.HOLD)
                self._next_named("END")

    def _act_preload(self) -> None:
        m, new = self.module, self.new
        with m.If((self.entry.status == Status.ABSENT) & ~self.is_full):
            m.d.comb += [new.status.eq(Status.RESIDENT), new.placed.eq(1), new.place.eq(self.places.lowest)]
            self._stamp()
        with m.Else():
            m.d.comb += self.writes.eq(0)
            m.d.sync += self.rejected.eq(1)
        self._next_named("END")

    def _act_fix(self) -> None:
        self.module.d.comb += self.new.fixed.eq(self.command.option)
        self._next_named("END")

    def _act_refresh(self) -> None:
        m = self.module
        m.d.comb += [self.writes.eq(0), self.queue.update.eq(1)]
        m.next = "WALK"

    def _act_background(self) -> None:
        m, chosen = self.module, self.chosen
        m.d.sync += [chosen.key.eq(self.key), chosen.demanded.eq(0), chosen.placed.eq(0), chosen.worth.eq(self.worth)]
        with m.If(self.is_past):
            m.d.comb += [self.new.chance.eq(0), self.new.deadline.eq(1 << self.limits.deadline_bits)]
            m.d.sync += chosen.worth.eq(self.value)
        m.next = "CLAIM"

    def _act_start(self) -> None:
        m, new, transfer, purpose = self.module, self.new, self.transfer, self.purpose
        place = Mux(purpose == Purpose.START_FREE, self.places.lowest, self.taken_place)
        m.d.comb += [new.status.eq(Status.MOVING), self.queue.remove.eq(1)]
        with m.If((purpose == Purpose.START_FREE) | (purpose == Purpose.START_TAKEN)):
            m.d.comb += [new.placed.eq(1), new.place.eq(place)]
        with m.If(purpose == Purpose.START_NONE):
            self._count("passed")
        m.d.sync += [
            transfer.valid.eq(1),
            transfer.key.eq(self.key),
            transfer.place.eq(Mux(new.placed, new.place, self.shape.all_places)),
            transfer.demanded.eq(self.chosen.demanded),
            self.moving.valid.eq(1),
            self.moving.key.eq(self.key),
            self.moving.demanded.eq(self.chosen.demanded),
            self.moving.useless.eq(0),
            self.moving.deadline.eq(self.entry.deadline),
            self.moving.tries.eq(self.queue.matched.tries),
        ]
        m.next = "END"

    def _act_evict(self) -> None:
        m, entry = self.module, self.entry
        self._vacate()
        m.d.comb += self.new.unused.eq(0)
        self._count("evicted")
        self._count("wasted", entry.unused)
        self._say(ActionKind.EVICT, self.why)
        with m.If(self.command.kind == Command.GRANT):
            m.d.comb += self.keeps_place.eq(1)
            m.d.sync += [
                self.taken_place.eq(entry.place),
                self.transfer.evicts.eq(1),
                self.transfer.victim.eq(self.key),
            ]
            self._touch(Purpose.START_TAKEN, self.chosen.key)
        with m.Else():
            m.next = "TRIM"
        may = (entry.status == Status.RESIDENT) & (entry.pins == 0) & ~entry.fixed & entry.placed
        self.evicts_rightly = implies(self.purpose == Purpose.EVICT, may)

    def _act_drop(self) -> None:
        m = self.module
        m.d.comb += self.queue.remove.eq(1)
        self._give_up(self.why)
        with m.Switch(self.command.kind):
            with m.Case(Command.EXPIRE):
                m.next = "WALK"
            with m.Case(Command.GRANT):
                with m.If(self.why == ActionWhy.PLACE):
                    m.next = "CLAIM"
                with m.Elif(self.from_background):
                    m.next = "END"
                with m.Else():
                    m.next = "GRANT"
            with m.Case(Command.PREEMPT):
                m.d.sync += self.moving.valid.eq(0)
                m.next = "END"
            with m.Case(Command.FAIL):
                m.next = "END"
            with m.Case(Command.DEMAND):
                m.next = "ENQUEUE"
            with m.Default():
                self._next_prediction()

    def _act_refuse_full(self) -> None:
        self.module.d.comb += self.queue.remove.eq(1)
        self._vacate()
        self._count("refused")
        self._say(ActionKind.REFUSE, ActionWhy.FULL)
        self._next_prediction()

    def _act_pause(self) -> None:
        m = self.module
        m.d.comb += [self.new.status.eq(Status.QUEUED), self.queue.given.tries.eq(self.moving.tries)]
        m.d.sync += self.moving.valid.eq(0)
        self._say(ActionKind.PAUSE)
        self._append(lambda: self._go("END"))

    def _act_fail(self) -> None:
        m, moving = self.module, self.moving
        m.d.sync += moving.valid.eq(0)
        self._count("failed")
        with m.If(moving.demanded & (moving.tries < self.ports.settings.retries)):
            m.d.comb += [
                self.new.status.eq(Status.QUEUED),
                self.queue.given.demanded.eq(1),
                self.queue.given.tries.eq(moving.tries + 1),
            ]
            self._say(ActionKind.PAUSE, ActionWhy.FAILED)
            self._append(lambda: self._go("END"))
        with m.Else():
            self._count("lost", moving.demanded)
            self._give_up(ActionWhy.FAILED)
            m.next = "END"

    def _act_arrive(self) -> None:
        m, entry, new, moving = self.module, self.entry, self.new, self.moving
        m.d.comb += new.status.eq(Status.RESIDENT)
        m.d.sync += moving.valid.eq(0)
        self._stamp()
        with m.If(moving.demanded):
            self._count("moved_demands")
        with m.Else():
            m.d.comb += new.unused.eq(1)
            self._count("moved_prefetches")
        m.next = "END"
        with m.If(entry.pins == 0):
            with m.If(~entry.placed):
                self._vacate()
                m.d.comb += new.unused.eq(0)
            m.next = "TRIM"

    # --- a look at the queue ---

    def _look(self, *, last: bool, placed_only: bool) -> None:
        """From the next cycle on, look for the next to move, or for the last."""
        m = self.module
        m.d.sync += [
            self.queue.last.eq(last),
            self.queue.placed_only.eq(placed_only),
            self.count.eq(look_cycles(self.limits.queue_depth) - 1),
        ]
        m.next = "LOOK"

    def _looking(self) -> None:
        m, queue = self.module, self.queue
        with m.State("LOOK"):
            m.d.sync += self.count.eq(self.count - 1)
            with m.If(self.count == 0):
                with m.If(queue.placed_only):
                    m.next = "PAUSED"
                with m.Elif(queue.last):
                    m.next = "OVERFLOW"
                with m.Else():
                    m.next = "SELECT"
        with m.State("OVERFLOW"):
            found = queue.found.entry.key
            with m.If((self.command.kind == Command.PREFETCH) & (found == self.key)):
                self._touch(Purpose.REFUSE_FULL)
            with m.Else():
                with m.If(self.command.kind == Command.PREFETCH):
                    self._say(ActionKind.QUEUE)
                self._touch(Purpose.DROP, found, ActionWhy.FULL)

    # --- a walk through the queue ---

    def _walking(self) -> None:
        """EXPIRE drops what is useless, SET_VALUES renews the worth of what is of its layer."""
        m, moving = self.module, self.moving
        with m.State("EXPIRE"):
            with m.If(self.code > self.now):
                m.d.sync += self.now.eq(self.code)
            m.next = "WALK"
        with m.State("VALUES"), m.If(self.writer.finishing):
            m.next = "WALK"
        with m.State("WALK"):
            m.d.sync += self.visited.eq(self.queue.nth)
            m.next = "TEST"
            with m.If(self.at == self.queue.waiting):
                with m.If((self.command.kind == Command.EXPIRE) & ~moving.demanded & (moving.deadline <= self.now)):
                    m.d.sync += moving.useless.eq(1)
                m.next = "END"
        with m.State("TEST"):
            m.next = "WALK"
            useless = ~self.visited.demanded & (self.visited.deadline <= self.now)
            with m.If(self.command.kind == Command.EXPIRE):
                with m.If(useless):
                    self._touch(Purpose.DROP, self.visited.key, ActionWhy.USELESS)
                with m.Else():
                    m.d.sync += self.at.eq(self.at + 1)
            with m.Else():
                m.d.sync += self.at.eq(self.at + 1)
                with m.If(self.visited.key.layer == self.command.layer):
                    self._touch(Purpose.REFRESH, self.visited.key)

    # --- what starts ---

    def _scan(self, layer: Value, state: str, *, most: bool = False) -> None:
        """From the next cycle on, scan the group of ``layer``."""
        m, settings = self.module, self.ports.settings
        m.d.comb += [
            self.scan.start.eq(1),
            self.scan.most.eq(most),
            self.scan.first.eq(self._group_of(layer)),
            self.scan.last.eq(Mux(settings.by_layer, layer, settings.layers - 1)),
        ]
        m.next = state

    def _scan_state(self, state: str, after: str) -> None:
        """Wait for the scan."""
        m = self.module
        with m.State(state), m.If(self.scan.finishing):
            m.next = after

    def _granting(self) -> None:
        m, queue, chosen, settings = self.module, self.queue, self.chosen, self.ports.settings
        found = self.scan.found
        with m.State("GRANT"):
            with m.If(queue.waiting != 0):
                self._look(last=False, placed_only=False)
            with m.Elif(settings.background):
                m.d.sync += [self.group.eq(0), self.best_valid.eq(0), self.best_gain.eq(settings.price)]
                m.d.sync += self.from_background.eq(1)
                m.next = "GROUP"
            with m.Else():
                m.next = "END"
        with m.State("SELECT"):
            m.d.sync += chosen.eq(queue.found.entry)
            m.next = "CLAIM"
        with m.State("CLAIM"):
            group = self._group_of(chosen.key.layer)
            with m.If(chosen.placed):
                self._touch(Purpose.START_KEPT, chosen.key)
            with m.Elif(self.held[group] >= self.shares[group]):
                self._scan(chosen.key.layer, "CLAIM_SCAN")
            with m.Elif(chosen.demanded | (chosen.worth > settings.price)):
                self._touch(Purpose.START_FREE, chosen.key)
            with m.Else():
                self._touch(Purpose.DROP, chosen.key, ActionWhy.WORTH)
        self._scan_state("CLAIM_SCAN", "GAIN")
        with m.State("GAIN"):
            m.d.sync += self.gain.eq(chosen.worth - found.worth)
            m.next = "COMPARE"
        with m.State("COMPARE"):
            with m.If(found.valid & (chosen.demanded | (self.gain > settings.price))):
                self._touch(Purpose.EVICT, found.key, ActionWhy.NONE)
            with m.Elif(~chosen.demanded):
                self._touch(Purpose.DROP, chosen.key, ActionWhy.WORTH)
            with m.Elif(self.spare_taken < settings.spare):
                self._touch(Purpose.START_FREE, chosen.key)
            with m.Else():
                self._look(last=True, placed_only=True)
        with m.State("PAUSED"):
            with m.If(queue.found.valid):
                self._touch(Purpose.DROP, queue.found.entry.key, ActionWhy.PLACE)
            with m.Else():
                self._touch(Purpose.START_NONE, chosen.key)

    def _background(self) -> None:
        """The absent expert that gains most, over all groups."""
        m, settings, found = self.module, self.ports.settings, self.scan.found
        layer = self.group[: self.shape.layer_bits]
        with m.State("GROUP"):
            with m.If(self.group == Mux(settings.by_layer, settings.layers, 1)):
                with m.If(self.best_valid):
                    self._touch(Purpose.BACKGROUND, self.best_key)
                with m.Else():
                    m.next = "END"
            with m.Else():
                self._scan(layer, "MOST_SCAN", most=True)
        self._scan_state("MOST_SCAN", "MOST")
        with m.State("MOST"):
            m.d.sync += [self.most_key.eq(found.key), self.most_worth.eq(found.worth), self.gain.eq(found.worth)]
            with m.If(~found.valid):
                m.d.sync += self.group.eq(self.group + 1)
                m.next = "GROUP"
            with m.Elif(self.held[layer] >= self.shares[layer]):
                self._scan(layer, "LEAST_SCAN")
            with m.Else():
                m.next = "BEST"
        self._scan_state("LEAST_SCAN", "LEAST")
        with m.State("LEAST"):
            m.d.sync += self.gain.eq(self.most_worth - found.worth)
            m.next = "BEST"
            with m.If(~found.valid):
                m.d.sync += self.group.eq(self.group + 1)
                m.next = "GROUP"
        with m.State("BEST"):
            m.d.sync += self.group.eq(self.group + 1)
            with m.If(self.gain > self.best_gain):
                m.d.sync += [self.best_valid.eq(1), self.best_gain.eq(self.gain), self.best_key.eq(self.most_key)]
            m.next = "GROUP"

    def _trimming(self) -> None:
        """Residents give way until the group of the key touched last holds no more than its share."""
        m, found = self.module, self.scan.found
        with m.State("TRIM"):
            group = self._group_of(self.key.layer)
            with m.If(self.held[group] > self.shares[group]):
                self._scan(self.key.layer, "TRIM_SCAN")
            with m.Else():
                m.next = "END"
        self._scan_state("TRIM_SCAN", "TRIM_FOUND")
        with m.State("TRIM_FOUND"):
            with m.If(found.valid):
                self._touch(Purpose.EVICT, found.key, ActionWhy.SHARE)
            with m.Else():
                m.next = "END"

    # --- begin and end ---

    def _idle(self) -> None:
        m, ports = self.module, self.ports
        offered = ports.commands.payload
        with m.State("IDLE"):
            m.d.comb += [ports.commands.ready.eq(1), self.writer.layer.eq(offered.layer)]
            m.d.sync += [
                self.command.eq(offered),
                self.code.eq(offered.deadline + 1),
                self.nth.eq(0),
                self.absent.eq(0),
                self.at.eq(0),
                self.count.eq(self._clears - 1),
                self.stopped.eq(0),
                self.rejected.eq(0),
                self.from_background.eq(0),
                self.transfer.valid.eq(0),
                self.transfer.evicts.eq(0),
            ]
            with m.If(ports.commands.valid):
                self._dispatch(offered)
        with m.State("PREEMPT"):
            m.next = "END"
            with m.If(~self.moving.demanded & self.queue.holds_demand):
                m.d.sync += self.stopped.eq(1)
                with m.If(self.moving.useless):
                    self._touch(Purpose.DROP, why=ActionWhy.USELESS)
                with m.Else():
                    self._touch(Purpose.PAUSE)
        with m.State("ENQUEUE"):
            m.next = "END"
            for nth in reversed(range(self.shape.named_experts)):
                with m.If(self.absent[nth]):
                    key = Signal.like(self.key, name=f"absent{nth}")
                    m.d.comb += [key.layer.eq(self.command.layer), key.expert.eq(self.command.experts[nth])]
                    m.d.sync += self.absent.eq(self.absent & (self.absent - 1))
                    self._touch(Purpose.ENQUEUE, key)
        with m.State("CLEAR"):
            self._clear()

    def _dispatch(self, offered: data.View) -> None:
        """The first state of a command."""
        m = self.module
        named = Signal.like(self.key, name="first_named")
        m.d.comb += [named.layer.eq(offered.layer), named.expert.eq(offered.experts[0])]
        with m.Switch(offered.kind):
            for command, purpose in NAMED.items():
                with m.Case(command):
                    self._touch(purpose, named)
                    with m.If(offered.count == 0):
                        m.next = "ENQUEUE" if command is Command.DEMAND else "END"
            with m.Case(Command.SET_VALUES):
                m.d.comb += self.writer.start.eq(1)
                m.next = "VALUES"
            with m.Case(Command.EXPIRE):
                m.next = "EXPIRE"
            with m.Case(Command.GRANT):
                m.next = "GRANT"
            with m.Case(Command.PREEMPT):
                m.d.sync += self.key.eq(self.moving.key)
                m.next = "PREEMPT"
            with m.Case(Command.ARRIVE):
                self._touch(Purpose.ARRIVE, self.moving.key)
            with m.Case(Command.FAIL):
                self._touch(Purpose.FAIL, self.moving.key)
            with m.Case(Command.CLEAR):
                m.next = "CLEAR"

    def _clear(self) -> None:
        """Write every word of the memories, and forget what registers hold."""
        m, directory = self.module, self.directory
        m.d.comb += [
            directory.write.eq((1 << self.limits.lanes) - 1),
            directory.write_word.eq(self.count),
            directory.entry.eq(Const(0, entry_layout(self.shape).size)),
            directory.write_values.eq(1),
            directory.values_word.eq(self.count),
            directory.new_values.as_value().eq(0),
            self.queue.clear.eq(1),
            self.places.clear.eq(self.count < self.places.words),
            self.places.clear_word.eq(self.count),
        ]
        with m.If(self.count >= self.shape.directory_words):
            m.d.comb += [directory.write.eq(0), directory.write_values.eq(0)]
        m.d.sync += [
            self.held.as_value().eq(0),
            self.spare_taken.eq(0),
            self.moving.valid.eq(0),
            self.now.eq(0),
            self.stamps.eq(0),
            self.pins_out.eq(0),
            Value.cast(self.ports.counters).eq(0),
            self.count.eq(self.count - 1),
        ]
        with m.If(self.count == 0):
            m.next = "END"

    def _ending(self) -> None:
        m, ports = self.module, self.ports
        with m.State("END"):
            m.d.comb += [
                ports.done.valid.eq(1),
                ports.done.kind.eq(self.command.kind),
                ports.done.transfer.eq(self.transfer),
                ports.done.stopped.eq(self.stopped),
                ports.done.rejected.eq(self.rejected),
            ]
            m.d.sync += [
                ports.demand_waits.eq(self.queue.holds_demand),
                ports.queue_empty.eq(self.queue.waiting == 0),
                ports.moving.eq(self.moving.valid),
                ports.moving_demanded.eq(self.moving.valid & self.moving.demanded),
            ]
            m.next = "IDLE"

    def _checks(self) -> None:
        m, ports, settings = self.module, self.ports, self.ports.settings
        offered, taken = ports.commands.payload, ports.commands.valid & ports.commands.ready
        of = [offered.kind == command for command in Command]
        kind = dict(zip(Command, of, strict=True))
        names = kind[Command.DEMAND] | kind[Command.RELEASE] | kind[Command.PREFETCH]
        names |= kind[Command.PRELOAD] | kind[Command.FIX]
        moves = kind[Command.PREEMPT] | kind[Command.ARRIVE] | kind[Command.FAIL]
        always(m, implies(taken & moves, self.moving.valid), "stager: told of a transfer, and nothing moves")
        always(m, implies(taken & kind[Command.GRANT], ~self.moving.valid), "stager: granted a link that is taken")
        has_layer = names | kind[Command.SET_VALUES]
        always(m, implies(taken & has_layer, offered.layer < settings.layers), "stager: told of a layer that is not")
        always(
            m,
            implies(taken & names, offered.count <= self.shape.named_experts),
            "stager: more experts than can be named",
        )
        for nth in range(self.shape.named_experts):
            inside = (offered.count <= nth) | (offered.experts[nth] < settings.experts)
            always(m, implies(taken & names, inside), "stager: told of an expert that is not")
        always_within(m, self.pins_out, 0, self.limits.most_pins, "stager: more pins than the limits allow")
        acts = self.acts
        always(
            m, implies(acts & (self.purpose == Purpose.RELEASE), self.entry.pins != 0), "stager: released undemanded"
        )
        always(m, implies(acts, self.evicts_rightly), "stager: a pinned expert is evicted")
        always(
            m,
            implies(ports.commands.ready, self.queue.waiting <= self.limits.queue_depth),
            "stager: the queue overflows",
        )
        always_within(m, self.spare_taken, 0, self.limits.spare, "stager: more spare places than there are")
