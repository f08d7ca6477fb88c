"""The memory of the text: looks up, reads and writes what `predictor.row_network.text_traffic` says, for all slots."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.text_traffic import TextLimits
from rtl.bus.axi4 import Axi4Signature
from rtl.checks import always, implies
from rtl.prefetch.text.control import TextControl
from rtl.prefetch.text.entries import look_up, write_entries
from rtl.prefetch.text.events import accept_events
from rtl.prefetch.text.layouts import BEAT_BITS, item_layout, text_event_layout, text_settings_layout
from rtl.prefetch.text.reads import read_identity, read_records
from rtl.prefetch.text.record import record
from rtl.prefetch.text.tokens import begin, choose, end, take_up


class TextUnit(wiring.Component):
    """Events in, items for the net out; far memory over one AXI4 port.

    Events are accepted as they come, a gate in one cycle, unless 4 a slot wait, or the slot's record is still to be
    written. They become pieces of work, done in their order: a token's beginning (which gives its text, then END), by
    routing layer 0's choice (likewise), and after the last layer's gate the token's record. A piece of work begins once
    every write of its slot has been answered. Their cycles are `predictor.row_network.text_cycles`.

    ``settings`` and ``forget`` may change while not ``busy`` alone; ``forget``: every slot's next token begins a
    sequence. ``late``: a layer-0 gate is accepted before its token's END is offered to the net.
    ``read_failed`` and ``write_failed``: a beat read, a burst written, failed in this cycle.
    """

    def __init__(self, limits: TextLimits) -> None:
        self.limits = limits
        super().__init__(
            {
                "settings": In(text_settings_layout(limits)),
                "forget": In(1),
                "events": In(stream.Signature(text_event_layout(limits))),
                "items": Out(stream.Signature(item_layout(limits))),
                "memory": Out(Axi4Signature(BEAT_BITS, limits.address_bits)),
                "busy": Out(1),
                "late": Out(1),
                "read_failed": Out(1),
                "write_failed": Out(1),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        control = TextControl(self, self.limits)
        accept_events(control)
        _states(control)
        return control.module


def _states(c: TextControl) -> None:
    """The state machine."""
    m, unit, limits = c.module, c.unit, c.limits
    with m.FSM() as fsm:
        take_up(c)
        begin(c)
        choose(c)
        look_up(c)
        read_identity(c)
        write_entries(c)
        read_records(c)
        end(c)
        record(c)
    m.d.comb += unit.busy.eq(~fsm.ongoing("IDLE") | c.queue.r_rdy | c.writer.pending.any())
    with m.If(unit.forget):
        m.d.sync += c.begun.eq(0)
    for slot in range(limits.slots):
        with m.If(c.writer.failed[slot]):
            m.d.sync += c.off[slot].eq(1)
    always(m, implies(unit.forget, ~unit.busy), "text: sequences are forgotten while one is in work")
