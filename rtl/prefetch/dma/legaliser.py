"""A run of bytes to bursts of whole beats, one a cycle; the twin is ``staging.transfer.bursts.legalise``."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from rtl.checks import always, always_stable, implies
from rtl.prefetch.dma.layouts import burst_layout, run_layout
from staging.transfer.limits import LENGTH_BITS, TransferLimits


def run_of(limits: TransferLimits, address: Value, length: Value) -> Value:
    """The run (`layouts.run_layout`) of ``length`` bytes from ``address`` on."""
    offset = limits.offset_bits
    end = (length + address[:offset] + (limits.data_bytes - 1))[: LENGTH_BITS + 1]
    return Cat(address[offset:], end[offset:])


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
        beats, to_boundary = Signal(place_bits + 1), Signal(place_bits + 1)
        taken = Signal()
        m.d.comb += [
            beats.eq(length + 1),
            burst.last.eq(last),
            burst.length.eq(length),
            burst.address.eq(Cat(Const(0, offset), beat)),
            self.bursts.valid.eq(valid),
            self.runs.ready.eq(~valid | (last & self.bursts.ready)),
            taken.eq(self.bursts.valid & self.bursts.ready),
        ]

        # Length and end of a burst are in registers: they are known a cycle before it is offered.
        following = left - beats
        ends = following <= whole
        with m.If(taken):
            m.d.sync += [
                beat.eq(beat + beats),
                left.eq(following),
                last.eq(ends),
                length.eq(Mux(ends, following - 1, whole - 1)),
            ]
        # Whoever offers a run may find out late that he does.
        m.d.comb += to_boundary.eq(whole - (run.beat[:place_bits] if place_bits else 0))
        with m.If(self.runs.ready):
            m.d.sync += [
                valid.eq(self.runs.valid),
                beat.eq(run.beat),
                left.eq(run.beats),
                last.eq(run.beats <= to_boundary),
                length.eq(Mux(run.beats <= to_boundary, run.beats, to_boundary) - 1),
            ]
        always(m, implies(self.runs.valid & self.runs.ready, run.beats != 0), "legaliser: an empty run")
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
        return m
