"""What the stager's control is made of: registers, parts, and the kinds of work that commands consist of.

A command is a walk through a few kinds of work (``staging.stager.cycles`` says how long each takes): an entry of the
directory is *touched* (read, lane picked, decided, written), a group is *scanned*, the queue is *looked* at or *walked*
through. ``states`` has the states, ``acts`` what happens to an expert in the last cycle of its touch.
"""

from collections.abc import Callable
from typing import Any, ClassVar

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, enum, wiring

from rtl.prefetch.stager.directory import DirectoryMemory, word_of
from rtl.prefetch.stager.layouts import (
    TRIES_BITS,
    ActionKind,
    ActionWhy,
    StagerShape,
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

Code = Any
"""A member of an enumeration of Amaranth's."""


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


class Control:
    """The stager's module while it is made; ``ports`` is the component. A proof may put other parts in."""

    directory_part: ClassVar[Any] = DirectoryMemory
    queue_part: ClassVar[Any] = TransferQueue
    scan_part: ClassVar[Any] = DirectoryScan
    places_part: ClassVar[Any] = FreePlaces

    def __init__(self, ports: wiring.Component, shape: StagerShape) -> None:
        self.ports: Any = ports
        self.shape, self.limits = shape, shape.limits
        self.module = Module()
        self.states: Any = None
        """The state machine, once it is made."""
        self._registers()
        self._parts()
        self._connect()
        self._touch_stages()

    def _registers(self) -> None:
        shape, limits = self.shape, self.limits
        key = key_layout(shape)
        self.command = Signal(command_layout(shape), name="command")
        self.code = Signal(shape.deadline_code_bits)
        """The command's deadline, and one."""
        self.now = Signal(shape.deadline_code_bits)
        self.stamps = Signal(limits.stamp_bits)
        self.nth = Signal(range(self.shape.named_experts + 1))
        self.told_chance = Signal(shape.limits.value_bits)
        """Of a prediction, what the command says of the expert of that number."""
        self.acts = Signal()
        """The last cycle of a touch."""
        self.new = Signal(entry_layout(shape), name="new_entry")
        self.writes, self.keeps_place = Signal(), Signal()
        """In that cycle: what becomes of the entry, whether it is written, whether the place that it loses is kept."""
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
        self.count = Signal(range(max(2, look_cycles(limits.queue_depth), self.clears)))
        """Down, of cycles that pass."""
        self.at = Signal(range(limits.queue_depth + 2))
        """In a walk through the queue."""
        self.visited = Signal(waiting_layout(shape))
        self.transfer = Signal(self.ports.done.transfer.shape(), name="transfer")
        self.stopped, self.rejected = Signal(), Signal()
        self.from_background = Signal()
        self.overflows = Signal()
        """The queue holds one too many, and who loses its entry is sought; only checks read it, and what follows."""
        self.taken = Signal(max(1, self.shape.all_places))
        """The places that experts hold."""
        self.pins_out = Signal(range(limits.most_pins + self.shape.named_experts + 1))
        """Pins of all keys."""

    @property
    def clears(self) -> int:
        """Cycles of CLEAR between its first and its last."""
        limits = self.limits
        return clear_cycles(limits.layers, limits.experts, limits.lanes, self.shape.all_places, WORD_PLACES)

    def _parts(self) -> None:
        m = self.module
        m.submodules.directory = self.directory = self.directory_part(self.shape)
        m.submodules.queue = self.queue = self.queue_part(self.shape)
        m.submodules.scan = self.scan = self.scan_part(self.shape)
        m.submodules.places = self.places = self.places_part(self.shape)
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
        # A scan reads; otherwise what is touched is, and while the stager is idle what is asked for.
        self.reads_key = Signal()
        self.read_key = Signal(key_layout(self.shape))
        m.d.comb += [
            self.read_key.eq(Mux(ports.busy, self.key.as_value(), Value.cast(ports.look.key))),
            directory.read.eq(scan.read | self.reads_key | (~ports.busy & ports.look.read)),
            directory.read_word.eq(
                Mux(scan.read, scan.read_word, word_of(self.shape, self.read_key.layer, self.read_key.expert))
            ),
        ]
        m.d.sync += ports.actions.valid.eq(0)
        with m.If(ports.shares.valid):
            m.d.sync += self.shares[ports.shares.layer].eq(ports.shares.share)

    def _touch_stages(self) -> None:
        """Registers that follow from the entry: each is used only in the stage for which it is ready."""
        m, shape, settings = self.module, self.shape, self.ports.settings
        lane = Signal(max(1, shape.lane_bits))
        self.entry = entry = Signal(entry_layout(shape), name="entry")
        self.value = Signal(signed(shape.time_bits))
        self.picks = Signal()
        looked = Signal()
        m.d.sync += [
            lane.eq(self.read_key.expert[: shape.lane_bits] if shape.lane_bits else 0),
            looked.eq(~self.ports.busy & self.ports.look.read),
        ]
        picked = self.directory.entries[lane] if shape.lane_bits else self.directory.entries[0]
        picked_value = self.directory.values[lane] if shape.lane_bits else self.directory.values[0]
        with m.If(self.picks | looked):
            m.d.sync += [entry.eq(picked), self.value.eq(picked_value)]
        m.d.comb += [self.ports.look.entry.eq(entry), self.ports.look.value.eq(self.value)]

        # Of the group: read, compare.
        group = self.group_of(self.key.layer)
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
        told = self.told_chance
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

    def group_of(self, layer: Value) -> Value:
        """The number of a layer's group."""
        return Mux(self.ports.settings.by_layer, layer, 0)

    def touch(self, purpose: Code, key: Value | None = None, why: Code = None) -> None:
        """From the next cycle on, touch ``key`` (the same as before, unless said)."""
        m = self.module
        m.d.sync += self.purpose.eq(purpose)
        if key is not None:
            m.d.sync += self.key.eq(key)
        if why is not None:
            m.d.sync += self.why.eq(why)
        m.next = "READ"

    def say(self, kind: Code, why: Code = ActionWhy.NONE) -> None:
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

    def tally(self, name: str, by: Value | int = 1) -> None:
        """Count."""
        counter = getattr(self.ports.counters, name)
        self.module.d.sync += counter.eq(counter + by)

    def vacate(self) -> None:
        """The expert is absent from now on."""
        self.module.d.comb += [self.new.status.eq(Status.ABSENT), self.new.placed.eq(0)]

    def stamp(self) -> None:
        """A use of the touched key ends."""
        m = self.module
        m.d.comb += self.new.last.eq(self.stamps)
        m.d.sync += self.stamps.eq(self.stamps + 1)

    def give_up(self, why: Code) -> None:
        """The expert is dropped."""
        self.vacate()
        self.tally("dropped")
        self.say(ActionKind.DROP, why)

    def go(self, state: str) -> None:
        """To the next state."""
        self.module.next = state

    def next_named(self, after: str) -> None:
        """Touch the next expert that the command names; ``after`` the last go on there."""
        m = self.module
        with m.If(self.nth + 1 == self.command.count):
            m.next = after
        with m.Else():
            m.d.sync += [
                self.nth.eq(self.nth + 1),
                self.key.layer.eq(self.command.layer),
                self.key.expert.eq(self.command.experts[self.nth + 1]),
                self.told_chance.eq(self.command.chances[self.nth + 1]),
            ]
            m.next = "READ"

    def next_prediction(self) -> None:
        """As the last expert of a prediction is dealt with: touch the next."""
        self.module.d.sync += self.purpose.eq(Purpose.EXPECT)
        self.next_named("END")

    def append(self, go_on: Callable[[], None]) -> None:
        """Enter the queue and ``go_on``; where it was full, first look for who loses its entry."""
        m = self.module
        m.d.comb += self.queue.append.eq(1)
        with m.If(self.queue.waiting == self.limits.queue_depth):
            m.d.sync += self.overflows.eq(1)
            self.look(last=True, placed_only=False)
        with m.Else():
            go_on()

    def look(self, *, last: bool, placed_only: bool) -> None:
        """From the next cycle on, look for the next to move, or for the last."""
        m = self.module
        m.d.sync += [
            self.queue.last.eq(last),
            self.queue.placed_only.eq(placed_only),
            self.count.eq(look_cycles(self.limits.queue_depth) - 1),
        ]
        m.next = "LOOK"

    def search(self, layer: Value, state: str, *, most: bool = False) -> None:
        """From the next cycle on, scan the group of ``layer``."""
        m, settings = self.module, self.ports.settings
        m.d.comb += [
            self.scan.start.eq(1),
            self.scan.most.eq(most),
            self.scan.first.eq(self.group_of(layer)),
            self.scan.last.eq(Mux(settings.by_layer, layer, settings.layers - 1)),
        ]
        m.next = state

    def search_state(self, state: str, after: str) -> None:
        """Wait for the scan."""
        m = self.module
        with m.State(state), m.If(self.scan.finishing):
            m.next = after
