"""Proof of the stager as a whole: control, queue and checks as they are, around simpler parts that do no less.

What takes stage after stage to find something is replaced by a part that finds *any* thing that its own proof allows,
at any time: the scan of the directory (``stager-scan``), the tree that looks at the queue (``stager-queue``) and the
search for a free place (``stager-places``). The directory's memory is replaced by registers, which the checks can
speak of. The whole then holds for whatever these parts find.
"""

from typing import Any, ClassVar

from amaranth.hdl import Array, Assume, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In
from typing_extensions import override

from rtl.checks import always, always_kept, at_most_one, implies
from rtl.formal.proof import Method
from rtl.formal.task import Task
from rtl.prefetch.stager.acts import Purpose
from rtl.prefetch.stager.control import Control
from rtl.prefetch.stager.directory import directory_members, entries_layout, times_layout
from rtl.prefetch.stager.layouts import Command, StagerShape, StagerSignature, entry_layout
from rtl.prefetch.stager.places import places_members
from rtl.prefetch.stager.queue import TransferQueue
from rtl.prefetch.stager.scan import scan_members
from rtl.prefetch.stager.stager import add_checks
from rtl.prefetch.stager.states import add_states
from staging.stager.directory import Status
from staging.stager.limits import StagerLimits

EXPERTS, PLACES, SPARE, QUEUE = 4, 2, 1, 2
SHAPE = StagerShape(
    limits=StagerLimits(
        layers=1, experts=EXPERTS, places=PLACES, spare=SPARE, queue_depth=QUEUE, sequence_slots=2, event_experts=1,
        value_bits=2, scale_bits=1, stamp_bits=2, deadline_bits=2, lanes=EXPERTS,
    ),
    named_experts=2,
)  # fmt: skip
"""One layer, whose entries are a word; two demands fill the queue, and predictions overflow it."""


def _pick(allowed: Value, wanted: Value, count: int) -> Value:
    """``wanted``, if it is ``allowed``, a bit each; else the lowest that is."""
    lowest: Value = Const(0, wanted.shape())
    for nth in reversed(range(count)):
        lowest = Mux(allowed[nth], nth, lowest)
    return Mux((allowed >> wanted)[0], wanted, lowest)


class Directory(wiring.Component):
    """The directory of one word in registers, which a reset leaves as they are; values are any."""

    def __init__(self, shape: StagerShape) -> None:
        super().__init__(
            {
                **directory_members(shape),
                "any_values": In(times_layout(shape)),
            }
        )
        self.kept = [Signal(entry_layout(shape), name=f"kept{nth}", reset_less=True) for nth in range(EXPERTS)]

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.values.eq(self.any_values)
        for nth, kept in enumerate(self.kept):
            with m.If(self.read & (self.read_word == 0)):
                m.d.sync += self.entries[nth].eq(kept)
            with m.If(self.write[nth] & (self.write_word == 0)):
                m.d.sync += kept.eq(self.entry)
        return m


class Queue(TransferQueue):
    """The queue, whose look finds any entry that it may find: a demand before others, or with ``last`` after them."""

    def __init__(self, shape: StagerShape) -> None:
        super().__init__(shape)
        self.any_entry = Signal(range(QUEUE + 1))

    @override
    def _look(self, m: Module, used: Value) -> None:
        slots = range(QUEUE + 1)
        demanded = Cat(self.entries[at].demanded for at in slots)
        of_group = Cat(~self.by_layer | (self.entries[at].key.layer == self.layer) for at in slots)
        placed = Cat(self.entries[at].placed for at in slots)
        may = Signal(QUEUE + 1)
        m.d.comb += may.eq(used & (~self.placed_only.replicate(QUEUE + 1) | (placed & ~demanded & of_group)))
        first = may & (demanded ^ self.last.replicate(QUEUE + 1))
        at = _pick(Mux(first.any(), first, may), self.any_entry, QUEUE + 1)
        m.d.sync += [self.found.valid.eq(may.any()), self.found.entry.eq(self.entries[at])]


