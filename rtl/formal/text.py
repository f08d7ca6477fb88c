"""Proofs of what reads and writes the memory of the text: handshakes, and bursts that end at 4 KiB."""

from amaranth.hdl import Assume, Cat, Module, Mux, Signal
from amaranth.lib import data

from predictor.row_network.text_traffic import PAGE_BEATS, TextLimits
from rtl.bus.axi4 import always_write_manager, always_write_subordinate
from rtl.checks import always, always_stable, implies
from rtl.formal.environment import offers
from rtl.formal.task import Task
from rtl.prefetch.text.bursts import PAGE_BITS, BurstMaker
from rtl.prefetch.text.layouts import BEAT_SHIFT
from rtl.prefetch.text.writer import Writer

SMALL = TextLimits(slots=2, writes=2)
TAG = data.StructLayout({"of": 1})


def _transfers(m: Module, reads: BurstMaker) -> None:
    """Transfers stay until they are taken, and have beats."""
    offers(m, "transfers", reads.transfers)
    always(m, implies(reads.transfers.valid, reads.transfers.payload.beats != 0), "an empty transfer", claim=Assume)


def _bursts(m: Module, reads: BurstMaker) -> None:
    """Addresses stay until they are taken; no burst crosses 4 KiB, whether it is offered yet or not."""
    asked = Cat(reads.araddr, reads.arlen)
    always_stable(m, "text_ar", valid=reads.arvalid, ready=reads.arready, payload=asked)
    begins = reads.araddr[BEAT_SHIFT:][:PAGE_BITS]
    within = begins + reads.arlen < PAGE_BEATS
    in_work = reads.arvalid | ~reads.transfers.ready
    always(m, implies(in_work, within), "text_ar: a burst crosses 4 KiB, or has no beat")
    always(m, implies(in_work, reads.araddr[:BEAT_SHIFT] == 0), "text_ar: the address is not a whole beat's")
    always(m, implies(reads.arvalid, ~reads.idle), "text_ar: it asks and says that it does not")


def _writes(m: Module, writer: Writer) -> None:
    """The bus's rules, where beats come as the unit gives them: burst after burst, none of which crosses 4 KiB."""
    bus = writer.bus
    left = _beats(m, writer)
    asked, given = always_write_subordinate(m, "memory", bus, outstanding=SMALL.writes, claim=Assume)
    tracker = always_write_manager(m, "text", bus, outstanding=SMALL.writes)
    # What the states have in common: one burst has beats that are not taken; its address is offered with its first.
    seen = tracker.count.any()
    length = Mux(seen, tracker.length, bus.awlen)
    in_work = bus.wvalid | (left != 0)
    always(m, tracker.count + tracker.begins <= 1, "text: two bursts have beats to give")
    always(m, implies(in_work, seen | tracker.begins), "text: beats of no burst")
    always(m, implies(seen, in_work), "text: a burst without beats")
    always(m, implies(in_work, tracker.beat + bus.wvalid + left == length + 1), "text: beats are lost, or come twice")
    always(m, implies(bus.wvalid, bus.wlast == (left == 0)), "text: wlast, and beats are to come")
    always(m, implies(~in_work, tracker.beat == 0), "text: beats are counted of no burst")
    always(m, writer.slots.level == bus.awvalid + asked, "text: bursts are not known that are not answered")
    always(m, writer.slots.level == in_work + given, "text: bursts are known that are answered")


def _beats(m: Module, writer: Writer) -> Signal:
    """Assume the rules of the beats; returns how many of the burst are to come."""
    offers(m, "beats", writer.beats)
    beat, valid = writer.beats.payload, writer.beats.valid
    left = Signal(PAGE_BITS + 1)
    with m.If(valid & writer.beats.ready):
        m.d.sync += left.eq(Mux(beat.first, beat.length, left - 1))
    right = (beat.first == (left == 0)) & (beat.last == Mux(beat.first, beat.length == 0, left == 1))
    always(m, implies(valid, right), "first and last", claim=Assume)
    within = beat.address[:PAGE_BITS] + beat.length < PAGE_BEATS
    always(m, implies(valid & beat.first, within), "4 KiB", claim=Assume)
    return left


TASKS = (
    Task(
        name="text-reads",
        what="the text's reads: addresses stay, no burst crosses 4 KiB",
        make=lambda: BurstMaker(9, 8, TAG, 2),
        assumptions=_transfers,
        claims=_bursts,
        depth=4,
    ),
    Task(
        name="text-writes",
        what="the text's writes: handshakes of AW and W, wlast, bursts in order, none across 4 KiB",
        make=lambda: Writer(SMALL),
        claims=_writes,
        depth=3,  # a beat is taken, offered, and waits
        quick=False,
    ),
)
