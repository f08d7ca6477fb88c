"""Proof of the stager as a whole: control, queue and checks as they are, around simpler parts that do no less.

What takes stage after stage to find something is replaced by a part that finds *any* thing that its own proof allows,
at any time: the scan of the directory (``stager-scan``), the tree that looks at the queue (``stager-queue``) and the
search for a free place (``stager-places``). The directory's memory is replaced by registers, which the invariants can
speak of. The whole then holds for whatever these parts find. Its invariants are meant for an induction of five cycles,
which has not been seen to close yet (minutes of a core); what it left open last is what they were completed by.
"""

from typing import Any, ClassVar

from amaranth.hdl import Array, Assume, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In
from typing_extensions import override

from rtl.checks import always, always_kept, at_most_one, implies
from rtl.formal.task import Task
from rtl.prefetch.stager.acts import Purpose
from rtl.prefetch.stager.control import Control
from rtl.prefetch.stager.directory import directory_members, entries_layout, times_layout
from rtl.prefetch.stager.layouts import ActionWhy, Command, StagerShape, StagerSignature, entry_layout
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
        self.most_now = Signal()

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        begun, most, may = Signal(), self.most_now, Signal(EXPERTS)
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
    """The stager with those parts, what its commands obey, and what its states have in common."""

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
        _Invariants(c, holds).add()
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


