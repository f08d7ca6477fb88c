"""Figures of the trace: temporal overlap and load skew, layer by layer."""

from typing import Any

from matplotlib.figure import Figure

from study.figures.style import BLUE, BOUND, ORANGE, figure_style, new_figure


def routing_by_layer(statistics: dict[str, Any]) -> Figure:
    """Experts shared by consecutive tokens, and load skew, for every layer (``traces.statistics`` document)."""
    with figure_style():
        figure, (overlap, load) = new_figure(height_in=2.7, columns=2)
        layers = range(statistics["layers"])
        rows = statistics["by_layer"]
        overlap.bar(layers, [row["temporal_overlap"] or 0.0 for row in rows], color=BLUE, width=0.75)
        overlap.axhline(statistics["random_overlap"], color=BOUND, linestyle="--", linewidth=1.2)
        overlap.annotate(
            "K²/N: independent choices",
            xy=(0.99, statistics["random_overlap"]),
            xycoords=("axes fraction", "data"),
            xytext=(0, 5),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        )
        overlap.set(
            xlabel="MoE layer", ylabel=f"shared experts of {statistics['top_k']}", title="Consecutive tokens share"
        )
        load.bar(layers, [row["hottest_over_mean"] or 0.0 for row in rows], color=ORANGE, width=0.75)
        load.axhline(1.0, color=BOUND, linestyle="--", linewidth=1.2)
        load.set(xlabel="MoE layer", ylabel="hottest / mean", title="Load of the hottest expert")
        for axes in (overlap, load):
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(axis="x", visible=False)
    return figure
