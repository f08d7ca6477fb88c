"""Figures of the caches: hit rate over capacity, and the share of the LRU-Belady gap that policies close."""

from dataclasses import replace
from typing import Any

from matplotlib.figure import Figure

from study.figures.labels import CurveEnd, label_ends
from study.figures.style import BLUE, BOUND, GREEN, ORANGE, PURPLE, SKY, VERMILION, figure_style, new_figure
from study.numbers import tokens_of

_LOOK: dict[str, dict[str, Any]] = {
    "lru": {"color": BLUE, "marker": "o", "label": "LRU"},
    "lfu": {"color": ORANGE, "marker": "s", "label": "LFU"},
    "ema": {"color": GREEN, "marker": "^", "label": "decayed frequency"},
    "next use": {"color": VERMILION, "marker": "D", "linewidth": 2.2, "label": "next use, learned"},
    "belady": {"color": BOUND, "linestyle": "--", "label": "Belady (bound)"},
    "static": {"color": BOUND, "linestyle": ":", "label": "most used, static (null)"},
    "static, profiled": {"color": SKY, "linestyle": ":", "label": "most used in training"},
}
_ORACLE: dict[str, Any] = {"color": PURPLE, "linestyle": ":", "linewidth": 1.2}

AIM = 0.6
"""Share of the LRU-Belady gap that the project aims to close."""

LOWEST_SHARE = -30
"""Lowest share shown, in per cent; lower ones are cut off, so that the others can be distinguished."""


def hit_rate_over_capacity(points: list[dict[str, Any]], experts: int) -> Figure:
    """Hit rate over the share of a layer's experts held; ``points`` are documents of ``staging.simulate``."""
    with figure_style():
        figure, (axes,) = new_figure(height_in=2.8)
        for policy, look in _LOOK.items():
            own = sorted((p["capacity"], p["hit_rate"]) for p in points if p["policy"] == policy)
            if own:
                axes.plot([100 * c / experts for c, _ in own], [100 * rate for _, rate in own], markersize=4, **look)
        axes.set(
            xlabel=f"experts held, % of a layer's {experts}",
            ylabel="hit rate, %",
            ylim=(0, 102),
            title="Hit rate of a cache in each layer",
        )
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def policies_over_capacity(comparison: dict[str, Any]) -> Figure:
    """Hit rates (top) and shares of the gap closed (bottom) over the experts held.

    ``comparison``: JSON values of ``predictor.next_use.evaluate.CacheComparison``. The bands are 95 % intervals over
    sequences, the dashed line of the lower axes the project's aim.
    """
    shared = comparison["scope"] == "global"
    with figure_style():
        figure = Figure(figsize=(7.2, 5.4))
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1))
        ends = [_curve(above, comparison, policy, "hit_rate") for policy in comparison["policies"]]
        # A static cache pays no first loads, so it is not between LRU and Belady.
        shares = [p for p in comparison["policies"] if p not in ("lru", "belady") and not p.startswith("static")]
        share_ends = [_curve(below, comparison, policy, "share_closed") for policy in shares]
        below.axhline(100 * AIM, color=BOUND, linestyle="--", linewidth=1)
        capacities = sorted({point["capacity"] for point in comparison["points"]})
        # To the left of the first point there is no curve.
        below.annotate(
            "aim", (0, 100 * AIM), (2, -2), xycoords=("axes fraction", "data"), textcoords="offset points", color=BOUND,
            fontsize=8, ha="left", va="top",
        )  # fmt: skip
        above.set(ylabel="hit rate, %", xticks=capacities)
        lowest = min(point["share_closed"] or 0 for point in comparison["points"] if point["policy"] in shares)
        below.set(
            ylabel="share of LRU to Belady, %",
            xlabel=f"experts held, of {comparison['experts'] * (comparison['layers'] if shared else 1)} "
            + ("in all" if shared else "a layer"),
            ylim=(max(LOWEST_SHARE, 100 * lowest - 5), 102),
        )
        above.set_title(
            f"{comparison['model']}: {tokens_of(comparison['tokens'], comparison['sequences'])}, "
            + ("one cache" if shared else "a cache a layer")
            + (", synthetic" if comparison["synthetic"] else "")
        )
        # The oracles are named in the lower axes, where there is room.
        label_ends(above, [end for end in ends if end is not None and end.colour != _ORACLE["color"]])
        floor = below.get_ylim()[0]
        label_ends(below, [replace(end, y=max(end.y, floor)) for end in share_ends if end is not None])
    return figure


def _curve(axes: Any, comparison: dict[str, Any], policy: str, value: str) -> CurveEnd | None:
    """Draw one policy's curve, with its interval if it has one; return its end, ``None`` if it has no point."""
    own = sorted((p for p in comparison["points"] if p["policy"] == policy), key=lambda p: p["capacity"])
    known = [p for p in own if p[value] is not None]
    look = dict(_LOOK.get(policy, _ORACLE))
    name = look.pop("label", policy.replace("oracle", "tokens known:"))
    at = [p["capacity"] for p in known]
    axes.plot(at, [100 * p[value] for p in known], markersize=4, **look)
    banded = [p for p in known if p["interval"] is not None]
    if value == "share_closed" and banded:
        axes.fill_between(
            [p["capacity"] for p in banded],
            [100 * p["interval"][0] for p in banded],
            [100 * p["interval"][1] for p in banded],
            color=look["color"],
            alpha=0.18,
            linewidth=0,
        )
    return CurveEnd(at[-1], 100 * known[-1][value], name, look["color"]) if known else None
