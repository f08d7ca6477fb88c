"""A run of bytes to bursts of whole beats, one a cycle; the twin is ``staging.transfer.bursts.legalise``."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from rtl.checks import always, always_stable, implies
from rtl.prefetch.dma.layouts import burst_layout, run_layout
from staging.transfer.limits import LENGTH_BITS, TransferLimits


class Legaliser(wiring.Component):
    """Takes the next run in the cycle that takes the last burst of this one; its first burst is offered a cycle later.

    A run must not be empty, nor reach beyond the address space.
    """

    def __init__(self, limits: TransferLimits) -> None:
        self.limits = limits
        super().__init__(
            {
                "runs": In(stream.Signature(run_layout(limits))),
                "bursts": Out(stream.Signature(burst_layout(limits))),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        limits, run, burst = self.limits, self.runs.payload, self.bursts.payload
        offset = limits.offset_bits
        place_bits = (limits.burst_beats - 1).bit_length()
        whole = limits.burst_beats
        beat = Signal(limits.address_bits - offset)  # of the burst that is offered
        left = Signal(LENGTH_BITS + 1 - offset)  # beats, those of this burst among them
        valid, length, last = Signal(), Signal(place_bits + 1), Signal()
        beats, to_boundary, end = Signal(place_bits + 1), Signal(place_bits + 1), Signal(LENGTH_BITS + 1)
        taken, begins = Signal(), Signal()
        m.d.comb += [
            beats.eq(length + 1),
            burst.last.eq(last),
            burst.length.eq(length),
            burst.address.eq(Cat(Const(0, offset), beat)),
            self.bursts.valid.eq(valid),
            self.runs.ready.eq(~valid | (last & self.bursts.ready)),
            taken.eq(self.bursts.valid & self.bursts.ready),
            begins.eq(self.runs.valid & self.runs.ready),
        ]

        # Length and end of a burst are in registers: they are known a cycle before it is offered.
        following = left - beats
        ends = following <= whole
        with m.If(taken):
            m.d.sync += [
                valid.eq(~last),
                beat.eq(beat + beats),
                left.eq(following),
                last.eq(ends),
                length.eq(Mux(ends, following - 1, whole - 1)),
            ]
        first_place = run.address[offset:][:place_bits] if place_bits else Const(0, 1)
        total = end >> offset
        m.d.comb += [
            end.eq(run.bytes + run.address[:offset] + (limits.data_bytes - 1)),
            to_boundary.eq(whole - first_place),
        ]
        with m.If(begins):
            m.d.sync += [
                valid.eq(1),
                beat.eq(run.address >> offset),
                left.eq(total),
                last.eq(total <= to_boundary),
                length.eq(Mux(total <= to_boundary, total, to_boundary) - 1),
            ]
        always(m, implies(begins, run.bytes != 0), "legaliser: an empty run")
        offered = burst.as_value()
        always_stable(m, "legaliser_bursts", valid=self.bursts.valid, ready=self.bursts.ready, payload=offered)
        place = beat[:place_bits] if place_bits else Const(0, 1)
        fits = (beats != 0) & (beats <= whole) & (place + beats <= whole)
        always(m, implies(valid, fits), "legaliser: a burst of no beats, or beyond its boundary")
        always(m, implies(valid, last == (left == beats)), "legaliser: the wrong burst is said to be the last")
        longest = last | (place + beats == whole)
        always(
            m, implies(valid, longest & (beats <= left)), "legaliser: a burst that ends before its boundary, or late"
        )
        always(m, valid == (left != 0), "legaliser: beats are left and none offered, or the reverse")
        return m
