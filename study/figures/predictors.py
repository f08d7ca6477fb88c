"""Figures of the predictors: recall against what is issued, and recall layer by layer."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from study.figures.style import BOUND, CYCLE, figure_style, new_figure

Evaluations = list[dict[str, Any]]
"""Documents of ``predictor.evaluate``, one a predictor."""

MARKERS = "osDv^P*X"


def recall_against_issued(evaluations: Evaluations, experts: int, top_k: int) -> Figure:
    """Recall over experts issued a layer, one line a predictor, between the perfect and the random bound."""
    with figure_style():
        figure, (axes,) = new_figure(height_in=3.4)
        largest = max(value for e in evaluations for value in e["issued"].values() if value is not None)
        issued = np.linspace(0, largest, 200)
        axes.plot(issued, np.minimum(issued / top_k, 1.0), color=BOUND, linestyle="--", label="perfect (bound)")
        axes.plot(issued, issued / experts, color=BOUND, linestyle=":", label="random (floor)")
        for number, evaluation in enumerate(evaluations):
            _curve(axes, evaluation, CYCLE[number % len(CYCLE)], MARKERS[number % len(MARKERS)])
        axes.set(
            xlabel="experts issued a layer and token (mean)",
            ylabel="recall",
            xlim=(0, None),
            ylim=(0, 1.02),
            title="Recall against prefetch traffic",
        )
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _curve(axes: Any, evaluation: dict[str, Any], colour: str, marker: str) -> None:
    """One predictor's points, joined; its own threshold, where it has one, is the large open mark."""
    capped = [(evaluation["issued"][k], evaluation["recall"][k]) for k in evaluation["recall"] if k != "own"]
    axes.plot(*zip(*capped, strict=True), color=colour, marker=marker, markersize=4, label=evaluation["predictor"])
    if "own" in evaluation["recall"]:
        own = (evaluation["issued"]["own"], evaluation["recall"]["own"])
        axes.plot(*own, marker=marker, markersize=10, markerfacecolor="none", color=colour, linestyle="none")


def recall_by_layer(evaluations: Evaluations, limit: str) -> Figure:
    """Recall at ``limit`` issued experts for every target layer, one line a predictor."""
    with figure_style():
        figure, (axes,) = new_figure(height_in=2.8)
        for number, evaluation in enumerate(evaluations):
            points = [(row["layer"], row["recall"][limit]) for row in evaluation["by_layer"]]
            layers, recalls = zip(*((layer, r) for layer, r in points if r is not None), strict=True)
            axes.plot(
                layers,
                recalls,
                color=CYCLE[number % len(CYCLE)],
                marker=MARKERS[number % len(MARKERS)],
                markersize=4,
                label=evaluation["predictor"],
            )
        axes.set(xlabel="target MoE layer", ylabel=f"recall@{limit}", ylim=(0, 1.02), title=f"Recall@{limit} by layer")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
