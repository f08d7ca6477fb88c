"""States of the memory of the text: a piece of work is taken up, a token begins, what stands for it, its END."""

from amaranth.hdl import Array, Cat, Const, Mux, Signal

from predictor.row_network.integers import TOKEN_MULTIPLIER
from rtl.prefetch.text.control import TextControl
from rtl.prefetch.text.layouts import bits_for, layer_bits


def take_up(c: TextControl) -> None:
    """The next piece of work, once every write of its slot has been answered."""
    m, job = c.module, c.job
    ready = Signal()
    m.d.comb += ready.eq(c.queue.r_rdy & ~c.writer.pending.bit_select(job.slot, 1))
    with m.State("IDLE"):
        m.d.sync += [
            c.slot.eq(job.slot),
            c.position.eq(c.positions[job.slot]),
            c.sequence.eq(c.sequences[job.slot]),
            c.writes_off.eq(c.off.bit_select(job.slot, 1)),
            c.begins.eq(job.begins),
            c.records.eq(job.records),
            c.failed.eq(0),
        ]
        m.d.comb += c.unpacker.clear.eq(1)
        with m.If(ready):
            with m.If(job.begins):
                m.next = "BEGIN"
            with m.Elif(job.chooses):
                m.next = "CHOICE"
            with m.Else():
                m.next = "RECORD"


def begin(c: TextControl) -> None:
    """A token: its position, and what it is."""
    m, job, limits = c.module, c.job, c.limits
    starts, position = Signal(), Signal(32)
    m.d.comb += [
        starts.eq(job.starts | ~c.begun.bit_select(c.slot, 1)),
        position.eq(Mux(starts, 0, c.position + 1)),
        c.row_in.addr.eq(Cat(position[: (limits.identities_max - 1).bit_length()], c.slot)),
        c.row_in.data.eq(job.row),
    ]
    by_routing = c.settings.by_routing
    with m.State("BEGIN"):
        m.d.comb += [c.row_in.en.eq(1), c.queue.r_en.eq(1)]
        c.tell_token(job.known, job.identity, ~by_routing, position)
        m.d.sync += [
            c.position.eq(position),
            c.positions[c.slot].eq(position),
            c.begun.bit_select(c.slot, 1).eq(1),
        ]
        with m.If(starts):
            m.d.sync += [
                c.sequence.eq(c.sequence + 1),
                c.sequences[c.slot].eq(c.sequence + 1),
                c.off.bit_select(c.slot, 1).eq(0),
                c.writes_off.eq(0),
            ]
        with m.If((c.settings.tables != 0) & ~by_routing):
            m.next = "LOOK_UP"
        with m.Else():
            m.next = "ROW"


def choose(c: TextControl) -> None:
    """By routing: the token that stands for layer 0's choice, an expert at a time."""
    m, scaler = c.module, c.scaler
    chosen, token = Signal.like(c.gate_out.data), Signal(32)
    rank = Signal(bits_for(c.limits.top_k_max - 1))
    experts = Array(chosen.experts[place] for place in range(c.limits.top_k_max))
    with m.State("CHOICE"):
        m.d.comb += [c.gate_out.addr.eq(Cat(Const(0, layer_bits(c.limits)), c.slot))]
        m.d.comb += c.queue.r_en.eq(1)
        m.d.sync += [token.eq(0), rank.eq(0)]
        m.next = "CHOSEN"
    with m.State("CHOSEN"):
        m.d.sync += chosen.eq(c.gate_out.data)
        m.next = "CHOICE_TOLD"
        with m.If(c.gate_out.data.known):
            m.next = "EXPERT"
    with m.State("EXPERT"):
        m.d.comb += [
            scaler.factor.eq(TOKEN_MULTIPLIER),
            scaler.count.eq(experts[rank] + 1),
            scaler.start.eq(1),
        ]
        m.next = "EXPERT_SCALED"
    with m.State("EXPERT_SCALED"), m.If(scaler.done):
        m.d.sync += [token.eq(token ^ scaler.product[:32]), rank.eq(rank + 1)]
        m.next = "CHOICE_TOLD"
        with m.If(rank != c.settings.top_k - 1):
            m.next = "EXPERT"
    with m.State("CHOICE_TOLD"):
        c.tell_token(chosen.known, token, Const(1, 1), c.position)
        m.next = "LOOK_UP"


def end(c: TextControl) -> None:
    """END, once everything has come."""
    m, unpacker = c.module, c.unpacker
    with m.State("END"):
        m.d.comb += unpacker.end.eq(c.reads.idle & unpacker.idle)
        with m.If(unpacker.end_taken):
            m.d.comb += c.text_ends.eq(c.begins)
            m.next = "IDLE"
            with m.If(c.records):
                m.next = "RECORD_AFTER"
    # A model of one layer, by routing: the choice's gate is the last one, too.
    answered = ~c.writer.pending.bit_select(c.slot, 1)
    with m.State("RECORD_AFTER"):
        m.d.sync += c.writes_off.eq(c.off.bit_select(c.slot, 1))
        with m.If(answered):
            m.next = "RECORD_BASE"