class Scan(wiring.Component):
    """Finds any that may give way, or any that is absent, whenever it likes; none only if there is none."""

    def __init__(self, shape: StagerShape) -> None:
        super().__init__(
            {
                **scan_members(shape),
                "kept": In(entries_layout(shape)),
                "any_end": In(1),
                "any_expert": In(shape.expert_bits),
                "any_worth": In(shape.worth_bits),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        begun, most, may = Signal(), Signal(), Signal(EXPERTS)
        for nth in range(EXPERTS):
            m.d.comb += may[nth].eq(
                (self.experts > nth) & Mux(most, _is_absent(self.kept[nth]), _gives_way(self.kept[nth]))
            )
        m.d.comb += self.finishing.eq(begun & self.any_end)
        with m.If(self.start):
            m.d.sync += [begun.eq(1), most.eq(self.most)]
        with m.Elif(self.finishing):
            m.d.sync += [
                begun.eq(0),
                self.found.valid.eq(may.any()),
                self.found.key.layer.eq(0),
                self.found.key.expert.eq(_pick(may, self.any_expert, EXPERTS)),
                self.found.worth.eq(self.any_worth),
            ]
        return m


class Places(wiring.Component):
    """The free places in registers; any free one is the lowest."""

    def __init__(self, shape: StagerShape) -> None:
        self.words = 1
        super().__init__(
            {
                **places_members(shape),
                "any_place": In(shape.place_bits),
            }
        )
        self.given = Signal(shape.all_places)
        """The places that are not free."""

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        given = self.given
        m.d.comb += [self.any_free.eq(~given.all()), self.lowest.eq(_pick(~given, self.any_place, len(given)))]
        with m.If(self.clear):
            m.d.sync += given.eq(0)
        with m.Elif(self.take):
            m.d.sync += given.bit_select(self.lowest, 1).eq(1)
        with m.Elif(self.give):
            m.d.sync += given.bit_select(self.place, 1).eq(0)
        always(m, implies(self.take, self.any_free), "places: one is taken, and none is free")
        always(m, ~(self.take & self.give), "places: one is taken and one given back at once")
        return m


def _gives_way(entry: data.View) -> Value:
    return (entry.status == Status.RESIDENT) & (entry.pins == 0) & ~entry.fixed


def _is_absent(entry: data.View) -> Value:
    return entry.status == Status.ABSENT


class _Control(Control):
    """The control around the simpler parts."""

    directory_part: ClassVar[Any] = Directory
    queue_part: ClassVar[Any] = Queue
    scan_part: ClassVar[Any] = Scan
    places_part: ClassVar[Any] = Places


class WholeStager(wiring.Component):
    """The stager with those parts, what its commands obey, and what is proved of it."""

    def __init__(self, shape: StagerShape) -> None:
        self.shape = shape
        anything = {
            "any_end": In(1),
            "any_expert": In(shape.expert_bits),
            "any_worth": In(shape.worth_bits),
            "any_entry": In(range(QUEUE + 1)),
            "any_place": In(shape.place_bits),
            "any_values": In(times_layout(shape)),
        }
        super().__init__({**StagerSignature(shape).members, **anything})

    @override
    def elaborate(self, platform: object) -> Module:
        c = _Control(self, self.shape)
        add_states(c)
        add_checks(c)
        m = c.module
        m.d.comb += [
            c.scan.any_end.eq(self.any_end),
            c.scan.any_expert.eq(self.any_expert),
            c.scan.any_worth.eq(self.any_worth),
            c.queue.any_entry.eq(self.any_entry),
            c.places.any_place.eq(self.any_place),
            c.directory.any_values.eq(self.any_values),
            *(c.scan.kept[nth].eq(kept) for nth, kept in enumerate(c.directory.kept)),
        ]
        # Nothing is known of the memories before CLEAR, nor once shares are written.
        known = Signal()
        with m.If(self.shares.valid):
            m.d.sync += known.eq(0)
        with m.If(c.states.ongoing("CLEAR") & (c.count == 0)):
            m.d.sync += known.eq(1)
        holds = Signal()
        m.d.comb += holds.eq(known & ~c.states.ongoing("CLEAR"))
        resting = Cat(c.states.ongoing(state) for state in ("IDLE", "CLEAR", "END")).any()
        always(m, known | resting, "stager: it works before CLEAR")
        _assume_commands(c, known)
        _Statements(c, holds).add()
        return m


def _assume_commands(c: Control, known: Value) -> None:
    """As the engine gives them: no more pins than there may be, releases of what is pinned, each expert once."""
    m, ports, settings, limits = c.module, c.ports, c.ports.settings, c.limits
    offered, taken = ports.commands.payload, ports.commands.valid & ports.commands.ready

    def assume(holds: Value, message: str) -> None:
        always(m, holds, message, claim=Assume)

    kind, kept = offered.kind, Array(c.directory.kept)
    names = Cat(kind == of for of in (Command.DEMAND, Command.RELEASE, Command.PREFETCH, Command.PRELOAD, Command.FIX))
    assume(implies(taken & ~known, kind == Command.CLEAR), "CLEAR is first")
    assume(implies(taken, kind.as_value() <= Value.cast(Command.CLEAR)), "kinds")
    assume(implies(taken & (names.any() | (kind == Command.SET_VALUES)), offered.layer == 0), "layers")
    assume(implies(taken & names.any(), offered.count <= SHAPE.named_experts), "count")
    for nth in range(SHAPE.named_experts):
        is_named = taken & names.any() & (offered.count > nth)
        assume(implies(is_named, offered.experts[nth] < settings.experts), "experts")
        for before in range(nth):
            assume(implies(is_named, offered.experts[before] != offered.experts[nth]), "twice")
        released = is_named & (kind == Command.RELEASE)
        assume(implies(released, kept[offered.experts[nth]].pins != 0), "released undemanded")
    demands = taken & (kind == Command.DEMAND)
    assume(implies(demands, c.pins_out + offered.count <= limits.most_pins), "pins")
    moves = Cat(kind == of for of in (Command.PREEMPT, Command.ARRIVE, Command.FAIL)).any()
    assume(implies(taken & moves, c.moving.valid), "told of a transfer")
    assume(implies(taken & (kind == Command.GRANT), ~c.moving.valid), "granted")
    assume((settings.layers == 1) & (settings.experts >= 1) & (settings.experts <= EXPERTS), "shape")
    assume(settings.spare <= SPARE, "spare")
    running = Cat(value for name, value in _fields(settings) if name != "background")
    always_kept(m, "settings", running, where=known | ports.busy, claim=Assume)
    share = ports.shares
    assume(implies(share.valid, ~ports.busy & ~ports.commands.valid & (share.layer == 0)), "shares")
    assume(implies(share.valid, share.share <= PLACES), "shares fit")


def _fields(view: data.View) -> list[tuple[str, Value]]:
    return [(name, Value.cast(getattr(view, name))) for name, _ in view.shape()]


class _Statements:
    """What holds in every state once the memories are known; each line is a check."""

    def __init__(self, c: Control, holds: Value) -> None:
        self.c, self.m, self.holds = c, c.module, holds
        self.kept = c.directory.kept
        queue = c.queue
        slots = range(QUEUE + 1)
        self.waits = [
            Cat((queue.waiting > at) & (queue.entries[at].key.expert == nth) for at in slots) for nth in range(EXPERTS)
        ]
        self.placed = Array(entry.placed for entry in self.kept)
        self.pins = Array(Value.cast(entry.pins) for entry in self.kept)

    def says(self, holds: Value, message: str) -> None:
        """A check."""
        always(self.m, implies(self.holds, holds), f"stager: {message}")

    def add(self) -> None:
        """All."""
        self._entries()
        self._places()
        self._queue()

    def _entries(self) -> None:
        c, says = self.c, self.says
        held, pinned = [], []
        for nth, entry in enumerate(self.kept):
            status = Value.cast(entry.status)
            says(self.waits[nth].any() == (status == Status.QUEUED), f"{nth} waits, and is not known to")
            moves = c.moving.valid & (c.moving.key.expert == nth)
            says(moves == (status == Status.MOVING), f"{nth} moves, and is not known to")
            says(implies(entry.placed, status != Status.ABSENT), f"{nth} is absent, and holds a place")
            says(implies(entry.placed, entry.place < PLACES + SPARE), f"{nth} holds a place that is not")
            homeless = (status == Status.RESIDENT) & ~entry.placed
            says(implies(homeless, entry.pins != 0), f"{nth} is resident, needed by none, and holds no place")
            held.append(entry.placed)
            pinned.append(Value.cast(entry.pins))
            for before in range(nth):
                both = entry.placed & self.kept[before].placed
                says(implies(both, entry.place != self.kept[before].place), f"{before} and {nth} hold one place")
        says(c.held[0] == sum(held), "held places are miscounted")
        says(c.pins_out == sum(pinned), "pins are miscounted")
        says(implies(c.moving.valid, c.moving.key.layer == 0), "what moves is of no layer")
        moved = self.pins[c.moving.key.expert]
        says(implies(c.moving.valid & c.moving.demanded, moved != 0), "what moves is demanded of none")

    def _places(self) -> None:
        c, says = self.c, self.says
        share, held = c.shares[0], c.held[0]
        always(self.m, share <= PLACES, "stager: a share beyond the buffer")
        says(c.spare_taken == Mux(held > share, held - share, 0)[: len(c.spare_taken)], "spare places are miscounted")
        says(c.spare_taken <= c.ports.settings.spare, "more spare places are taken than there may be")
        for place in range(PLACES + SPARE):
            holders = Cat(entry.placed & (entry.place == place) for entry in self.kept)
            says(c.taken[place] == holders.any(), f"place {place} is held, and is not known to be")
            is_kept = self._touches_for(Purpose.START_TAKEN) & (c.taken_place == place)  # taken, not entered yet
            says(c.places.given[place] == (c.taken[place] | is_kept), f"place {place} is free, and is not known to be")

    def _queue(self) -> None:
        c, says = self.c, self.says
        for nth in range(EXPERTS):
            says(at_most_one(self.waits[nth]), f"{nth} waits twice")
        for at in range(QUEUE + 1):
            entry, is_used = c.queue.entries[at], c.queue.waiting > at
            says(implies(is_used, entry.key.layer == 0), f"entry {at} of the queue is of no layer")
            says(implies(is_used, entry.placed == self.placed[entry.key.expert]), f"entry {at}: placed or not")
            is_demanded = is_used & entry.demanded
            says(implies(is_demanded, self.pins[entry.key.expert] != 0), f"entry {at} is demanded of none")
        full = self._touches_for(Purpose.DROP) & c.overflows
        says(implies(full, ~self._demanded(c.key.expert)), "a demand is dropped, as the queue is full")

    def _demanded(self, expert: Value) -> Value:
        slots = range(QUEUE + 1)
        queue = self.c.queue
        return Cat(
            (queue.waiting > at) & (queue.entries[at].key.expert == expert) & queue.entries[at].demanded for at in slots
        ).any()

    def _touches_for(self, purpose: Any) -> Value:
        touches = Cat(self.c.states.ongoing(state) for state in ("READ", "PICK", "DECIDE", "ACT")).any()
        return touches & (self.c.purpose == purpose)


TASKS = (
    Task(
        name="stager",
        what="the stager as a whole: a place is held by one expert, no key is entered twice, who is pinned stays, the "
        "queue never overflows and never loses a demand",
        make=lambda: WholeStager(SHAPE),
        depth=6,
        method=Method.REACHABILITY,
        faults=12,
        fault_depth=24,  # CLEAR, and a demand or two that are entered, granted and arrive
        quick=False,
    ),
)
