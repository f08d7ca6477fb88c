"""What is read of the memory of the text, beat by beat: entries are checked, rows and records go to the net."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.integers import BEAT_BYTES, ENTRY_BYTES
from predictor.row_network.text_traffic import TextLimits
from rtl.bus.axi_lite import Response
from rtl.checks import always, implies
from rtl.prefetch.text.bursts import burst_layout
from rtl.prefetch.text.layouts import (
    BEAT_BITS,
    ItemKind,
    bits_for,
    index_bits,
    item_layout,
    slot_bits,
    text_settings_layout,
)

LANES = BEAT_BYTES // ENTRY_BYTES


def tag_layout(limits: TextLimits) -> data.StructLayout:
    """What a transfer reads; ``lane``: of an entry in its beat."""
    return data.StructLayout(
        {"kind": ItemKind, "index": unsigned(index_bits(limits)), "lane": unsigned((LANES - 1).bit_length())}
    )


class Unpacker(wiring.Component):
    """Takes the beats of the bursts under way.

    An entry is compared with ``keys`` of its table and ``sequence`` in the cycle of its beat: ``matched``, ``places``
    and ``entry`` (one arrived) hold a cycle later; ``clear`` forgets the matches. A word of identity is an item in the
    cycle after its last beat, a beat a cycle while the net takes them. A record's ids are looked at one a cycle, from
    the cycle after its beat on; a layer's item is valid the cycle after its last id. ``end`` makes the item END of
    ``failed_token`` where ``end_taken``; it must not be given while not ``idle``.

    ``failed``: a beat was an error, or last of its burst where it must not be, or not where it must. It counts as all
    ones (not recorded) in a record, zero in identity, and no entry.
    """

    def __init__(self, limits: TextLimits) -> None:
        self.limits = limits
        tables = limits.tables_max
        super().__init__(
            {
                "settings": In(text_settings_layout(limits)),
                "slot": In(slot_bits(limits)),
                "under_way": In(stream.Signature(burst_layout(tag_layout(limits)))),
                "rdata": In(BEAT_BITS),
                "rresp": In(Response),
                "rlast": In(1),
                "rvalid": In(1),
                "rready": Out(1),
                "keys": In(data.ArrayLayout(32, tables)),
                "sequence": In(32),
                "clear": In(1),
                "entry": Out(1),
                "matched": Out(tables),
                "places": Out(data.ArrayLayout(32, tables)),
                "end": In(1),
                "end_taken": Out(1),
                "failed_token": In(1),
                "failed": Out(1),
                "idle": Out(1),
                "items": Out(stream.Signature(item_layout(limits))),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        settings, item = self.settings, self.items.payload
        tag = self.under_way.payload.tag
        beat = Signal(self.under_way.payload.length.shape())
        free, take, last, bad = Signal(), Signal(), Signal(), Signal()
        ids_left = Signal(range(BEAT_BYTES + 1))
        m.d.comb += [
            free.eq(~self.items.valid | self.items.ready),
            take.eq(self.rvalid & self.rready),
            last.eq(beat == self.under_way.payload.length),
            bad.eq((self.rresp != Response.OKAY) | (self.rlast != last)),
            self.failed.eq(take & bad),
            self.under_way.ready.eq(take & last),
            self.idle.eq(~self.under_way.valid & (ids_left == 0)),
            self.end_taken.eq(self.end & free),
        ]
        with m.If(self.items.ready):
            m.d.sync += self.items.valid.eq(0)
        with m.If(take):
            m.d.sync += beat.eq(Mux(last, 0, beat + 1))
        with m.If(self.under_way.valid), m.Switch(tag.kind):
            with m.Case(ItemKind.ENTRY):
                m.d.comb += self.rready.eq(1)
            with m.Case(ItemKind.IDENTITY):
                m.d.comb += self.rready.eq(free)
            with m.Case(ItemKind.RECORD):
                m.d.comb += self.rready.eq(ids_left == 0)

        self._take_entry(m, take, bad)
        self._take_identity(m, take, bad)
        self._take_record(m, take, bad, free, ids_left)
        with m.If(self.end_taken):
            m.d.sync += [
                self.items.valid.eq(1),
                item.kind.eq(ItemKind.END),
                item.slot.eq(self.slot),
                item.failed.eq(self.failed_token),
            ]
        always(m, implies(self.end, self.idle), "text: a token ends while its text is still read")
        always(m, implies(take, settings.word_beats != 0), "text: words of no beats")
        return m

    def _take_entry(self, m: Module, take: Value, bad: Value) -> None:
        tag = self.under_way.payload.tag
        entry = Signal(data.StructLayout({"key": 32, "place": 32, "sequence": 32, "unused": 32}))
        m.d.comb += entry.eq(self.rdata.word_select(tag.lane, 8 * ENTRY_BYTES))
        m.d.sync += self.entry.eq(take & (tag.kind == ItemKind.ENTRY))
        with m.If(self.clear):
            m.d.sync += self.matched.eq(0)
        with m.Elif(take & (tag.kind == ItemKind.ENTRY)):
            for table in range(self.limits.tables_max):
                with m.If(tag.index == table):
                    same = (entry.key == self.keys[table]) & (entry.sequence == self.sequence)
                    m.d.sync += [self.matched[table].eq(same & ~bad), self.places[table].eq(entry.place)]

    def _take_identity(self, m: Module, take: Value, bad: Value) -> None:
        settings, item = self.settings, self.items.payload
        tag = self.under_way.payload.tag
        parts = self.limits.lanes // BEAT_BYTES
        in_word, in_row = Signal(bits_for(parts - 1)), Signal(bits_for(self.limits.row_beats_max - 1))
        word, layer = Signal.like(item.word), Signal.like(item.layer)
        row_over, word_over = Signal(), Signal()
        m.d.comb += [
            row_over.eq(in_row == settings.row_beats - 1),
            word_over.eq(row_over | (in_word == settings.word_beats - 1)),
        ]
        with m.If(take & (tag.kind == ItemKind.IDENTITY)):
            content = Mux(bad, 0, self.rdata)
            for part in range(parts):
                with m.If(in_word == part):
                    m.d.sync += item.data[part * BEAT_BITS : (part + 1) * BEAT_BITS].eq(content)
                with m.Elif(in_word == 0):
                    m.d.sync += item.data[part * BEAT_BITS : (part + 1) * BEAT_BITS].eq(0)
            m.d.sync += [
                self.items.valid.eq(word_over),
                item.kind.eq(ItemKind.IDENTITY),
                item.slot.eq(self.slot),
                item.index.eq(tag.index),
                item.layer.eq(layer),
                item.word.eq(word),
                in_word.eq(Mux(word_over, 0, in_word + 1)),
                in_row.eq(Mux(row_over, 0, in_row + 1)),
            ]
            with m.If(row_over):
                m.d.sync += [word.eq(0), layer.eq(Mux(layer == settings.layers - 1, 0, layer + 1))]
            with m.Elif(word_over):
                m.d.sync += word.eq(word + 1)

    def _take_record(self, m: Module, take: Value, bad: Value, free: Value, ids_left: Signal) -> None:
        settings, item = self.settings, self.items.payload
        tag = self.under_way.payload.tag
        ids = Signal(BEAT_BITS)
        index = Signal.like(item.index)
        layer, rank = Signal.like(item.layer), Signal(bits_for(self.limits.top_k_max - 1))
        experts = Signal.like(item.experts)
        known, known_now, layer_over, goes_on = Signal(init=1), Signal(), Signal(), Signal()
        expert = Signal(16)
        m.d.comb += [
            expert.eq(Mux(settings.wide_ids, ids[:16], ids[:8])),
            known_now.eq(known & (expert != Mux(settings.wide_ids, 0xFFFF, 0xFF))),
            layer_over.eq(rank == settings.top_k - 1),
            goes_on.eq((ids_left != 0) & (free | ~layer_over | ~known_now)),
        ]
        with m.If(take & (tag.kind == ItemKind.RECORD)):
            m.d.sync += [
                ids.eq(Mux(bad, Const((1 << BEAT_BITS) - 1, BEAT_BITS), self.rdata)),
                ids_left.eq(Mux(settings.wide_ids, BEAT_BYTES // 2, BEAT_BYTES)),
                index.eq(tag.index),
            ]
        with m.If(goes_on):
            m.d.sync += [
                ids.eq(Mux(settings.wide_ids, ids >> 16, ids >> 8)),
                ids_left.eq(ids_left - 1),
                rank.eq(rank + 1),
                known.eq(known_now),
            ]
            for place in range(self.limits.top_k_max):
                with m.If(rank == place):
                    m.d.sync += experts[place].eq(expert)
            with m.If(layer_over):
                m.d.sync += [rank.eq(0), known.eq(1), layer.eq(layer + 1)]
                with m.If(layer == settings.layers - 1):
                    m.d.sync += [layer.eq(0), ids_left.eq(0)]
                with m.If(known_now):
                    m.d.sync += [
                        self.items.valid.eq(1),
                        item.kind.eq(ItemKind.RECORD),
                        item.slot.eq(self.slot),
                        item.index.eq(index),
                        item.layer.eq(layer),
                        item.experts.eq(experts),
                    ]
                    for place in range(self.limits.top_k_max):
                        with m.If(rank == place):
                            m.d.sync += item.experts[place].eq(expert)
        beyond = Cat(expert >= self.limits.experts_max, known_now, ids_left != 0).all()
        always(m, ~(beyond & (expert < 0xFF)), "text: the log names an expert that the engine has no room for")
