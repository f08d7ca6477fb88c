"""States of the memory of the text: what is read for a token, identity rows and records of the log."""

from amaranth.hdl import Array, Const, Mux, Signal

from rtl.prefetch.text.control import TextControl
from rtl.prefetch.text.layouts import ROW_BITS, ItemKind, index_bits

NO_ROW = Const((1 << ROW_BITS) - 1, ROW_BITS)


def read_identity(c: TextControl) -> None:
    """The rows of this token's identity and of those before it, one block for each age."""
    m, settings, scaler, limits = c.module, c.settings, c.scaler, c.limits
    age = Signal(range(limits.identities_max + 1))
    offset, size = Signal(c.address_bits), Signal(range(limits.layers_max * limits.row_beats_max + 1))
    m.d.sync += size.eq(settings.layers * settings.row_beats)
    transfer = c.reads.transfers
    with m.State("ROW"):
        m.d.comb += c.row_out.addr.eq(c.ring(limits.identities_max, age))
        m.next = "ROW_KNOWN"
        with m.If((age == settings.identities) | (age > c.position)):
            m.d.sync += [age.eq(0), offset.eq(0)]
            m.next = "MATCH"
    with m.State("ROW_KNOWN"):
        m.d.comb += [
            scaler.factor.eq(settings.identity_stride),
            scaler.count.eq(c.row_out.data),
            scaler.start.eq(1),
        ]
        m.next = "READ_ROW"
        with m.If(c.row_out.data == NO_ROW):
            m.d.sync += [age.eq(age + 1), offset.eq(offset + size)]
            m.next = "ROW"
    with m.State("READ_ROW"):
        m.d.comb += [
            transfer.valid.eq(scaler.done),
            transfer.payload.address.eq(settings.identity_base + scaler.product + offset),
            transfer.payload.beats.eq(size),
            transfer.payload.tag.kind.eq(ItemKind.IDENTITY),
            transfer.payload.tag.index.eq(age),
        ]
        with m.If(scaler.done & transfer.ready):
            m.d.sync += [age.eq(age + 1), offset.eq(offset + size)]
            m.next = "ROW"


def read_records(c: TextControl) -> None:
    """The records that the matches lead to: of each table, then of the window after the longest."""
    m, settings, scaler, limits = c.module, c.settings, c.scaler, c.limits
    places = Array(c.unpacker.places[table] for table in range(limits.tables_max))
    longest, any_match = Signal(32), Signal()
    in_window, index = Signal(), Signal(index_bits(limits))
    place, back, there, older = Signal(32), Signal(32), Signal(), Signal()
    log_mask = Signal(32)
    transfer = c.reads.transfers
    m.d.comb += [log_mask.eq((1 << settings.log2_log) - 1), older.eq((back != 0) & ((back & ~log_mask) == 0))]
    with m.State("RECORDS"):
        for table in range(limits.tables_max):
            with m.If(c.unpacker.matched[table]):
                m.d.sync += longest.eq(c.unpacker.places[table])
        m.d.sync += [
            any_match.eq(c.unpacker.matched.any()),
            in_window.eq(~settings.at_match),
            index.eq(Mux(settings.at_match, 0, settings.window_first)),
        ]
        m.next = "RECORD_PLACE"
        with m.If(~settings.at_match & ~settings.window):
            m.next = "END"
    with m.State("RECORD_PLACE"):
        with m.If(in_window):
            m.d.sync += [place.eq(longest + index), there.eq(any_match)]
        with m.Else():
            m.d.sync += [place.eq(places[index]), there.eq(c.unpacker.matched.bit_select(index, 1))]
        m.next = "RECORD_AGE"
    with m.State("RECORD_AGE"):
        m.d.sync += back.eq(c.position - place)
        m.next = "RECORD_THERE"
    with m.State("RECORD_THERE"):
        m.d.comb += [
            scaler.factor.eq(place & log_mask),
            scaler.count.eq(settings.record_beats),
            scaler.start.eq(1),
        ]
        m.next = "READ_RECORD"
        with m.If(~(there & older)):
            _next_record(c, in_window, index)
    with m.State("READ_RECORD"):
        m.d.comb += [
            transfer.valid.eq(scaler.done),
            transfer.payload.address.eq(c.log_base + scaler.product),
            transfer.payload.beats.eq(settings.record_beats),
            transfer.payload.tag.kind.eq(ItemKind.RECORD),
            transfer.payload.tag.index.eq(index + Mux(in_window, settings.tables, 0)),
        ]
        with m.If(scaler.done & transfer.ready):
            _next_record(c, in_window, index)


def _next_record(c: TextControl, in_window: Signal, index: Signal) -> None:
    """On to the next match, or to the window."""
    m, settings = c.module, c.settings
    m.d.sync += index.eq(index + 1)
    m.next = "RECORD_PLACE"
    with m.If(in_window), m.If(index == settings.window_last):
        m.next = "END"
    with m.Elif(index == settings.tables - 1):
        m.d.sync += [in_window.eq(1), index.eq(settings.window_first)]
        with m.If(~settings.window):
            m.next = "END"
