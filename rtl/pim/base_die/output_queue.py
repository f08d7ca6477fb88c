"""The results on their way out: room for them is reserved before they are read back."""

from amaranth.hdl import Module, Mux, ResetInserter, Signal
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from pim_model.unit.parameters import OCTET, UnitParameters
from rtl.bus.axi_stream import AxiStreamSignature
from rtl.checks import always, always_stable, implies

BEAT_BITS = 64
"""Two FP32 of neighbouring rows."""

BEATS_OF_READBACK = OCTET // 2

UNRESERVED = "output queue: a beat for which no room is reserved"
"""A check of the inputs."""

FIFO = "output queue: Amaranth's FIFO is not ready though it is not full"
"""A check of the library."""


def beat_layout() -> data.StructLayout:
    """``data``: even row, odd row; ``keep``: bytes that count; ``last``."""
    return data.StructLayout({"data": BEAT_BITS, "keep": BEAT_BITS // 8, "last": 1})


class OutputQueue(wiring.Component):
    """A queue whose beats have room reserved for them before they are asked for.

    A packet that is cut short ends with a beat of no bytes (TKEEP 0) and TLAST.

    Members:
        reserve: Beats for which room is taken in this clock; at most ``BEATS_OF_READBACK``, and only with ``room``.
        room: There is room for as many.
        push, beat: A beat comes; room was reserved for it.
        flush: Beats in the queue are dropped, and all reservations: none that are reserved will come any more.
        end: If a packet has begun, it ends. Not in the clock of ``flush``, nor with ``push``.
        open: A packet has begun.
        stream: The beats.
        empty: All that came has been taken.
    """

    def __init__(self, parameters: UnitParameters) -> None:
        self._depth = parameters.output_beats
        super().__init__(
            {
                "reserve": In(range(BEATS_OF_READBACK + 1)),
                "room": Out(1),
                "push": In(1),
                "beat": In(beat_layout()),
                "flush": In(1),
                "end": In(1),
                "open": Out(1),
                "stream": Out(AxiStreamSignature(BEAT_BITS, keep=True)),
                "empty": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """The queue, the register behind it that a flush leaves alone, and what is free."""
        m = Module()
        m.submodules.queue = queue = ResetInserter(self.flush)(
            SyncFIFOBuffered(width=beat_layout().size, depth=self._depth)
        )
        stream = self.stream
        free = Signal(range(self._depth + 1), init=self._depth)
        ends = Signal()
        leaves = queue.r_rdy & queue.r_en
        offered = Signal(beat_layout())
        m.d.comb += [
            ends.eq(self.end & self.open),
            queue.w_data.eq(Mux(self.push, self.beat.as_value(), 1 << (beat_layout().size - 1))),
            queue.w_en.eq(self.push | ends),
            queue.r_en.eq(~self.flush & (~stream.tvalid | stream.tready)),
            self.room.eq(free >= BEATS_OF_READBACK),
            self.empty.eq(~queue.r_rdy & (queue.level == 0) & ~stream.tvalid),
            stream.tdata.eq(offered.data),
            stream.tkeep.eq(offered.keep),
            stream.tlast.eq(offered.last),
        ]
        m.d.sync += free.eq(free - self.reserve - ends + leaves)
        with m.If(self.flush):
            m.d.sync += free.eq(self._depth)
        with m.If(leaves):
            m.d.sync += [
                offered.eq(queue.r_data),
                stream.tvalid.eq(1),
                self.open.eq(~data.View(beat_layout(), queue.r_data).last),
            ]
        with m.Elif(stream.tready):
            m.d.sync += stream.tvalid.eq(0)
        coming = Signal(range(self._depth + 1))  # beats that room is reserved for
        m.d.sync += coming.eq(Mux(self.flush, 0, coming + self.reserve - self.push))
        always(m, implies(self.push, coming != 0), UNRESERVED)
        always(m, free + coming + queue.level == self._depth, "output queue: room that is counted wrong")
        comes = self.push | ends
        always(m, implies(comes, queue.level < self._depth), "output queue: a beat that finds no room")
        always(m, implies(comes & (queue.level < self._depth), queue.w_rdy), FIFO)
        always(m, implies(self.reserve != 0, self.room), "output queue: room reserved that is not there")
        always(m, free <= self._depth, "output queue: more room than there is")
        always_stable(m, "output", valid=stream.tvalid, ready=stream.tready, payload=offered.as_value())
        return m
