"""The address map itself."""

import re
from pathlib import Path

import pytest

from predictor.st_moe.events import EngineCounter, EventError
from predictor.st_moe.parameters import EngineConfiguration, EngineLimits, StMoeParameters, TablePolicy
from rtl.bus.register_map import COUNTER_BITS
from rtl.prefetch.tables.address_map import (
    STATUS_ERROR_SHIFT,
    Window,
    address_map,
    configuration_writes,
    counter_offset,
    setting_offset,
)
from rtl.prefetch.tables.settings import SETTINGS

GUIDE = Path(__file__).resolve().parents[4] / "docs" / "prefetch-tables.md"


def test_status_bits_are_those_of_the_twin() -> None:
    status = address_map(EngineLimits())
    for error in EventError:
        assert status.mask("STATUS", f"error_{error.name.lower()}") == error << STATUS_ERROR_SHIFT


def test_a_counter_is_two_words() -> None:
    found = address_map(EngineLimits())
    for counter in EngineCounter:
        low, high = found.register(counter.name), found.register(f"{counter.name}_HIGH")
        assert (low.offset, high.offset) == (counter_offset(counter), counter_offset(counter) + 4)
        assert [field.width for field in (*low.fields, *high.fields)] == [32, COUNTER_BITS - 32]


def test_resets_are_the_defaults_of_a_configuration() -> None:
    """What the tables take where nothing is said, the engine does after reset; a shape is the largest."""
    limits = EngineLimits(experts_max=32, layers_max=9, top_k_max=3, candidates_max=5)
    shape = {"experts": 32, "layers": 9, "top_k": 3, "candidates": 5, "issue_limit": 32, "domains": 1}
    resets = {setting.name: setting.field(limits).reset for setting in SETTINGS}
    assert resets == EngineConfiguration(**shape).register_values()
    assert StMoeParameters().policy() == {
        name: getattr(EngineConfiguration(**shape), name) for name in TablePolicy.model_fields
    }


@pytest.mark.parametrize(
    ("limits", "base", "stride"),
    [
        (EngineLimits(), 2048 * 8, 8),
        (EngineLimits(experts_max=128, layers_max=48, top_k_max=8, candidates_max=10), 8192 * 16, 16),
        (EngineLimits(experts_max=8, layers_max=2), 0x1000, 8),
        (EngineLimits(domains_max=4), 4 * 2048 * 8, 8),
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
    by_name = {setting.name: writes[setting_offset(setting.name)] for setting in SETTINGS}
    assert by_name == {**configuration.model_dump(), "aggregation": 1, "replacement": 2}


def test_the_guide_has_the_map() -> None:
    assert address_map(EngineLimits()).markdown() in GUIDE.read_text(encoding="utf-8")


def test_the_table_names_every_register() -> None:
    found = address_map(EngineLimits())
    named = re.findall(r"^\| `0x[0-9a-f]+` \| `(\w+)`", found.markdown(), re.MULTILINE)
    assert named == [*(register.name for register in found.registers), "TABLE"]
    assert {setting.name.upper() for setting in SETTINGS} < set(named)
    assert {counter.name for counter in EngineCounter} < set(named)
