"""The read manager: bursts asked for ahead of their data, and what the memory does wrong.

A burst is asked for when room to land it is reserved, fewer than ``outstanding`` are under way and the share allows it;
so ``rready`` is always 1, and the memory never waits.

**Errors** end no burst early: beats are counted, and each burst lands as many as were asked for. A wrong RLAST leaves
it open what the memory sends next. Then nothing more is asked for, and what comes is thrown away, until nothing has
come for ``silence`` cycles; all bursts under way then count as landed, with that error. The same happens if nothing
comes for ``silence`` cycles while something is asked for. So ``silence`` must exceed the memory's longest pause: beats
later than that would be taken for others'. What nobody can notice in time: a memory that loses beats, says nothing, and
then gives the last beat of the next burst where the lost burst's last is due.
"""

from amaranth.hdl import Module, Mux, Signal, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from rtl.bus.axi4 import Axi4ReadSignature, always_read_manager
from rtl.bus.axi_lite import Response
from rtl.checks import always, always_within, exactly_one, implies
from rtl.prefetch.dma.burst_queue import BurstQueue
from rtl.prefetch.dma.layouts import SHARE_BITS, SILENCE_BITS, burst_layout, error_layout
from staging.transfer.limits import FULL_SHARE, TransferError, TransferLimits


