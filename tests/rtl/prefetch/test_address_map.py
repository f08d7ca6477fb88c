"""The address map itself."""

import re
from pathlib import Path

import pytest

from predictor.st_moe.events import EngineCounter, EventError
from predictor.st_moe.parameters import EngineConfiguration, EngineLimits
from rtl.prefetch.address_map import (
    SETTINGS,
    STATUS_ERROR_SHIFT,
    Offset,
    Status,
    Window,
    configuration_writes,
    counter_offset,
    register_table,
)

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "prefetch-engine.md"


def test_registers_do_not_overlap_nor_reach_the_window() -> None:
    singles = [offset for offset in Offset if offset != Offset.COUNTERS] + [setting.offset for setting in SETTINGS]
    counters = [counter_offset(counter) + word for counter in EngineCounter for word in (0, 4)]
    offsets = singles + counters
    assert len(set(offsets)) == len(offsets)
    assert all(offset % 4 == 0 for offset in offsets)
    assert max(offsets) < Window.of(EngineLimits(experts_max=8, layers_max=2)).base


def test_status_bits_are_those_of_the_twin() -> None:
    for error in EventError:
        assert Status[f"ERROR_{error.name}"] == error << STATUS_ERROR_SHIFT


@pytest.mark.parametrize(
    ("limits", "base", "stride"),
    [
        (EngineLimits(), 2048 * 8, 8),
        (EngineLimits(experts_max=128, layers_max=48, top_k_max=8, candidates_max=10), 8192 * 16, 16),
        (EngineLimits(experts_max=8, layers_max=2), 0x1000, 8),
    ],
)
def test_place_of_the_window(limits: EngineLimits, base: int, stride: int) -> None:
    window = Window.of(limits)
    assert (window.base, window.stride) == (base, stride)
    assert window.offset(3, 1) == base + 3 * stride + 4
    assert window.offset(limits.rows - 1, 0) < 1 << window.address_bits


def test_every_field_of_a_configuration_has_a_register() -> None:
    configuration = EngineConfiguration(
        experts=32, layers=24, top_k=4, candidates=5, issue_limit=6, aggregation="sum", replacement="reversed"
    )
    assert {setting.name for setting in SETTINGS} == set(EngineConfiguration.model_fields)
    writes = dict(configuration_writes(configuration))
    by_name = {setting.name: writes[setting.offset] for setting in SETTINGS}
    assert by_name == {**configuration.model_dump(), "aggregation": 1, "replacement": 2}


def test_the_guide_has_the_map() -> None:
    assert register_table(EngineLimits()) in GUIDE.read_text(encoding="utf-8")


def test_the_table_names_every_register() -> None:
    named = re.findall(r"^\| `0x[0-9a-f]+` \| `(\w+)`", register_table(EngineLimits()), re.MULTILINE)
    settings = [setting.name.upper() for setting in SETTINGS]
    expected = [offset.name for offset in Offset if offset != Offset.COUNTERS]
    assert named == [*expected, *settings, *(counter.name for counter in EngineCounter), "TABLE"]
