"""Payloads of the prefetch engine's streams and the bits of its table rows, for an engine's limits.

The twin's ``RowFormat`` packs the same row by arithmetic; a test holds the two together.
"""

from collections.abc import Sequence

import numpy as np
from amaranth.hdl import unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Out
from numpy.typing import NDArray

from predictor.st_moe.events import RoutingEvent
from predictor.st_moe.parameters import CONFIDENCE_BITS, EngineParameters
from predictor.st_moe.rows import RowFormat


def experts_layout(limits: EngineParameters) -> data.ArrayLayout:
    """The experts of one event, in its order; those beyond the configured top-k are ignored."""
    return data.ArrayLayout(unsigned(limits.expert_bits), limits.top_k_max)


def event_layout(limits: EngineParameters) -> data.StructLayout:
    """A routing event, as ``predictor.st_moe.events.RoutingEvent``."""
    return data.StructLayout(
        {
            "layer": unsigned(limits.layer_bits),
            "starts_token": 1,
            "starts_sequence": 1,
            "experts": experts_layout(limits),
        }
    )


def request_layout(limits: EngineParameters) -> data.StructLayout:
    """A prefetch request, as ``predictor.st_moe.events.Request``."""
    return data.StructLayout(
        {
            "layer": unsigned(limits.layer_bits),
            "expert": unsigned(limits.expert_bits),
            "score": unsigned(limits.score_bits),
            "last": 1,
        }
    )


def slots_layout(limits: EngineParameters) -> data.ArrayLayout:
    """The candidates of a table row."""
    slot = data.StructLayout({"expert": unsigned(limits.expert_bits), "confidence": unsigned(CONFIDENCE_BITS)})
    return data.ArrayLayout(slot, limits.candidates_max)


def row_layout(limits: EngineParameters) -> data.FlexibleLayout:
    """A table row: the slots, and padding up to whole 32-bit words."""
    return data.FlexibleLayout(RowFormat(limits).bits, {"slots": data.Field(slots_layout(limits), 0)})


def address_bits(limits: EngineParameters) -> int:
    """Bits of a row's address: the source layer above the expert."""
    return limits.layer_bits + limits.expert_bits


class RowWriteSignature(wiring.Signature):
    """A row being written in this cycle, where ``valid``: to the memory, and for whoever observes the engine."""

    def __init__(self, limits: EngineParameters) -> None:
        super().__init__({"valid": Out(1), "address": Out(address_bits(limits)), "row": Out(row_layout(limits))})


def pack_events(
    limits: EngineParameters, events: Sequence[RoutingEvent], generator: np.random.Generator
) -> NDArray[np.uint8]:
    """Payloads of the event stream, u8 ``[events, bytes]``, little-endian.

    Places beyond an event's experts, which the engine must ignore, are filled at random.
    """
    layout = event_layout(limits)
    experts = generator.integers(0, limits.experts_max, (len(events), limits.top_k_max))
    for row, event in zip(experts, events, strict=True):
        row[: len(event.experts)] = event.experts
    width = layout["experts"].shape.elem_shape.width
    bits = np.zeros((len(events), -(-layout.size // 8) * 8), np.uint8)

    def place(values: NDArray[np.int64], offset: int, width: int) -> None:
        bits[:, offset : offset + width] = values[:, None] >> np.arange(width) & 1

    for name in ("layer", "starts_token", "starts_sequence"):
        values = np.array([getattr(event, name) for event in events], np.int64)
        place(values, layout[name].offset, layout[name].width)
    for nth in range(limits.top_k_max):
        place(experts[:, nth], layout["experts"].offset + width * nth, width)
    return np.packbits(bits, axis=1, bitorder="little")


def request_fields(limits: EngineParameters) -> dict[str, tuple[int, int]]:
    """Lowest bit and width of every field of a request's payload."""
    return {name: (field.offset, field.width) for name, field in request_layout(limits)}
