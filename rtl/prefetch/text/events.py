"""How the memory of the text takes events: what gates chose is kept, and pieces of work are queued."""

from amaranth.hdl import Cat, Mux, Signal

from rtl.checks import always, implies
from rtl.prefetch.text.control import TextControl
from rtl.prefetch.text.layouts import TextEventKind


def accept_events(c: TextControl) -> None:
    """Keep what gates chose, and queue the pieces of work that events come to."""
    m, unit, settings = c.module, c.unit, c.settings
    event = unit.events.payload
    queue = c.queue
    piece = Signal(c.job.shape())
    is_token, accepted, has_text = Signal(), Signal(), Signal()
    m.d.comb += [
        has_text.eq(settings.tables != 0),
        is_token.eq(event.kind == TextEventKind.TOKEN),
        unit.events.ready.eq(
            queue.w_rdy & Mux(is_token, c.texts_due[event.slot] != 3, ~c.recording.bit_select(event.slot, 1))
        ),
        accepted.eq(unit.events.valid & unit.events.ready),
        piece.begins.eq(is_token),
        piece.chooses.eq(~is_token & has_text & settings.by_routing & (event.layer == 0)),
        piece.records.eq(~is_token & has_text & (event.layer == settings.layers - 1)),
        piece.slot.eq(event.slot),
        piece.starts.eq(event.starts_sequence),
        piece.known.eq(event.known),
        piece.identity.eq(event.identity),
        piece.row.eq(event.row),
        queue.w_data.eq(piece),
        queue.w_en.eq(accepted & (piece.begins | piece.chooses | piece.records)),
        c.job.eq(queue.r_data),
        c.gate_in.addr.eq(Cat(event.layer, event.slot)),
        c.gate_in.data.known.eq(event.known),
        c.gate_in.data.experts.eq(event.experts),
        c.gate_in.en.eq(accepted & ~is_token),
    ]
    with m.If(accepted & piece.records):
        m.d.sync += c.recording.bit_select(event.slot, 1).eq(1)
    for slot, due in enumerate(c.texts_due):
        more = accepted & is_token & (event.slot == slot)
        less = c.text_ends & (c.slot == slot)
        m.d.sync += due.eq(due + more - less)
    due = c.texts_due[event.slot].any()
    m.d.comb += unit.late.eq(accepted & ~is_token & (event.layer == 0) & due)
    always(m, implies(accepted & is_token, c.texts_due[event.slot] != 3), "text: tokens run ahead of their text")
    always(m, implies(unit.events.valid, event.slot < c.limits.slots), "text: a slot that the engine has not")
