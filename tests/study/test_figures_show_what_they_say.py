"""Curves stand where their figures are, the diagonal is one, and a replay's verdict follows its differences."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from study.commands.rtl.replaying import render_replay
from study.figures.caches import hit_rate_over_capacity
from study.figures.learned import reliability_diagram


def test_hit_rates_are_drawn_in_percent_over_the_share_held() -> None:
    points = [
        {"policy": policy, "scope": "layer", "capacity": capacity, "hit_rate": rate}
        for policy, capacity, rate in (("lru", 8, 0.5), ("lru", 16, 0.75), ("belady", 8, 0.625), ("belady", 16, 0.875))
    ]
    (axes,) = hit_rate_over_capacity(points, 32).axes
    curves = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines if len(line.get_xdata()) == 2]
    assert ([25.0, 50.0], [50.0, 75.0]) in curves
    assert ([25.0, 50.0], [62.5, 87.5]) in curves


def test_the_reliability_diagram_has_the_diagonal_and_what_was_measured() -> None:
    points = [
        {"probability": 0.1, "frequency": 0.2, "count": 10, "share": 0.5},
        {"probability": 0.8, "frequency": 0.7, "count": 10, "share": 0.5},
    ]
    figure = reliability_diagram(
        {"reliability": points, "calibration_error": 0.1, "model": "m", "predictor": "p", "synthetic": False}
    )
    left = figure.axes[0]
    curves = [(np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()) for line in left.lines]
    assert ([0, 1], [0, 1]) in curves
    assert ([0.1, 0.8], [0.2, 0.7]) in curves


@pytest.mark.parametrize(("mismatches", "verdict"), [(0, "equal"), (1, "1 differences"), (3, "3 differences")])
def test_a_replay_is_equal_only_without_a_difference(mismatches: int, verdict: str) -> None:
    console = Console(record=True, width=120)
    result: Any = SimpleNamespace(
        mismatches=mismatches, tokens=1, steps=2, cycles=3, cycles_per_s=4.0, tokens_per_s=5.0, counters={}
    )  # fmt: skip
    render_replay(console, "trace", result)
    text = console.export_text()
    assert f"RTL and twin {verdict}" in text
