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


def _beats(m: Module, writer: Writer) -> None:
    """Beats as the unit gives them: of one burst after the other, none of which crosses 4 KiB; a memory's answers."""
    offers(m, "beats", writer.beats)
    beat, valid = writer.beats.payload, writer.beats.valid
    left = Signal(PAGE_BITS + 1)
    with m.If(valid & writer.beats.ready):
        m.d.sync += left.eq(Mux(beat.first, beat.length, left - 1))
    right = (beat.first == (left == 0)) & (beat.last == Mux(beat.first, beat.length == 0, left == 1))
    always(m, implies(valid, right), "first and last", claim=Assume)
    within = beat.address[:PAGE_BITS] + beat.length < PAGE_BEATS
    always(m, implies(valid & beat.first, within), "4 KiB", claim=Assume)
    always_write_subordinate(m, "memory", writer.bus, outstanding=SMALL.writes, claim=Assume)


def _writes(m: Module, writer: Writer) -> None:
    always_write_manager(m, "text", writer.bus, outstanding=SMALL.writes)


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
        assumptions=_beats,
        claims=_writes,
        depth=3,  # a beat is taken, offered, and waits
        unbounded=False,
        quick=False,
        faults=3,
    ),
)
