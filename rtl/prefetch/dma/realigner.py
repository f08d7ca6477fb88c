"""The realigner: beats as they lay at the source to beats as they will lie at the destination.

An input beat is rotated by the difference of the two places in a beat; an output beat takes its upper lanes from the
beat that is just rotated and its lower ones from the one before. A step a cycle reads an input beat, as long as there
are some, and gives an output beat; where the first byte's place is lower at the destination than at the source, a step
before the others only reads.

::

    step ─► landing's read ─► rotate ─► merge, strobes ─► output
"""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from rtl.checks import always, always_stable, implies
from rtl.prefetch.dma.layouts import beat_layout, record_layout
from staging.transfer.limits import LENGTH_BITS, TransferLimits

DEPTH = 3
"""Cycles from a step to its output."""


class Realigner(wiring.Component):
    """``landed``, ``take`` and ``taken`` are the landing buffer's; a step waits for the beat that it reads.

    The next record is taken in the cycle of the last step of this one.
    """

    def __init__(self, limits: TransferLimits) -> None:
        self.limits = limits
        super().__init__(
            {
                "records": In(stream.Signature(record_layout(limits))),
                "landed": In(1),
                "take": Out(1),
                "taken": In(8 * limits.data_bytes),
                "beats": Out(stream.Signature(beat_layout(limits))),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        limits, record = self.limits, self.records.payload
        lanes, offset = limits.data_bytes, limits.offset_bits
        count_bits = LENGTH_BITS + 1 - offset
        control = data.StructLayout(
            {"reads": 1, "gives": 1, "first": 1, "last": 1, "shift": offset, "start": offset, "end": offset}
        )
        go = Signal()
        m.d.comb += go.eq(~self.beats.valid | self.beats.ready)

        # Steps.
        reads_left, gives_left = Signal(count_bits), Signal(count_bits)
        ahead, step, steps = Signal(), Signal(control), Signal()
        is_first = Signal()
        m.d.comb += [
            step.reads.eq(reads_left != 0),
            step.gives.eq(~ahead),
            step.first.eq(is_first),
            step.last.eq(gives_left == 1),
            steps.eq(go & (gives_left != 0) & (self.landed | ~step.reads)),
            self.take.eq(steps & step.reads),
            self.records.ready.eq((gives_left == 0) | (steps & step.last & step.gives)),
        ]
        held = Signal(control)
        m.d.comb += [step.shift.eq(held.shift), step.start.eq(held.start), step.end.eq(held.end)]
        with m.If(steps):
            m.d.sync += [reads_left.eq(reads_left - step.reads), gives_left.eq(gives_left - step.gives), ahead.eq(0)]
            m.d.sync += is_first.eq(ahead)
        read_end, give_end = Signal(LENGTH_BITS + 1), Signal(LENGTH_BITS + 1)
        m.d.comb += [
            read_end.eq(record.bytes + record.source + (lanes - 1)),
            give_end.eq(record.bytes + record.destination + (lanes - 1)),
        ]
        with m.If(self.records.valid & self.records.ready):
            m.d.sync += [
                reads_left.eq(read_end >> offset),
                gives_left.eq(give_end >> offset),
                ahead.eq(record.destination < record.source),
                is_first.eq(1),
                held.shift.eq(record.destination - record.source),
                held.start.eq(record.destination),
                held.end.eq(record.destination + record.bytes[:offset]),
            ]

        # The landing buffer's read, then the rotation.
        read, read_valid = Signal(control), Signal()
        rotated, rotated_valid = Signal(8 * lanes), Signal()
        rotated_reads, rotated_gives, upper, strobe = Signal(), Signal(), Signal(lanes), Signal(lanes)
        turned = self.taken
        for level in range(offset):
            by = 8 << level
            turned = Mux(read.shift[level], Cat(turned[-by:], turned[:-by]), turned)
        not_before = [Const((1 << lanes) - (1 << place), lanes) for place in range(lanes)]
        from_start = Mux(read.first, Array(not_before)[read.start], (1 << lanes) - 1)
        to_end = Mux(read.last & (read.end != 0), ~Array(not_before)[read.end], (1 << lanes) - 1)

        # The merge.
        previous = Signal(8 * lanes)
        merged = Cat(
            Mux(upper[lane], rotated.word_select(lane, 8), previous.word_select(lane, 8)) for lane in range(lanes)
        )
        with m.If(go):
            m.d.sync += [read_valid.eq(steps), read.eq(step), rotated_valid.eq(read_valid)]
            with m.If(read_valid):
                m.d.sync += [
                    rotated.eq(turned),
                    rotated_reads.eq(read.reads),
                    rotated_gives.eq(read.gives),
                    upper.eq(Array(not_before)[read.shift]),
                    strobe.eq(from_start & to_end),
                ]
            with m.If(rotated_valid & rotated_reads):
                m.d.sync += previous.eq(rotated)
            m.d.sync += self.beats.valid.eq(rotated_valid & rotated_gives)
            with m.If(rotated_valid & rotated_gives):
                m.d.sync += [self.beats.payload.data.eq(merged), self.beats.payload.strobe.eq(strobe)]

        offered = self.beats.payload.as_value()
        always_stable(m, "realigner_beats", valid=self.beats.valid, ready=self.beats.ready, payload=offered)
        always(m, reads_left <= gives_left + ahead, "realigner: a beat would be left over")
        always(m, implies(ahead, reads_left != 0), "realigner: nothing to read ahead")
        return m
