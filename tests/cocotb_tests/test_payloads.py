"""Values in payloads lie where the hardware's layouts say."""

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="needs the extra 'hardware'")

from cocotb_tests.payloads import pack_events, request_fields
from predictor.st_moe.events import RoutingEvent
from predictor.st_moe.parameters import EngineLimits
from rtl.prefetch.tables.layouts import event_layout, request_layout

LIMITS = [EngineLimits(), EngineLimits(experts_max=128, layers_max=5, top_k_max=3, candidates_max=10)]


@pytest.mark.parametrize("limits", LIMITS)
def test_events_are_packed_as_the_layout_says(limits: EngineLimits) -> None:
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