class ReadManager(wiring.Component):
    """See the module's description.

    A burst that is taken in one cycle is on AR in the next. ``error`` names the descriptor by number: descriptors are
    numbered as they come, modulo ``descriptors``, and a burst with ``last`` ends one. ``stray``: a beat came that
    nobody had asked for. ``room``: the longest burst might be asked for. ``reserve``, ``free``, ``coming``, ``land``
    and ``skip`` are the landing buffer's.
    """

    def __init__(self, limits: TransferLimits) -> None:
        self.limits = limits
        beats = range(limits.burst_beats + 1)
        super().__init__(
            {
                "bursts": In(stream.Signature(burst_layout(limits))),
                "outstanding": In(range(limits.outstanding + 1)),
                "share": In(SHARE_BITS),
                "silence": In(SILENCE_BITS),
                "bus": Out(Axi4ReadSignature(8 * limits.data_bytes, limits.address_bits)),
                "reserve": Out(beats),
                "free": In(range(limits.landing_beats + 1)),
                "coming": In(range(limits.landing_beats + 1)),
                "land": Out(1),
                "skip": Out(beats),
                "error": Out(error_layout(limits)),
                "stray": Out(1),
                "waiting": Out(1),
                "room": Out(1),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        limits, bus, burst = self.limits, self.bus, self.bursts.payload
        m.submodules.under_way = under_way = BurstQueue(limits.outstanding, limits.burst_beats)
        length, last_of_run = under_way.oldest.length, under_way.oldest.last
        asked = Signal(range(limits.outstanding + 1))  # bursts whose address was taken and that are not over
        beat, slot = Signal(8), Signal(range(max(2, limits.descriptors)))
        quiet = Signal(SILENCE_BITS)
        debt = Signal(range(FULL_SHARE * (limits.burst_beats + 1)))  # beats asked for beyond the share, in 256ths

        # Asking.
        beats = Signal(range(limits.burst_beats + 1))
        m.d.comb += beats.eq(burst.length + 1)
        may_ask, taken = Signal(), Signal()
        within_share = (self.share == FULL_SHARE) | (debt < FULL_SHARE)
        few = under_way.level < self.outstanding
        room = few & (self.free > burst.length)
        m.d.comb += [
            self.room.eq(few & within_share & (self.free >= limits.burst_beats)),
            self.bursts.ready.eq(may_ask & room & within_share & (~bus.arvalid | bus.arready)),
            taken.eq(self.bursts.valid & self.bursts.ready),
            self.reserve.eq(Mux(taken, beats, 0)),
            under_way.push.eq(taken),
            under_way.entry.length.eq(burst.length),
            under_way.entry.last.eq(burst.last),
            bus.rready.eq(1),
        ]
        with m.If(bus.arready):
            m.d.sync += bus.arvalid.eq(0)
        with m.If(taken):
            m.d.sync += [bus.arvalid.eq(1), bus.araddr.eq(burst.address), bus.arlen.eq(burst.length)]
        paid = Mux(debt > self.share, debt - self.share, 0)
        m.d.sync += debt.eq(paid + Mux(taken, beats << 8, 0))

        # Landing.
        addressed, over, ends = bus.arvalid & bus.arready, Signal(), Signal()
        m.d.sync += asked.eq(asked + addressed - over)
        m.d.comb += [
            ends.eq(beat == length),
            under_way.pop.eq(over),
            self.waiting.eq(asked != 0),
            self.error.slot.eq(slot),
            self.stray.eq(bus.rvalid & (asked == 0)),
        ]
        with m.If(over):
            m.d.sync += beat.eq(0)
            with m.If(last_of_run):
                m.d.sync += slot.eq(Mux(slot == limits.descriptors - 1, 0, slot + 1))
        misplaced, refused = bus.rlast != ends, Value.cast(bus.rresp)[1]
        code = Mux(
            refused,
            Mux(Value.cast(bus.rresp) == Response.DECERR, TransferError.READ_DECERR, TransferError.READ_SLVERR),
            TransferError.READ_LAST,
        )
        lost_code = Signal(unsigned(len(self.error.code)))
        with m.FSM() as fsm:
            with m.State("RUN"):
                m.d.comb += may_ask.eq(1)
                with m.If(asked == 0):
                    m.d.sync += quiet.eq(0)
                with m.Elif(bus.rvalid):
                    m.d.comb += [self.land.eq(1), over.eq(ends)]
                    m.d.comb += [self.error.valid.eq(refused | misplaced), self.error.code.eq(code)]
                    m.d.sync += quiet.eq(0)
                    with m.If(~ends):
                        m.d.sync += beat.eq(beat + 1)
                    with m.If(misplaced):
                        m.d.sync += lost_code.eq(TransferError.READ_LAST)
                        m.next = "DRAIN"
                with m.Else():
                    m.d.sync += quiet.eq(quiet + 1)
                    with m.If(quiet >= self.silence):
                        m.d.sync += lost_code.eq(TransferError.READ_SILENCE)
                        m.next = "DRAIN"
            with m.State("DRAIN"):
                with m.If(bus.rvalid | bus.arvalid):
                    m.d.sync += quiet.eq(0)
                with m.Elif(quiet < self.silence):
                    m.d.sync += quiet.eq(quiet + 1)
                with m.Else():
                    m.next = "GIVE UP"
            with m.State("GIVE UP"):
                with m.If(under_way.level != 0):
                    m.d.comb += [over.eq(1), self.skip.eq(length - beat + 1)]
                    m.d.comb += [self.error.valid.eq(1), self.error.code.eq(lost_code)]
                with m.Else():
                    m.d.sync += quiet.eq(0)
                    m.next = "RUN"

        states = [fsm.ongoing(state) for state in ("RUN", "DRAIN", "GIVE UP")]
        always(m, exactly_one(states), "read manager: not in one state")
        always_read_manager(m, "read", bus)
        always(m, under_way.level == asked + bus.arvalid, "read manager: a burst under way is lost, or there twice")
        always(m, implies(asked != 0, beat <= length), "read manager: beats beyond a burst's end")
        always(m, implies(asked == 0, beat == 0), "read manager: beats of no burst")
        always(m, implies(fsm.ongoing("GIVE UP"), ~bus.arvalid), "read manager: a burst is given up and asked for")
        always(m, under_way.beats == self.coming + beat, "read manager: room is not reserved for just what is to come")
        always_within(m, self.share, 1, FULL_SHARE, "read manager: share")
        return m
