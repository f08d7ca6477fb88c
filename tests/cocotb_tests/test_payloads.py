"""Values in payloads lie where the hardware's layouts say."""

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="needs the extra 'hardware'")

from cocotb_tests.payloads import pack_commands, pack_events, pack_vector, request_fields, unpack_results
from pim_model.tile import TileParameters
from predictor.st_moe.events import RoutingEvent
from predictor.st_moe.parameters import EngineLimits
from rtl.pim import tile as pim_tile
from rtl.prefetch.layouts import event_layout, request_layout

LIMITS = [EngineLimits(), EngineLimits(experts_max=128, layers_max=5, top_k_max=3, candidates_max=10)]
TILE = TileParameters(lanes=4, vector_chunks=3, accumulators=3, max_rows=9)


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


def test_the_tiles_streams_follow_the_layouts() -> None:
    generator = np.random.default_rng(0)
    chunks = generator.integers(-128, 128, (2, 4)).astype(np.int8)
    layout = pim_tile.vector_layout(TILE)
    for index, payload in enumerate(pack_vector(chunks)):
        constant = layout.const({"chunk": chunks[index].tolist(), "last": index == 1})
        assert int.from_bytes(payload.tobytes(), "little") == constant.as_value().value

    beat = pim_tile.lane_values(4).const(chunks[0].tolist()).as_value().value
    assert int.from_bytes(chunks[0].tobytes(), "little") == beat % 2**32

    results = [(-(2**31), 0), (2**31 - 1, 1), (-1, 1)]
    constants = [pim_tile.result_layout().const({"value": value, "last": last}) for value, last in results]
    values, ends = unpack_results(np.array([c.as_value().value for c in constants], np.uint64))
    assert list(zip(values.tolist(), ends.astype(int).tolist(), strict=True)) == results


def test_commands_of_the_tile_follow_the_layout() -> None:
    commands = [{"rows": 9, "chunks": 3, "group": 2, "release": 1}, {"rows": 1, "chunks": 1, "group": 3, "release": 0}]
    layout = pim_tile.command_layout(TILE)
    for command, payload in zip(commands, pack_commands(commands, TILE), strict=True):
        fields = layout.from_bits(int.from_bytes(payload.tobytes(), "little"))
        assert {name: getattr(fields, name) for name in command} == command
