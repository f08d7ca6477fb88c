"""Payloads of the table predictor's streams, what it is told, and the bits of its table rows, for an engine's limits.

The twin's ``RowFormat`` packs the same row by arithmetic; a test holds the two together.
"""

from amaranth.hdl import unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Out

from predictor.st_moe.events import EngineCounter
from predictor.st_moe.parameters import CONFIDENCE_BITS, DOMAIN_BITS, EngineLimits
from predictor.st_moe.rows import RowFormat
from rtl.prefetch.tables.settings import SETTINGS


def experts_layout(limits: EngineLimits) -> data.ArrayLayout:
    """The experts of one event, in its order; those beyond the configured top-k are ignored."""
    return data.ArrayLayout(unsigned(limits.expert_bits), limits.top_k_max)


def event_layout(limits: EngineLimits) -> data.StructLayout:
    """A routing event, as ``predictor.st_moe.events.RoutingEvent``."""
    return data.StructLayout(
        {
            "slot": unsigned(limits.slot_bits),
            "layer": unsigned(limits.layer_bits),
            "starts_token": 1,
            "starts_sequence": 1,
            "domain": unsigned(DOMAIN_BITS),
            "experts": experts_layout(limits),
        }
    )


def request_layout(limits: EngineLimits) -> data.StructLayout:
    """A prefetch request, as ``predictor.st_moe.events.Request``."""
    return data.StructLayout(
        {
            "layer": unsigned(limits.layer_bits),
            "expert": unsigned(limits.expert_bits),
            "score": unsigned(limits.score_bits),
            "last": 1,
        }
    )


def entries_layout(limits: EngineLimits) -> data.ArrayLayout:
    """The candidates of a table row."""
    entry = data.StructLayout({"expert": unsigned(limits.expert_bits), "confidence": unsigned(CONFIDENCE_BITS)})
    return data.ArrayLayout(entry, limits.candidates_max)


def row_layout(limits: EngineLimits) -> data.FlexibleLayout:
    """A table row: the entries, and padding up to whole 32-bit words."""
    return data.FlexibleLayout(RowFormat(limits).bits, {"entries": data.Field(entries_layout(limits), 0)})


def address_bits(limits: EngineLimits) -> int:
    """Bits of a row's address: the source layer above the bank above the expert."""
    return RowFormat(limits).address_bits


class RowWriteSignature(wiring.Signature):
    """A row being written in this cycle, where ``valid``: to the memory, and for whoever observes the engine."""

    def __init__(self, limits: EngineLimits) -> None:
        super().__init__({"valid": Out(1), "address": Out(address_bits(limits)), "row": Out(row_layout(limits))})


class SettingsSignature(wiring.Signature):
    """What the registers hold, by the names of ``SETTINGS``; from the registers' side."""

    def __init__(self, limits: EngineLimits) -> None:
        fields = (setting.field(limits) for setting in SETTINGS)
        super().__init__({field.name: Out(field.width, init=field.reset) for field in fields})


def increments_layout(limits: EngineLimits) -> data.StructLayout:
    """By how much every ``EngineCounter`` grows in a cycle."""
    return data.StructLayout({counter.name.lower(): increment_bits(limits, counter) for counter in EngineCounter})


def increment_bits(limits: EngineLimits, counter: EngineCounter) -> int:
    """Bits of what a counter can grow by in a cycle: one, or as many as a row has entries."""
    of_entries = (EngineCounter.CANDIDATE_HITS, EngineCounter.CANDIDATE_MISSES, EngineCounter.REPLACEMENTS)
    return limits.candidates_max.bit_length() if counter in of_entries else 1
