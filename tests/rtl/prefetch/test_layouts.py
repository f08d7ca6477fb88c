"""Bits of rows and payloads: Amaranth's layouts against the twin's packing."""

import numpy as np
import pytest

from predictor.st_moe.events import RoutingEvent
from predictor.st_moe.parameters import EngineParameters
from predictor.st_moe.rows import RowFormat
from rtl.prefetch.layouts import address_bits, event_layout, pack_events, request_fields, request_layout, row_layout

LIMITS = [EngineParameters(), EngineParameters(experts_max=128, layers_max=5, top_k_max=3, candidates_max=10)]


@pytest.mark.parametrize("limits", LIMITS)
def test_a_row_is_packed_as_the_twin_packs_it(limits: EngineParameters) -> None:
    generator = np.random.default_rng(4)
    ids = generator.integers(0, limits.experts_max, limits.candidates_max)
    confidences = generator.integers(0, 4, limits.candidates_max)
    layout, rows = row_layout(limits), RowFormat(limits)
    slots = [{"expert": e, "confidence": c} for e, c in zip(ids.tolist(), confidences.tolist(), strict=True)]
    assert layout.const({"slots": slots}).as_bits() == rows.pack(ids, confidences)
    assert layout.size == rows.bits
    assert rows.address(limits.layers_max - 1, limits.experts_max - 1).bit_length() == address_bits(limits)


@pytest.mark.parametrize("limits", LIMITS)
def test_events_are_packed_as_the_layout_says(limits: EngineParameters) -> None:
    events = [RoutingEvent(4, (7, 1, 5), True, False), RoutingEvent(0, (0, 2, 6), False, True)]
    payloads = pack_events(limits, events, np.random.default_rng(5))
    layout = event_layout(limits)
    assert payloads.shape == (2, -(-layout.size // 8))
    for event, payload in zip(events, payloads, strict=True):
        fields = layout.from_bits(int.from_bytes(payload.tobytes(), "little"))
        assert (fields.layer, fields.starts_token, fields.starts_sequence) == (
            event.layer,
            event.starts_token,
            event.starts_sequence,
        )
        assert tuple(fields.experts[nth] for nth in range(3)) == event.experts


def test_fields_of_a_request() -> None:
    limits = LIMITS[0]
    bits = request_layout(limits).const({"layer": 9, "expert": 33, "score": 17, "last": 1}).as_bits()
    fields = {name: bits >> place & (1 << width) - 1 for name, (place, width) in request_fields(limits).items()}
    assert fields == {"layer": 9, "expert": 33, "score": 17, "last": 1}
