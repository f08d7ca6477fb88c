"""Figure of the caches: hit rate over capacity."""

from typing import Any

from matplotlib.figure import Figure

from study.figures.style import BLUE, BOUND, GREEN, ORANGE, figure_style, new_figure

_LOOK: dict[str, dict[str, Any]] = {
    "lru": {"color": BLUE, "marker": "o", "label": "LRU"},
    "lfu": {"color": ORANGE, "marker": "s", "label": "LFU"},
    "ema": {"color": GREEN, "marker": "^", "label": "decayed frequency"},
    "belady": {"color": BOUND, "linestyle": "--", "label": "Belady (bound)"},
}


def hit_rate_over_capacity(points: list[dict[str, Any]], experts: int) -> Figure:
    """Hit rate over the share of a layer's experts held; ``points`` are documents of ``staging.simulate``."""
    with figure_style():
        figure, (axes,) = new_figure(height_in=2.8)
        for policy, look in _LOOK.items():
            own = sorted((p["capacity"], p["hit_rate"]) for p in points if p["policy"] == policy)
            axes.plot([100 * c / experts for c, _ in own], [100 * rate for _, rate in own], markersize=4, **look)
        axes.set(
            xlabel=f"experts held, % of a layer's {experts}",
            ylabel="hit rate, %",
            ylim=(0, 102),
            title="Hit rate of a per-layer cache, decode",
        )
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
