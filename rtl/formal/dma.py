"""Proofs of what moves experts: whatever the memories answer, room is reserved and no beat is lost."""

from amaranth.hdl import Assume, Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from typing_extensions import override

from rtl.bus.axi4 import Axi4ReadSignature
from rtl.checks import always, always_within, implies
from rtl.formal.environment import offers
from rtl.formal.task import Task
from rtl.prefetch.dma.landing import Landing
from rtl.prefetch.dma.layouts import SHARE_BITS, SILENCE_BITS, burst_layout
from rtl.prefetch.dma.legaliser import Legaliser
from rtl.prefetch.dma.read_manager import ReadManager
from rtl.prefetch.dma.write_manager import WriteManager
from staging.transfer.limits import TransferLimits

SMALL = TransferLimits(
    data_bytes=2, address_bits=14, burst_beats=4, outstanding=2, landing_beats=8, write_outstanding=2, descriptors=2
)


class Reading(wiring.Component):
    """The read manager with its landing buffer; whoever takes beats takes them when he likes."""

    def __init__(self, limits: TransferLimits) -> None:
        self.limits = limits
        super().__init__(
            {
                "bursts": In(stream.Signature(burst_layout(limits))),
                "outstanding": In(range(limits.outstanding + 1)),
                "share": In(SHARE_BITS),
                "silence": In(SILENCE_BITS),
                "bus": Out(Axi4ReadSignature(8 * limits.data_bytes, limits.address_bits)),
                "wanted": In(1),
                "taken": Out(8 * limits.data_bytes),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.reader = reader = ReadManager(self.limits)
        m.submodules.landing = landing = Landing(self.limits)
        connect(m, flipped(self.bus), reader.bus)
        connect(m, flipped(self.bursts), reader.bursts)
        m.d.comb += [
            reader.outstanding.eq(self.outstanding),
            reader.share.eq(self.share),
            reader.silence.eq(self.silence),
            reader.free.eq(landing.free),
            reader.coming.eq(landing.coming),
            landing.reserve.eq(reader.reserve),
            landing.write.eq(reader.land),
            landing.data.eq(self.bus.rdata),
            landing.skip.eq(reader.skip),
            landing.take.eq(self.wanted & landing.landed),
            self.taken.eq(landing.taken),
        ]
        return m


def _runs(m: Module, legaliser: Legaliser) -> None:
    """A run that is offered stays, and ends within the address space."""
    offers(m, "runs", legaliser.runs)
    run = legaliser.runs.payload
    within = run.beat + run.beats <= 1 << (SMALL.address_bits - SMALL.offset_bits)
    always(m, implies(legaliser.runs.valid, within), "a run beyond the address space", claim=Assume)


def _bursts(m: Module, reading: Reading | WriteManager) -> None:
    """Bursts as the legaliser makes them."""
    offers(m, "bursts", reading.bursts)
    burst, valid = reading.bursts.payload, reading.bursts.valid
    place = burst.address[1:3]
    legal = (burst.address[0] == 0) & (burst.length < SMALL.burst_beats) & (place + burst.length < SMALL.burst_beats)
    always(m, implies(valid, legal), "bursts", claim=Assume)


def _reading(m: Module, reading: Reading) -> None:
    """The registers are in range; the memory answers whatever it likes, whenever."""
    _bursts(m, reading)
    always_within(m, reading.outstanding, 0, SMALL.outstanding, "outstanding", claim=Assume)


def _writing(m: Module, writer: WriteManager) -> None:
    """Beats stay until they are taken; the memory answers whatever it likes, whenever."""
    _bursts(m, writer)
    offers(m, "beats", writer.beats)


TASKS = (
    Task(
        name="dma-legaliser",
        what="DMA's legaliser: bursts stay until taken, have beats, cross no boundary; the last is said to be it",
        make=lambda: Legaliser(SMALL),
        assumptions=_runs,
        given=("legaliser: an empty run",),
        depth=4,
    ),
    Task(
        name="dma-reading",
        what="DMA's read manager and landing buffer, whatever the memory answers: AR's handshake, legal bursts; room "
        "is reserved for each beat that is to come, never less than none, never beyond the buffer",
        make=lambda: Reading(SMALL),
        assumptions=_reading,
        given=("read manager: share",),
        depth=5,
    ),
    Task(
        name="dma-writing",
        what="DMA's write manager, whatever the memory answers: handshakes of AW and W, wlast, bursts in order",
        make=lambda: WriteManager(SMALL),
        assumptions=_writing,
        depth=5,
    ),
)
