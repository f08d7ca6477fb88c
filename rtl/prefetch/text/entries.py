"""States of the memory of the text: entries of the n-gram tables are looked up, and then written."""

from amaranth.hdl import Array, Cat, Const, Signal

from predictor.row_network.integers import ENTRY_BYTES, KEY_ROTATION
from rtl.prefetch.text.control import LANE_BITS, TextControl
from rtl.prefetch.text.layouts import ItemKind
from rtl.prefetch.text.unpacker import LANES


def look_up(c: TextControl) -> None:
    """The keys of all tables in one walk over the latest tokens, and the reads of their entries."""
    m, settings, scaler, limits = c.module, c.settings, c.scaler, c.limits
    age = Signal(range(limits.ngram_max + 1))
    key, known, key_next, known_next = Signal(32), Signal(), Signal(32), Signal()
    rotated = Array(c.token_out.data.token.rotate_left(KEY_ROTATION * back) for back in range(limits.ngram_max + 1))
    m.d.comb += [
        key_next.eq(key ^ rotated[age]),
        known_next.eq(known & c.token_out.data.known & (age <= c.position)),
    ]
    with m.State("LOOK_UP"):
        m.d.comb += [
            scaler.factor.eq(settings.text_stride),
            scaler.count.eq(c.slot),
            scaler.start.eq(1),
            c.token_out.addr.eq(c.ring(limits.ngram_max, Const(0, 1))),
        ]
        m.d.sync += [age.eq(0), key.eq(0), known.eq(~c.writes_off), c.key_known.eq(0)]
        m.next = "WALK"
    with m.State("WALK"):
        m.d.comb += c.token_out.addr.eq(c.ring(limits.ngram_max, age + 1))
        m.d.sync += [age.eq(age + 1), key.eq(key_next), known.eq(known_next)]
        for table in range(limits.tables_max):
            with m.If((settings.lengths[table] == age + 1) & (table < settings.tables)):
                m.d.sync += [c.keys[table].eq(key_next), c.key_known[table].eq(known_next)]
        with m.If(age == limits.ngram_max - 1):
            m.next = "BASE"
    base = Signal(c.address_bits)
    table_base = Signal(c.address_bits + LANE_BITS)
    m.d.comb += base.eq(settings.text_base + scaler.product)
    with m.State("BASE"):
        m.d.sync += [
            table_base.eq(base << LANE_BITS),
            c.log_base.eq(base + c.log_offset),
            c.table.eq(0),
        ]
        with m.If(scaler.done):
            m.next = "PLACE_ENTRY"
    mask, size = Signal(32), Signal(32)
    m.d.comb += [size.eq(1 << settings.log2_entries), mask.eq(size - 1)]
    keys = Array(c.keys[table] for table in range(limits.tables_max))
    entries = Array(c.entries[table] for table in range(limits.tables_max))
    with m.State("PLACE_ENTRY"):
        m.d.sync += [
            entries[c.table].eq(table_base + (keys[c.table] & mask)),
            table_base.eq(table_base + size),
        ]
        m.next = "READ_ENTRY"
    transfer = c.reads.transfers
    with m.State("READ_ENTRY"):
        wanted = c.key_known.bit_select(c.table, 1)
        m.d.comb += [
            transfer.valid.eq(wanted),
            transfer.payload.address.eq(entries[c.table] >> LANE_BITS),
            transfer.payload.beats.eq(1),
            transfer.payload.tag.kind.eq(ItemKind.ENTRY),
            transfer.payload.tag.index.eq(c.table),
            transfer.payload.tag.lane.eq(entries[c.table]),
        ]
        with m.If(transfer.ready | ~wanted):
            m.d.sync += c.table.eq(c.table + 1)
            m.next = "PLACE_ENTRY"
            with m.If(c.table == settings.tables - 1):
                m.next = "MATCH"
                with m.If(c.begins):
                    m.next = "ROW"
    asked = Signal()
    m.d.comb += asked.eq(transfer.valid & transfer.ready & (transfer.payload.tag.kind == ItemKind.ENTRY))
    m.d.sync += c.entries_due.eq(c.entries_due + asked - c.unpacker.entry)


def write_entries(c: TextControl) -> None:
    """Once the entries are there, this token takes them."""
    m, settings, limits = c.module, c.settings, c.limits
    write = c.writer.beats
    keys = Array(c.keys[table] for table in range(limits.tables_max))
    entries = Array(c.entries[table] for table in range(limits.tables_max))
    place = entries[c.table]
    entry = Cat(keys[c.table], c.position, c.sequence, Const(0, 32))
    with m.State("MATCH"):
        m.d.sync += c.table.eq(0)
        with m.If(settings.tables == 0):
            m.next = "END"
        with m.Elif(c.begins & settings.by_routing):
            m.next = "END"
        with m.Elif(c.entries_due == 0):
            m.next = "WRITE_ENTRY"
    with m.State("WRITE_ENTRY"):
        wanted = c.key_known.bit_select(c.table, 1)
        m.d.comb += [
            write.valid.eq(wanted),
            write.payload.slot.eq(c.slot),
            write.payload.first.eq(1),
            write.payload.last.eq(1),
            write.payload.address.eq(place >> LANE_BITS),
            write.payload.data.eq(Cat(*[entry] * LANES)),
            write.payload.strobe.word_select(place[:LANE_BITS], ENTRY_BYTES).eq(
                Const((1 << ENTRY_BYTES) - 1, ENTRY_BYTES)
            ),
        ]
        with m.If(write.ready | ~wanted):
            m.d.sync += c.table.eq(c.table + 1)
            with m.If(c.table == settings.tables - 1):
                m.next = "RECORDS"
