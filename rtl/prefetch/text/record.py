"""States of the memory of the text: the record of a token that ended is put together and written."""

from amaranth.hdl import Array, Cat, Const, Mux, Signal

from predictor.row_network.integers import BEAT_BYTES
from predictor.row_network.text_traffic import PAGE_BEATS
from rtl.prefetch.text.bursts import PAGE_BITS
from rtl.prefetch.text.control import TextControl
from rtl.prefetch.text.layouts import BEAT_BITS, bits_for, layer_bits


def record(c: TextControl) -> None:
    """The record of a token that ended, an id a cycle."""
    m, settings, scaler, limits = c.module, c.settings, c.scaler, c.limits
    layer, rank = Signal(layer_bits(limits)), Signal(bits_for(limits.top_k_max - 1))
    left, length = Signal(settings.record_beats.shape()), Signal(range(PAGE_BEATS + 1))
    address, in_burst = Signal(c.address_bits), Signal(range(PAGE_BEATS + 1))
    beat, held, gate = Signal(BEAT_BITS), Signal(range(BEAT_BYTES)), Signal.like(c.gate_out.data)
    room = Signal(range(PAGE_BEATS + 1))
    expert = Signal(16)
    experts = Array(gate.experts[place] for place in range(limits.top_k_max))
    log_mask = Signal(32)
    step = Mux(settings.wide_ids, 2, 1)
    last_id, full = Signal(), Signal()
    m.d.comb += [
        log_mask.eq((1 << settings.log2_log) - 1),
        room.eq(PAGE_BEATS - address[:PAGE_BITS]),
        length.eq(Mux(left < room, left, room)),
        expert.eq(Mux(gate.known, experts[rank], 0xFFFF)),
        last_id.eq((rank == settings.top_k - 1) & (layer == settings.layers - 1)),
        full.eq(held == BEAT_BYTES - step),
    ]
    with m.State("RECORD"):
        m.d.comb += c.queue.r_en.eq(1)
        m.next = "RECORD_BASE"
    with m.State("RECORD_BASE"):
        m.d.comb += [
            scaler.factor.eq(settings.text_stride),
            scaler.count.eq(c.slot),
            scaler.start.eq(1),
        ]
        m.d.sync += [
            layer.eq(0),
            rank.eq(0),
            held.eq(0),
            beat.eq(0),
            in_burst.eq(0),
            left.eq(settings.record_beats),
        ]
        m.next = "RECORD_SLOT"
        with m.If(c.writes_off):
            m.d.sync += c.recording.bit_select(c.slot, 1).eq(0)
            m.next = "IDLE"
    with m.State("RECORD_SLOT"), m.If(scaler.done):
        m.d.comb += [
            scaler.factor.eq(c.position & log_mask),
            scaler.count.eq(settings.record_beats),
            scaler.start.eq(1),
        ]
        m.d.sync += c.log_base.eq(settings.text_base + scaler.product + c.log_offset)
        m.next = "RECORD_NUMBER"
    with m.State("RECORD_NUMBER"), m.If(scaler.done):
        m.d.sync += address.eq(c.log_base + scaler.product)
        m.next = "RECORD_LAYER"
    with m.State("RECORD_LAYER"):
        m.d.comb += c.gate_out.addr.eq(Cat(layer, c.slot))
        m.next = "RECORD_LOAD"
    with m.State("RECORD_LOAD"):
        m.d.sync += gate.eq(c.gate_out.data)
        m.next = "RECORD_ID"
    with m.State("RECORD_ID"):
        with m.If(settings.wide_ids):
            m.d.sync += beat.word_select(held >> 1, 16).eq(expert)
        with m.Else():
            m.d.sync += beat.word_select(held, 8).eq(expert)
        m.d.sync += [held.eq(held + step), rank.eq(rank + 1)]
        with m.If(rank == settings.top_k - 1):
            m.d.sync += [rank.eq(0), layer.eq(layer + 1)]
            m.next = "RECORD_LAYER"
        with m.If(last_id | full):
            m.next = "RECORD_BEAT"
    resume = Signal()
    m.d.comb += resume.eq(rank != 0)
    write = c.writer.beats
    with m.State("RECORD_BEAT"):
        begins = in_burst == 0
        m.d.comb += [
            write.valid.eq(1),
            write.payload.slot.eq(c.slot),
            write.payload.first.eq(begins),
            write.payload.last.eq(Mux(begins, length == 1, in_burst == 1)),
            write.payload.address.eq(address),
            write.payload.length.eq(length - 1),
            write.payload.data.eq(beat),
            write.payload.strobe.eq(Const((1 << BEAT_BYTES) - 1, BEAT_BYTES)),
        ]
        with m.If(write.ready):
            m.d.sync += [
                in_burst.eq(Mux(begins, length, in_burst) - 1),
                address.eq(address + 1),
                left.eq(left - 1),
                beat.eq(0),
                held.eq(0),
            ]
            m.next = "RECORD_LAYER"
            with m.If(left == 1):
                m.d.sync += c.recording.bit_select(c.slot, 1).eq(0)
                m.next = "IDLE"
            with m.Elif(resume):
                m.next = "RECORD_ID"
