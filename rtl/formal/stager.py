"""Proofs of the stager's parts, at small sizes: who gives way, which places are free, what waits.

``rtl.formal.stager_whole`` proves of the whole what it does with whatever these find.
"""

from amaranth.hdl import Assume, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data

from rtl.checks import always, always_kept, always_within, implies
from rtl.formal.proof import Method
from rtl.formal.task import Task
from rtl.prefetch.stager.layouts import StagerShape
from rtl.prefetch.stager.places import FreePlaces
from rtl.prefetch.stager.queue import TransferQueue
from rtl.prefetch.stager.scan import DirectoryScan
from staging.stager.cycles import look_cycles
from staging.stager.directory import Status
from staging.stager.limits import StagerLimits

SMALL = StagerShape(
    limits=StagerLimits(
        layers=1, experts=4, places=3, spare=1, queue_depth=2, sequence_slots=2, event_experts=1,
        value_bits=2, scale_bits=1, stamp_bits=2, deadline_bits=2, lanes=2,
    ),
    named_experts=1,
)  # fmt: skip


def _queue_inputs(m: Module, queue: TransferQueue) -> None:
    """A key is shown in the cycle before something is done with it, in which nothing else is."""
    changes, changed = Signal(), Signal()
    m.d.comb += changes.eq(queue.append | queue.remove | queue.update | queue.demote | queue.clear)
    m.d.sync += changed.eq(changes)
    always(m, implies(changes, ~changed), "two changes in a row", claim=Assume)
    shown = Signal.like(queue.key.as_value())
    m.d.sync += shown.eq(queue.key)
    always(m, implies(changes, queue.key.as_value() == shown), "the key is another", claim=Assume)


def _queue_claims(m: Module, queue: TransferQueue) -> None:
    """No key is in the queue twice."""
    slots = SMALL.limits.queue_depth + 1
    for at in range(slots):
        for later in range(at + 1, slots):
            same = queue.entries[at].key == queue.entries[later].key
            always(m, implies(queue.waiting > later, ~same), f"entries {at} and {later} are of one key")
    _queue_look(m, queue)


def _queue_look(m: Module, queue: TransferQueue) -> None:
    """What a look finds in a queue that was still: one that it may, a demand first, or with ``last`` the others."""
    slots = SMALL.limits.queue_depth + 1
    now = Cat(queue.entries.as_value(), queue.waiting, queue.last, queue.placed_only, queue.by_layer, queue.layer)
    still: Value = Const(1, 1)
    before: Value = now
    for age in range(look_cycles(SMALL.limits.queue_depth)):
        kept = Signal(len(now), name=f"looked_at{age}")
        m.d.sync += kept.eq(before)
        still, before = still & (kept == now), kept
    found = queue.found
    may, is_it, demanded = [], [], []
    for at in range(slots):
        entry = queue.entries[at]
        of_group = ~queue.by_layer | (entry.key.layer == queue.layer)
        fits = ~queue.placed_only | (~entry.demanded & entry.placed & of_group)
        may.append((queue.waiting > at) & fits)
        is_it.append(may[at] & (found.entry.as_value() == entry.as_value()))
        demanded.append(may[at] & (entry.demanded ^ queue.last))
    always(m, implies(still, found.valid == Cat(may).any()), "a look finds what is not there, or overlooks it")
    always(m, implies(still & found.valid, Cat(is_it).any()), "a look finds another")
    first = found.entry.demanded ^ queue.last
    always(m, implies(still & Cat(demanded).any(), first), "a look finds a demand too late, or too early")


