"""The machine of a study: its host, and what each point of a map changes."""

from pathlib import Path
from typing import Any

import pytest

from perfmodel.host import Host
from study.config import StudyConfig
from study.stages import StudyContext
from study.system import machine
from tests.routing import trace_of


def context(settings: dict[str, Any]) -> StudyContext:
    config = StudyConfig.parse({"system": settings}, origin="test")
    return StudyContext(trace=trace_of([[[0]]], experts=2), trace_path=Path(), config=config, out=Path())


@pytest.mark.parametrize(
    ("known", "settings", "expected"),
    [
        (None, {}, {"host_gb_per_s": 76.0, "host_tflops": 1.0}),
        (None, {"host_gb_per_s": 100.0}, {"host_gb_per_s": 100.0, "host_tflops": 1.0}),
        (Host(bytes_per_s=1, flops_per_s=1, latency_ps=0), {}, {}),
        (Host(bytes_per_s=1, flops_per_s=1, latency_ps=0), {"host_tflops": 2.0}, {"host_tflops": 2.0}),
        (Host(bytes_per_s=1, flops_per_s=None, latency_ps=0), {}, {"host_tflops": 1.0}),
    ],
)
def test_a_desktops_host_is_taken_only_where_neither_settings_nor_catalogue_say(
    monkeypatch: pytest.MonkeyPatch, known: Host | None, settings: dict[str, float], expected: dict[str, float]
) -> None:
    monkeypatch.setattr(machine, "host_of", lambda config, machine: known)
    assert machine.host_settings(context(settings)) == expected


def test_a_point_of_the_second_map_changes_the_host_memory_alone() -> None:
    given = context({"machine": "RTX-4090", "host_gb_per_s": 100.0, "host_tflops": 2.0})
    own = machine.simulation_config(given, 0.5)
    other = machine.simulation_config(given, 0.5, host_gb_per_s=300.0)
    assert (own.host_gb_per_s, other.host_gb_per_s) == (100.0, 300.0)
    assert other.model_copy(update={"host_gb_per_s": 100.0}) == own
