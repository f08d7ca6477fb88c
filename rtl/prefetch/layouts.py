"""Payloads of the prefetch engine's streams and the bits of its table rows, for an engine's limits.

The twin's ``RowFormat`` packs the same row by arithmetic; a test holds the two together.
"""

from amaranth.hdl import unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Out

from predictor.st_moe.parameters import CONFIDENCE_BITS, EngineLimits
from predictor.st_moe.rows import RowFormat


def experts_layout(limits: EngineLimits) -> data.ArrayLayout:
    """The experts of one event, in its order; those beyond the configured top-k are ignored."""
    return data.ArrayLayout(unsigned(limits.expert_bits), limits.top_k_max)


def event_layout(limits: EngineLimits) -> data.StructLayout:
    """A routing event, as ``predictor.st_moe.events.RoutingEvent``."""
    return data.StructLayout(
        {
            "layer": unsigned(limits.layer_bits),
            "starts_token": 1,
            "starts_sequence": 1,
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


def slots_layout(limits: EngineLimits) -> data.ArrayLayout:
    """The candidates of a table row."""
    slot = data.StructLayout({"expert": unsigned(limits.expert_bits), "confidence": unsigned(CONFIDENCE_BITS)})
    return data.ArrayLayout(slot, limits.candidates_max)


def row_layout(limits: EngineLimits) -> data.FlexibleLayout:
    """A table row: the slots, and padding up to whole 32-bit words."""
    return data.FlexibleLayout(RowFormat(limits).bits, {"slots": data.Field(slots_layout(limits), 0)})


def address_bits(limits: EngineLimits) -> int:
    """Bits of a row's address: the source layer above the expert."""
    return limits.layer_bits + limits.expert_bits


class RowWriteSignature(wiring.Signature):
    """A row being written in this cycle, where ``valid``: to the memory, and for whoever observes the engine."""

    def __init__(self, limits: EngineLimits) -> None:
        super().__init__({"valid": Out(1), "address": Out(address_bits(limits)), "row": Out(row_layout(limits))})