def _scan_inputs(m: Module, scan: DirectoryScan) -> None:
    """One scan; what was read, each word once, is kept beside it."""
    lanes, words = SMALL.limits.lanes, SMALL.words
    shown = Cat(scan.entries.as_value(), scan.values.as_value())
    contents = Signal(data.ArrayLayout(shown.shape(), words))
    was_read, word = Signal(), Signal(SMALL.word_bits)
    m.d.sync += [was_read.eq(scan.read), word.eq(scan.read_word)]
    with m.If(was_read):
        m.d.sync += contents[word].eq(shown)
    settings = Cat(scan.now, scan.stamps, scan.by_recency)
    first = Signal(init=1)
    m.d.sync += first.eq(0)
    always_kept(m, "settings", settings, where=Const(1, 1), claim=Assume)
    always(m, scan.start == first, "one scan, at once", claim=Assume)
    always(m, (scan.first == 0) & (scan.last == 0), "one layer", claim=Assume)
    most = Signal()
    with m.If(scan.start):
        m.d.sync += most.eq(scan.most)
    always(m, scan.experts == words * lanes, "all experts", claim=Assume)
    ended = Signal()
    m.d.sync += ended.eq(scan.finishing)
    entry_bits = len(scan.entries[0].as_value())
    for key in range(words * lanes):
        bits = contents[key // lanes]
        entry = data.View(scan.entries[0].shape(), bits[(key % lanes) * entry_bits :][:entry_bits])
        value_at = lanes * entry_bits + (key % lanes) * SMALL.time_bits
        value = bits[value_at : value_at + SMALL.time_bits].as_signed()
        worth = value + Mux(entry.deadline > scan.now, entry.chance, 0)
        gives_way = (entry.status == Status.RESIDENT) & (entry.pins == 0) & ~entry.fixed
        may = Mux(most, entry.status == Status.ABSENT, gives_way)
        found = scan.found
        is_it = found.valid & (found.key.expert == key)
        always(m, implies(ended & is_it, may & (found.worth == worth)), f"scan: {key} is found, and may not be")
        best = found.valid & Mux(most, found.worth >= worth, found.worth <= worth)
        always(m, implies(ended & may, best), f"scan: {key} is better, and is not found")


def _places_inputs(m: Module, places: FreePlaces) -> None:
    """All are free at first; then every four cycles one is taken, or one that is taken is given back."""
    phase, begun = Signal(2), Signal()
    m.d.sync += phase.eq(phase + 1)
    with m.If(places.clear):
        m.d.sync += [begun.eq(1), phase.eq(0)]
    always(m, places.clear == ~begun, "first", claim=Assume)
    always(m, implies(places.clear, places.clear_word == 0), "the word", claim=Assume)
    always(m, places.find == (begun & (phase == 0)), "when it is found", claim=Assume)
    acts = begun & (phase == 3)
    always(m, implies(places.take | places.give, acts & ~(places.take & places.give)), "when", claim=Assume)
    shown = Signal.like(places.place)
    m.d.sync += shown.eq(places.place)
    always(m, implies(places.give, places.place == shown), "shown before", claim=Assume)
    held = Signal(SMALL.all_places)
    always(m, implies(places.give, (places.place < SMALL.all_places) & (held >> places.place)[0]), "held", claim=Assume)
    always(m, implies(places.take, ~held.all()), "one is free", claim=Assume)
    with m.If(places.take):
        m.d.sync += held.bit_select(places.lowest, 1).eq(1)
    with m.If(places.give):
        m.d.sync += held.bit_select(places.place, 1).eq(0)
    always_within(m, places.lowest, 0, SMALL.all_places - 1, "places: one that is not", where=places.take)
    always(m, implies(places.take, ~(held >> places.lowest)[0]), "places: one is given to a second expert")
    below = Cat(held[at] | (places.lowest <= at) for at in range(SMALL.all_places))
    always(m, implies(places.take, below.all()), "places: a lower one is free")


TASKS = (
    Task(
        name="stager-queue",
        what="stager's queue: no key waits twice; it never holds more than one too many; a look finds who may be found",
        make=lambda: TransferQueue(SMALL),
        assumptions=_queue_inputs,
        claims=_queue_claims,
        given=("queue: a key that waits is entered", "queue: one too many is entered"),
        depth=6,
    ),
    Task(
        name="stager-scan",
        what="stager's scan: who gives way is resident, not pinned, not fixed, and of least worth; who is wanted is "
        "absent, and of most",
        make=lambda: DirectoryScan(SMALL),
        assumptions=_scan_inputs,
        depth=9,  # a scan of two words of two lanes takes six cycles
        method=Method.REACHABILITY,
        quick=False,
    ),
    Task(
        name="stager-places",
        what="stager's free places: the lowest first, and none is given to two experts",
        make=lambda: FreePlaces(SMALL),
        assumptions=_places_inputs,
        depth=14,  # three are taken or given back
        method=Method.REACHABILITY,
        quick=False,
    ),
)
