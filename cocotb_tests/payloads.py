"""Values to the payloads of the hardware's streams and back, by the layouts that the hardware is made with."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pim_model.tile import ACCUMULATOR_BITS, TileParameters
from predictor.st_moe.events import RoutingEvent
from predictor.st_moe.parameters import EngineLimits
from rtl.pim.tile import command_layout
from rtl.prefetch.layouts import event_layout, request_layout


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

    for name in ("layer", "starts_token", "starts_sequence"):
        values = np.array([getattr(event, name) for event in events], np.int64)
        place(values, layout[name].offset, layout[name].width)
    for nth in range(limits.top_k_max):
        place(experts[:, nth], layout["experts"].offset + width * nth, width)
    return np.packbits(bits, axis=1, bitorder="little")


def request_fields(limits: EngineLimits) -> dict[str, tuple[int, int]]:
    """Lowest bit and width of every field of a request's payload."""
    return {name: (field.offset, field.width) for name, field in request_layout(limits)}


def pack_vector(chunks: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Payloads of `vector_layout`, u8 ``[chunks, lanes + 1]`` little-endian, of the chunks int8 ``[chunks, lanes]``.

    Lane i of `lane_values` is byte i; the bit after them marks the last chunk.
    """
    last = np.zeros((len(chunks), 1), np.uint8)
    last[-1] = 1
    return np.hstack([chunks.view(np.uint8), last])


def pack_commands(commands: Sequence[Mapping[str, int]], parameters: TileParameters) -> NDArray[np.uint8]:
    """Payloads of `command_layout`, u8 ``[commands, bytes]`` little-endian, of its fields by name."""
    layout = command_layout(parameters)
    width = -(-layout.size // 8)
    payloads = [layout.const(command).as_value().value.to_bytes(width, "little") for command in commands]
    return np.frombuffer(b"".join(payloads), np.uint8).reshape(-1, width)


def unpack_results(payloads: NDArray[np.uint64]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """The sums (int32) and end marks out of payloads of `result_layout`: the low word, and the bit above it."""
    return payloads.astype(np.uint32).view(np.int32), (payloads >> np.uint64(ACCUMULATOR_BITS)).astype(np.bool_)
