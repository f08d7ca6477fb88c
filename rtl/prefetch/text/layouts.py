"""Payloads of the text unit's streams, and what registers tell it."""

from amaranth.hdl import unsigned
from amaranth.lib import data, enum

from predictor.row_network.integers import BEAT_BYTES
from predictor.row_network.text_traffic import Kind, TextLimits

BEAT_BITS = 8 * BEAT_BYTES
BEAT_SHIFT = BEAT_BYTES.bit_length() - 1
ROW_BITS = 24
"""Of the index of an identity row; all ones: none."""
LOG2_BITS = 5
"""Of the binary logarithms of entries and of records."""


class ItemKind(enum.Enum, shape=2):  # type: ignore[call-arg]
    """Of an item for the net, and of what is read."""

    IDENTITY = Kind.IDENTITY
    RECORD = Kind.RECORD
    END = Kind.END
    ENTRY = Kind.ENTRY


class TextEventKind(enum.Enum, shape=1):  # type: ignore[call-arg]
    """What the text unit is told."""

    TOKEN = 0
    GATE = 1


def bits_for(most: int) -> int:
    """Bits of a number in ``0 … most``, at least one."""
    return max(1, most.bit_length())


def slot_bits(limits: TextLimits) -> int:
    """Of a slot's number."""
    return bits_for(limits.slots - 1)


def layer_bits(limits: TextLimits) -> int:
    """Of a layer's number."""
    return bits_for(limits.layers_max - 1)


def beat_address_bits(limits: TextLimits) -> int:
    """Of the number of a beat in far memory."""
    return limits.address_bits - BEAT_SHIFT


def experts_layout(limits: TextLimits) -> data.ArrayLayout:
    """The experts of a gate in rank order; those beyond the configured top-k are ignored."""
    return data.ArrayLayout(unsigned(bits_for(limits.experts_max - 1)), limits.top_k_max)


def text_event_layout(limits: TextLimits) -> data.StructLayout:
    """A token that begins, or a gate that has chosen.

    ``starts_sequence``, ``identity`` and ``row`` are of a TOKEN, ``layer`` and ``experts`` of a GATE; ``known``:
    whether the identity, or the choice, is recorded.
    """
    return data.StructLayout(
        {
            "kind": TextEventKind,
            "slot": unsigned(slot_bits(limits)),
            "layer": unsigned(layer_bits(limits)),
            "starts_sequence": 1,
            "known": 1,
            "identity": unsigned(32),
            "row": unsigned(ROW_BITS),
            "experts": experts_layout(limits),
        }
    )


def index_bits(limits: TextLimits) -> int:
    """Of an item's index: an age, or the index of a record."""
    return bits_for(max(limits.records_max, limits.identities_max) - 1)


def item_layout(limits: TextLimits) -> data.StructLayout:
    """What the net is told, as ``predictor.row_network.text_traffic.Item``.

    ``word`` is the part of an identity row that ``data`` is. Of a RECORD, layers that were not recorded are not told.
    """
    return data.StructLayout(
        {
            "kind": ItemKind,
            "slot": unsigned(slot_bits(limits)),
            "failed": 1,
            "index": unsigned(index_bits(limits)),
            "layer": unsigned(layer_bits(limits)),
            "experts": experts_layout(limits),
            "word": unsigned(bits_for(limits.row_beats_max - 1)),
            "data": unsigned(8 * limits.lanes),
        }
    )


def text_settings_layout(limits: TextLimits) -> data.StructLayout:
    """What registers tell the text unit, as ``TextSettings``; addresses and strides in beats.

    ``wide_ids``: an id in the log has two bytes. ``window_last < window_first``: no window is read.
    """
    beats = unsigned(beat_address_bits(limits))
    return data.StructLayout(
        {
            "layers": unsigned(bits_for(limits.layers_max)),
            "top_k": unsigned(bits_for(limits.top_k_max)),
            "wide_ids": 1,
            "tables": unsigned(bits_for(limits.tables_max)),
            "lengths": data.ArrayLayout(unsigned(bits_for(limits.ngram_max)), limits.tables_max),
            "by_routing": 1,
            "log2_entries": unsigned(LOG2_BITS),
            "log2_log": unsigned(LOG2_BITS),
            "at_match": 1,
            "window": 1,
            "window_first": unsigned(bits_for(limits.reach_max)),
            "window_last": unsigned(bits_for(limits.reach_max)),
            "record_beats": unsigned(bits_for(limits.record_beats_max)),
            "identities": unsigned(bits_for(limits.identities_max)),
            "row_beats": unsigned(bits_for(limits.row_beats_max)),
            "word_beats": unsigned(bits_for(limits.lanes // BEAT_BYTES)),
            "text_base": beats,
            "text_stride": beats,
            "identity_base": beats,
            "identity_stride": beats,
        }
    )