class _Invariants:
    """What all states have in common; each line is a check."""

    def __init__(self, c: Control, holds: Value) -> None:
        self.c, self.m, self.holds = c, c.module, holds
        self.kept = c.directory.kept
        queue = c.queue
        slots = range(QUEUE + 1)
        self.waits = [
            Cat((queue.waiting > at) & (queue.entries[at].key.expert == nth) for at in slots) for nth in range(EXPERTS)
        ]
        self.status = Array(Value.cast(entry.status) for entry in self.kept)
        self.placed = Array(entry.placed for entry in self.kept)
        self.pins = Array(Value.cast(entry.pins) for entry in self.kept)

    def says(self, holds: Value, message: str) -> None:
        """Once the memories are known."""
        always(self.m, implies(self.holds, holds), f"stager: {message}")

    def ongoing(self, *states: str) -> Value:
        """In one of these."""
        return Cat(self.c.states.ongoing(state) for state in states).any()

    def add(self) -> None:
        """All."""
        self._states()
        self._entries()
        self._places()
        self._queue()
        self._keys()
        self._touches()
        self._search()

    def _states(self) -> None:
        m, c = self.m, self.c
        encoded = c.states.ongoing("IDLE")
        names = (
            "IDLE", "PREEMPT", "ENQUEUE", "CLEAR", "READ", "PICK", "DECIDE", "ACT", "LOOK", "OVERFLOW", "EXPIRE",
            "VALUES", "WALK", "TEST", "GRANT", "SELECT", "CLAIM", "CLAIM_SCAN", "GAIN", "COMPARE", "PAUSED", "GROUP",
            "MOST_SCAN", "MOST", "LEAST_SCAN", "LEAST", "BEST", "TRIM", "TRIM_SCAN", "TRIM_FOUND", "END",
        )  # fmt: skip
        always(m, encoded | self.ongoing(*names), "stager: in no state")
        kind = c.command.kind
        of = {
            ("PREEMPT",): (Command.PREEMPT,),
            ("ENQUEUE",): (Command.DEMAND,),
            ("CLEAR",): (Command.CLEAR,),
            ("EXPIRE",): (Command.EXPIRE,),
            ("VALUES",): (Command.SET_VALUES,),
            ("WALK", "TEST"): (Command.EXPIRE, Command.SET_VALUES),
            ("GRANT", "SELECT", "CLAIM", "CLAIM_SCAN", "GAIN", "COMPARE", "PAUSED", "GROUP", "MOST_SCAN", "MOST",
             "LEAST_SCAN", "LEAST", "BEST"): (Command.GRANT,),
            ("TRIM", "TRIM_SCAN", "TRIM_FOUND"): (Command.RELEASE, Command.ARRIVE),
        }  # fmt: skip
        for states, kinds in of.items():
            is_of = Cat(kind == one for one in kinds).any()
            always(m, implies(self.ongoing(*states), is_of), f"stager: {states[0]} of another command")

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
            is_kept = self._touches_for(Purpose.START_TAKEN) & (c.taken_place == place)
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

    def _touches_for(self, *purposes: Any) -> Value:
        touching = self.ongoing("READ", "PICK", "DECIDE", "ACT")
        return touching & Cat(self.c.purpose == purpose for purpose in purposes).any()

    def _keys(self) -> None:
        c, says = self.c, self.says
        touching = self.ongoing("READ", "PICK", "DECIDE", "ACT")
        says(implies(touching, c.key.layer == 0), "a key of no layer is touched")
        says(implies(self.ongoing("TRIM", "TRIM_SCAN", "TRIM_FOUND"), c.key.layer == 0), "a group that is not")
        kind, runs = c.command.kind, ~c.states.ongoing("IDLE")
        naming = (Command.DEMAND, Command.RELEASE, Command.PREFETCH, Command.PRELOAD, Command.FIX)
        one_named = Cat(kind == of for of in naming).any()
        says(implies(runs & (one_named | (kind == Command.SET_VALUES)), c.command.layer == 0), "a command of no layer")
        says(implies(runs & one_named, c.command.count <= SHAPE.named_experts), "more are named than can be")
        in_work = touching | self.ongoing("ENQUEUE", "LOOK", "OVERFLOW")
        left_some = in_work & one_named & (kind != Command.DEMAND)
        left_some |= self.ongoing("TRIM", "TRIM_SCAN", "TRIM_FOUND") & (kind == Command.RELEASE)
        says(implies(left_some, c.nth < c.command.count), "more are touched than are named")
        for nth in range(SHAPE.named_experts):
            key = c.command.experts[nth]
            for before in range(nth):
                both = runs & one_named & (c.command.count > nth)
                says(implies(both, key != c.command.experts[before]), "an expert is named twice")
            demanding = c.command.kind == Command.DEMAND
            yet = demanding & in_work & c.absent[nth]
            right = (c.command.count > nth) & (self.status[key] == Status.ABSENT) & (self.pins[key] != 0)
            says(implies(yet, right), "an expert is to be queued that is not absent")
            to_come = c.command.kind == Command.RELEASE
            to_come &= self._touches_for(Purpose.RELEASE) & (c.nth <= nth) & (c.command.count > nth)
            says(implies(to_come, self.pins[key] != 0), "an expert is to be released that nobody demanded")
        demands = self._touches_for(Purpose.DEMAND)
        says(
            implies(demands & (c.nth < SHAPE.named_experts), ~(c.absent >> c.nth).any()),
            "absent before it is looked at",
        )
        left = Mux(demands, c.command.count - c.nth, 0)
        says(implies(demands, c.pins_out + left <= c.limits.most_pins), "pins beyond the limits are to come")

    def _touches(self) -> None:
        """By what an entry is touched for: the command, and what is known of it."""
        c, says, kind = self.c, self.says, self.c.command.kind
        status, pins, placed = self.status[c.key.expert], self.pins[c.key.expert], self.placed[c.key.expert]
        queued, absent, moving = status == Status.QUEUED, status == Status.ABSENT, status == Status.MOVING
        named = Array(c.command.experts[nth] for nth in range(SHAPE.named_experts))[c.nth]
        is_named = (c.key.expert == named) & (c.nth < c.command.count)
        may = _gives_way(Array(self.kept)[c.key.expert])
        started = Mux(c.from_background, absent, queued) & (c.key == c.chosen.key)
        share, held = c.shares[0], c.held[0]
        fits = (held < share) | (c.spare_taken < c.ports.settings.spare)
        fills = Cat(kind == one for one in (Command.DEMAND, Command.PREFETCH, Command.PREEMPT, Command.FAIL)).any()
        says(implies(c.overflows, fills), "another command fills the queue")
        stopped = Cat(kind == one for one in (Command.PREEMPT, Command.FAIL)).any()
        says(implies(c.overflows & stopped, ~c.moving.valid), "what was stopped moves on")
        others = (
            ((kind == Command.EXPIRE) & queued & (c.at < c.queue.waiting))
            | ((kind == Command.GRANT) & Mux(c.from_background, absent, queued))
            | ((kind == Command.PREEMPT) & moving)
        )
        dropped = Mux(c.overflows, queued & fills, others)
        rules: dict[Any, tuple[Any, Value]] = {
            Purpose.DEMAND: (Command.DEMAND, is_named),
            Purpose.ENQUEUE: (Command.DEMAND, absent & (pins != 0)),
            Purpose.RELEASE: (Command.RELEASE, is_named & (pins != 0)),
            Purpose.EXPECT: (Command.PREFETCH, is_named),
            Purpose.PRELOAD: (Command.PRELOAD, Const(1, 1)),
            Purpose.FIX: (Command.FIX, Const(1, 1)),
            Purpose.REFRESH: (Command.SET_VALUES, queued),
            Purpose.BACKGROUND: (Command.GRANT, absent & c.from_background),
            Purpose.START_KEPT: (Command.GRANT, queued & placed & started & c.chosen.placed),
            Purpose.START_FREE: (Command.GRANT, started & ~placed & fits),
            Purpose.START_TAKEN: (Command.GRANT, started & ~placed & fits & ~c.taken.bit_select(c.taken_place, 1)),
            Purpose.START_NONE: (Command.GRANT, started & ~placed & ~c.from_background),
            Purpose.EVICT: (None, may),
            Purpose.DROP: (None, dropped),
            Purpose.REFUSE_FULL: (Command.PREFETCH, queued & c.overflows),
            Purpose.PAUSE: (Command.PREEMPT, moving & (c.key == c.moving.key) & ~c.moving.demanded),
            Purpose.FAIL: (Command.FAIL, moving & (c.key == c.moving.key)),
            Purpose.ARRIVE: (Command.ARRIVE, moving & (c.key == c.moving.key)),
        }
        for purpose, (command, rule) in rules.items():
            touches = self._touches_for(purpose)
            says(implies(touches, rule), f"touched for {purpose.name}, and should not be")
            if command is not None:
                says(implies(touches, kind == command), f"touched for {purpose.name} by another command")
        known = self.ongoing("READ", "PICK", "DECIDE", "ACT")
        says(implies(known, c.purpose.as_value() <= Value.cast(Purpose.ARRIVE)), "touched for nothing")
        evicts = self._touches_for(Purpose.EVICT)
        of = Cat(kind == one for one in (Command.GRANT, Command.RELEASE, Command.ARRIVE)).any()
        says(implies(evicts, of), "another command evicts")
        says(implies(c.states.ongoing("TEST"), (c.at < c.queue.waiting)), "visited beyond the queue")
        visited = c.queue.entries[c.at]
        same = (c.visited.key == visited.key) & (c.visited.demanded == visited.demanded)
        says(implies(c.states.ongoing("TEST"), same), "what is visited is not in the queue")
        walks = c.states.ongoing("WALK") | self.ongoing("EXPIRE", "VALUES") | self._touches_for(Purpose.REFRESH)
        says(implies(walks, c.at <= c.queue.waiting), "walked beyond the queue")

    def _search(self) -> None:
        """Who is chosen to start, who is found to give way, who is absent."""
        c, says, kind = self.c, self.says, self.c.command.kind
        found, chosen = c.scan.found, c.chosen
        grants = self.ongoing("CLAIM", "CLAIM_SCAN", "GAIN", "COMPARE", "PAUSED") | (
            self.ongoing("LOOK") & (kind == Command.GRANT) & c.queue.placed_only
        )
        place = self._touches_for(Purpose.DROP) & (kind == Command.GRANT) & (c.why == ActionWhy.PLACE)
        claims = grants | place | (self._touches_for(Purpose.EVICT) & (kind == Command.GRANT))
        key, status = chosen.key.expert, self.status[chosen.key.expert]
        right = Mux(c.from_background, (status == Status.ABSENT) & ~chosen.demanded, status == Status.QUEUED)
        right &= (chosen.key.layer == 0) & (chosen.placed == self.placed[key])
        right &= implies(chosen.demanded, self.pins[key] != 0)
        says(implies(claims, right), "what is chosen to move is not known to wait")
        says(implies(claims & ~c.states.ongoing("CLAIM"), ~chosen.placed), "who has a place is to get another")
        says(implies(place, (c.key != chosen.key) & ~c.from_background), "what is chosen to move is dropped")
        looks_on = self.ongoing("GAIN", "COMPARE", "TRIM_FOUND") & found.valid
        says(implies(looks_on, _gives_way(Array(self.kept)[found.key.expert])), "who is found may not give way")
        says(
            implies(looks_on | self.ongoing("MOST") & found.valid, found.key.layer == 0), "who is found is of no layer"
        )
        searches = self.ongoing("CLAIM_SCAN", "TRIM_SCAN", "LEAST_SCAN")
        says(implies(searches, ~c.scan.most_now), "another search")
        says(implies(self.ongoing("MOST_SCAN"), c.scan.most_now), "another search")
        full = self.ongoing("CLAIM_SCAN", "GAIN", "COMPARE", "PAUSED")
        full |= self._touches_for(Purpose.EVICT) & (kind == Command.GRANT)
        says(implies(full, c.held[0] >= c.shares[0]), "who gives way is sought without need")
        absent = Array(_is_absent(entry) for entry in self.kept)
        says(implies(self.ongoing("MOST") & found.valid, absent[found.key.expert]), "who is wanted is not absent")
        wanted = self.ongoing("LEAST_SCAN", "LEAST", "BEST")
        right = absent[c.most_key.expert] & (c.most_key.layer == 0)
        says(implies(wanted, right), "who is wanted is not absent")
        loops = self.ongoing("GROUP", "MOST_SCAN", "MOST", "LEAST_SCAN", "LEAST", "BEST")
        right = absent[c.best_key.expert] & (c.best_key.layer == 0)
        says(implies(loops & c.best_valid, right), "who is best is not absent")
        says(implies(loops | self._touches_for(Purpose.BACKGROUND), c.from_background), "not in the background")
        says(implies(self.ongoing("GRANT", "SELECT"), ~c.from_background), "in the background")
        granting = (kind == Command.GRANT) & ~self.ongoing("IDLE", "END")
        says(implies(granting, ~c.moving.valid), "a second transfer is sought")
        selects = self.ongoing("LOOK") & ~c.queue.last
        says(
            implies(selects, (kind == Command.GRANT) & ~c.queue.placed_only & ~c.from_background), "a look for nothing"
        )
        says(
            implies(self.ongoing("LOOK") & c.queue.placed_only, (kind == Command.GRANT) & c.queue.last),
            "a look for nothing",
        )
        says(
            implies(self.ongoing("LOOK", "SELECT", "OVERFLOW") & ~c.queue.placed_only, c.queue.waiting != 0),
            "a look at nothing",
        )
        says(implies(self.ongoing("PAUSED"), c.queue.placed_only & ~c.from_background), "a look for another")
        says(implies(self.ongoing("LOOK") & c.queue.placed_only, ~c.from_background), "a look for another")
        says(implies(self.ongoing("SELECT", "OVERFLOW"), ~c.queue.placed_only), "a look for another")


TASKS = (
    Task(
        name="stager",
        what="the stager as a whole: a place is held by one expert, no key is entered twice, who is pinned stays, the "
        "queue never overflows and never loses a demand",
        make=lambda: WholeStager(SHAPE),
        depth=6,
        unbounded=False,
        faults=0,
        quick=False,
    ),
)
