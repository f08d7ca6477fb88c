"""Values to the payloads of the prefetch engine's streams and back, by the layouts that it is made with."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from predictor.st_moe.events import RoutingEvent
from predictor.st_moe.parameters import EngineLimits
from rtl.prefetch.tables.layouts import event_layout, request_layout


def pack_events(
    limits: EngineLimits, events: Sequence[RoutingEvent], generator: np.random.Generator
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

    for name in ("slot", "layer", "starts_token", "starts_sequence", "domain"):
        values = np.array([getattr(event, name) for event in events], np.int64)
        place(values, layout[name].offset, layout[name].width)
    for nth in range(limits.top_k_max):
        place(experts[:, nth], layout["experts"].offset + width * nth, width)
    return np.packbits(bits, axis=1, bitorder="little")


def request_fields(limits: EngineLimits) -> dict[str, tuple[int, int]]:
    """Lowest bit and width of every field of a request's payload."""
    return {name: (field.offset, field.width) for name, field in request_layout(limits)}
