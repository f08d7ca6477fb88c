"""The figures of the whole system say what the comparison says."""

import re
from typing import Any

import numpy as np
import pytest

from perfmodel.config import SimulationConfig
from perfmodel.expert_times import expert_times
from perfmodel.in_memory_config import InMemory
from predictor.policies.tuning import Tried
from predictor.row_network.integers import CERTAIN
from study.figures.style import to_svg
from study.figures.system.experts import expert_over_tokens
from study.figures.system.looks import FILLS, LINES, SHORT
from study.figures.system.maps import HOSTS, LINKS, map_of_winners
from study.figures.system.prices import has_prices, time_over_price
from study.figures.system.times import parts_of_a_token, time_by_share
from tests.study.system.made_comparisons import LEARNED, TIMES, line, point


def test_every_row_of_the_comparison_has_a_look_in_every_figure() -> None:
    from predictor.policies.rows import _computing, _fetching

    rows = [*_fetching(), *_computing()]
    assert {row.name for row in rows} == set(LINES)
    assert {row.name for row in rows if not row.candidates[0].policy.is_oracle} == set(FILLS) == set(SHORT)


def test_the_figures_say_what_the_comparison_says() -> None:
    points = [point(TIMES, "background, learned", share=0.25), point(TIMES, "background, learned")]
    by_share: Any = time_by_share(points)
    fetching, computing = by_share.axes
    drawn = {text.get_label(): list(text.get_ydata()) for axes in (fetching, computing) for text in axes.get_lines()}
    assert drawn["LRU"] == [4.0, 4.0]
    assert drawn["Belady + perfect prefetch (oracle)"] == [1.0, 1.0]
    assert drawn["everything resident"] == [0.5, 0.5]
    parts: Any = parts_of_a_token(points[0])
    said = [text.get_text() for text in parts.axes[0].texts]
    assert said == ["4 ms", "3 ms", "1 ms", "2 ms", "1.6 ms"]


def test_the_map_says_of_each_link_what_wins_and_by_how_much() -> None:
    cells = [
        point(TIMES, "background, learned", link=16.0, host=20.0),
        point(TIMES, "learned", spread=0.5, link=32.0, host=20.0),
    ]
    grid: Any = map_of_winners(cells, LINKS, 32.0)
    assert [text.get_text() for text in grid.axes[0].texts] == [
        "host + learned\n1.25\u202f×",
        "learned\n0.67\u202f×",
        "→ no more than the host's memory reads: 20 GB/s",
    ]
    assert [bool(patch.get_hatch()) for patch in grid.axes[0].patches] == [False, False, True, False]
    assert re.search(r"<svg", to_svg(grid, "map"))


@pytest.mark.parametrize(("own", "frames"), [(300.0, 1), (261.0, 0)])
def test_the_second_map_frames_the_machines_own_host_memory_where_it_is_on_the_axis(own: float, frames: int) -> None:
    cells = [point(TIMES, "background, learned", host=host) for host in (60.0, 300.0)]
    grid: Any = map_of_winners(cells, HOSTS, own)
    (axes,) = grid.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["60", "300"]
    assert len([patch for patch in axes.patches if not patch.get_fill()]) == frames
    assert len(axes.lines) == 0


def test_memories_slower_than_the_link_are_set_apart() -> None:
    cells = [point(TIMES, "background, learned", link=64.0, host=host) for host in (16.0, 60.0, 300.0)]
    (axes,) = map_of_winners(cells, HOSTS, 300.0).axes
    assert list(axes.lines[0].get_xdata()) == [1.5, 1.5]
    assert axes.texts[-1].get_text().startswith("← the link moves no more")


def test_the_price_is_drawn_over_the_time_of_its_own_kind_of_background_loads() -> None:
    """Prices of the other kind, and policies without background loads, are left out; the chosen price is ringed."""
    host = LEARNED.model_copy(update={"missing": LEARNED.missing.HOST})
    tried = (
        Tried(policy=host.model_copy(update={"price": 0}), step_s=9.0),
        *(
            Tried(policy=LEARNED.model_copy(update={"price": price}), step_s=time)
            for price, time in ((CERTAIN, 1.5e-3), (0, 2e-3), (LEARNED.price, 1e-3))
        ),
        Tried(policy=LEARNED.model_copy(update={"background": False, "price": 0}), step_s=0.5e-3),
    )
    told = point(TIMES, "background, learned")
    assert not has_prices(told)
    lines = [*told.lines[:-1], line("background, learned", 1.0, tried=tried)]
    told = told.model_copy(update={"lines": lines})
    assert has_prices(told)
    (axes,) = time_over_price(told).axes
    curve, ring = axes.get_lines()
    assert list(curve.get_xdata()) == pytest.approx([0.0, 1.0, 1.5], abs=1e-4)
    assert list(curve.get_ydata()) == pytest.approx([100.0, 50.0, 0.0])
    assert [*ring.get_xdata(), *ring.get_ydata()] == pytest.approx([1.5, 0.0], abs=1e-4)
    assert curve.get_label() == "background, learned: 1 ms at best"


def test_the_figure_of_one_expert_marks_from_where_on_memory_loses() -> None:
    config = SimulationConfig(in_memory=InMemory(), host_gb_per_s=76, host_tflops=1)
    of = expert_times("gpt-oss-20b", config)
    figure: Any = expert_over_tokens(of)
    (axes,) = figure.axes
    assert len(figure.legends[0].get_texts()) == 6
    lost = of.lost
    turns = [str(lost.to_fetched), str(lost.to_host_fetched), str(lost.more_to_resident)]
    assert [text.get_text() for text in axes.texts] == turns
    dots = [line for line in axes.get_lines() if line.get_marker() == "o" and line.get_fillstyle() == "full"]
    assert len(dots) == 2
    drawn = {line.get_label(): line for line in axes.get_lines()}
    alone = drawn["in memory, alone"]
    for dot in dots:
        # Each dot lies where the rival's curve meets memory's, within the straight lines between what is drawn.
        (x,), (y,) = dot.get_data()
        own = float(np.interp(x, alone.get_xdata(), alone.get_ydata()))
        assert y == pytest.approx(own, rel=0.15)
    assert not expert_over_tokens(expert_times("gpt-oss-20b", config, tokens=(1, 2))).axes[0].texts
