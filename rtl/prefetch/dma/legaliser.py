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
        beat = Signal(limits.address_bits - offset)  # of the next burst
        left = Signal(LENGTH_BITS + 1 - offset)  # beats
        to_boundary, beats = Signal(place_bits + 1), Signal(place_bits + 1)
        end = Signal(LENGTH_BITS + 1)
        place = beat[:place_bits] if place_bits else Const(0, 1)
        m.d.comb += [
            to_boundary.eq(limits.burst_beats - place),
            burst.last.eq(left <= to_boundary),
            beats.eq(Mux(burst.last, left, to_boundary)),
            burst.length.eq(beats - 1),
            burst.address.eq(Cat(Const(0, offset), beat)),
            self.bursts.valid.eq(left != 0),
            self.runs.ready.eq((left == 0) | (burst.last & self.bursts.ready)),
            end.eq(run.bytes + run.address[:offset] + (limits.data_bytes - 1)),
        ]
        with m.If(self.bursts.valid & self.bursts.ready):
            m.d.sync += [beat.eq(beat + beats), left.eq(left - beats)]
        with m.If(self.runs.valid & self.runs.ready):
            m.d.sync += [beat.eq(run.address >> offset), left.eq(end >> offset)]
        always(m, implies(self.runs.valid & self.runs.ready, run.bytes != 0), "legaliser: an empty run")
        offered = burst.as_value()
        always_stable(m, "legaliser_bursts", valid=self.bursts.valid, ready=self.bursts.ready, payload=offered)
        fits = (beats != 0) & (beats <= limits.burst_beats) & (place + beats <= limits.burst_beats)
        always(m, implies(self.bursts.valid, fits), "legaliser: a burst of no beats, or beyond its boundary")
        ends = burst.last == (left == beats)
        always(m, implies(self.bursts.valid, ends), "legaliser: the wrong burst is said to be the last")
        return m
