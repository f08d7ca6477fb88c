"""Figures of the predictors: what they show, and names that keep apart."""

from itertools import pairwise
from typing import Any

import matplotlib.colors
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes

from predictor.measure.compare import compare
from study.figures.labels import spread
from study.figures.predictors import recall_against_issued, recall_by_layer
from tests.routing import trace_of


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_names_keep_apart_and_in_order(heights: list[float]) -> None:
    places = spread(sorted(heights), 0.05)
    assert len(places) == len(heights)
    assert all(above - below >= 0.05 - 1e-9 for below, above in pairwise(places))
    assert min(places) >= -1e-9
    assert max(places) <= 1 + 1e-9


def test_names_that_are_apart_stay() -> None:
    assert spread([0.1, 0.5, 0.9], 0.05) == [0.1, 0.5, 0.9]
    assert spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])


@pytest.fixture(scope="module")
def comparison() -> dict[str, Any]:
    ids = np.random.default_rng(1).random((60, 3, 8)).argsort(axis=-1)[..., :2]
    trace = trace_of(ids, experts=8, lengths=[10] * 6)
    result = compare(trace, ["popularity", "st-moe"], issue=(2, 3), lookahead=2, split="all", expert_bytes=4_000_000)
    return result.model_dump(mode="json")


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def lines_of(axes: Axes, colour: str) -> list[list[tuple[float, float]]]:
    """The points of every line of a colour."""
    wanted = matplotlib.colors.to_hex(colour)
    own = [line for line in axes.lines if matplotlib.colors.to_hex(line.get_color()) == wanted]
    return [[(float(x), float(y)) for x, y in np.asarray(line.get_xydata())] for line in own]


def test_recall_against_megabytes(comparison: dict[str, Any]) -> None:
    (axes,) = recall_against_issued(comparison).axes
    assert {"popularity", "st-moe", "perfect", "random"} <= set(texts(axes))
    assert "MB" in axes.get_xlabel()
    st_moe = comparison["evaluations"][1]
    drawn = lines_of(axes, "#D55E00")
    curve = comparison["curves"][1]
    np.testing.assert_allclose(drawn[0], np.transpose([np.multiply(4, curve["issued"]), curve["recall"]]))
    own = (4 * st_moe["issued"]["own"], st_moe["recall"]["own"])
    (large,) = (line for line in axes.lines if line.get_markersize() == 9 and len(line.get_xdata()) == 1)
    assert (large.get_xdata()[0], large.get_ydata()[0]) == pytest.approx(own)
    assert large.get_color() == "#D55E00"


def test_experts_where_their_size_is_not_known(comparison: dict[str, Any]) -> None:
    unsized = {**comparison, "size": {"expert_bytes": None, "source": ""}}
    (axes,) = recall_against_issued(unsized).axes
    assert axes.get_xlabel() == "experts issued a token and layer"
    np.testing.assert_allclose(lines_of(axes, "#0072B2")[0], [*enumerate(comparison["curves"][0]["recall"], 1)])


def test_marks_beyond_the_curves_are_in_the_picture() -> None:
    """Curves end at half of the experts; the tables' own threshold and a limit asked for may lie beyond."""
    ids = np.random.default_rng(1).random((60, 3, 6)).argsort(axis=-1)[..., :3]
    trace = trace_of(ids, experts=6, lengths=[10] * 6)
    result = compare(trace, ["popularity", "st-moe"], issue=(2, 5), split="all").model_dump(mode="json")
    assert result["evaluations"][1]["issued"]["own"] > 3
    (axes,) = recall_against_issued(result).axes
    right = axes.get_xlim()[1]
    assert all(np.max(line.get_xdata()) <= right for line in axes.lines)
    assert right > 5


def test_where_nothing_was_recorded_the_bounds_stand_alone() -> None:
    ids = np.random.default_rng(1).random((12, 2, 6)).argsort(axis=-1)[..., :2]
    ids[:, 1] = 255
    trace = trace_of(ids, experts=6, lengths=[3] * 4)
    result = compare(trace, ["popularity", "st-moe"], issue=(2,), split="all").model_dump(mode="json")
    (axes,) = recall_against_issued(result).axes
    assert texts(axes) == ["perfect", "random"]


def test_layers_below_the_lookahead_are_set_apart(comparison: dict[str, Any]) -> None:
    (axes,) = recall_by_layer(comparison, "3").axes
    late, early = lines_of(axes, "#0072B2")
    assert [layer for layer, _ in late] == [2]
    assert [layer for layer, _ in early] == [0, 1]
    assert lines_of(axes, "#D55E00")[1] == []  # the tables issue nothing there
