"""Figures of the trace: temporal overlap and load skew, layer by layer."""

from typing import Any

from matplotlib.figure import Figure

from study.figures.style import BLUE, BOUND, GREEN, ORANGE, VERMILION, figure_style, new_figure


def routing_by_layer(statistics: dict[str, Any]) -> Figure:
    """Experts shared by consecutive tokens, and load skew, for every layer (``traces.statistics`` document)."""
    with figure_style():
        figure, (overlap, load) = new_figure(height_in=2.7, columns=2)
        layers = range(statistics["layers"])
        rows = statistics["by_layer"]
        overlap.bar(layers, [row["temporal_overlap"] or 0.0 for row in rows], color=BLUE, width=0.75)
        overlap_nulls(overlap, statistics)
        overlap.set(
            xlabel="MoE layer", ylabel=f"shared experts of {statistics['top_k']}", title="Consecutive tokens share"
        )
        load.bar(layers, [row["hottest_over_mean"] or 0.0 for row in rows], color=ORANGE, width=0.75)
        nulls = [row["uniform_hottest_over_mean"] or 0.0 for row in rows]
        edges = [layer - 0.5 for layer in range(len(rows) + 1)]
        load.stairs(nulls, edges, baseline=None, color=BOUND, linestyle="--", linewidth=1.2)
        load.set(xlabel="MoE layer", ylabel="hottest / mean", title="Load of the hottest expert")
        for axes in (overlap, load):
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(axis="x", visible=False)
        overlap.set_ylim(0, 1.45 * overlap.get_ylim()[1])
        overlap.legend(loc="upper right", fontsize=8)
    return figure


def overlap_nulls(axes: Any, statistics: dict[str, Any]) -> None:
    """Draw the three nulls of the overlap over its bars, which are at 0, 1, 2 …: one level per layer."""
    rows = statistics["by_layer"]
    edges = [layer - 0.5 for layer in range(len(rows) + 1)]
    for name, label, colour, style in (
        ("sequence_overlap", "shuffled in each sequence", VERMILION, "-"),
        ("popularity_overlap", "shuffled over the trace", GREEN, "-"),
    ):
        axes.stairs(
            [row[name] or 0.0 for row in rows], edges, baseline=None, color=colour, linestyle=style, label=label
        )
    axes.axhline(
        statistics["uniform_overlap"], color=BOUND, linestyle="--", linewidth=1.2, label="K²/N: independent, uniform"
    )
