"""Figures of the learned predictor: recall against SRAM, and the calibration of its probabilities."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from study.figures.labels import CurveEnd, label_ends
from study.figures.style import BLUE, BOUND, CYCLE, ORANGE, figure_style, new_figure

Document = dict[str, Any]


def recall_against_sram(sweep: Document, rival: Document | None) -> Figure:
    """Recall over bytes of SRAM per layer, one line per issue limit; solid with token identity, dashed without.

    Args:
        sweep: the document of ``forestage predictor sweep``.
        rival: ``predictor.measure.evaluate.EvaluationResult`` of the tables to beat, as JSON values, at its own
            threshold.
    """
    results = sweep["results"]
    limits = list(results[0]["recall"])
    with figure_style():
        figure, (axes,) = new_figure(height_in=3.8)
        axes.set_xscale("log", base=2)
        ends = []
        for number, limit in enumerate(limits):
            for with_identity in (True, False):
                chosen = sorted(
                    (item for item in results if item["identity"] == with_identity),
                    key=lambda item: item["sram_bytes"],
                )
                if not chosen:
                    continue
                x = [item["sram_bytes"] for item in chosen]
                y = [item["recall"][limit] for item in chosen]
                style = {"color": CYCLE[number], "linestyle": "-" if with_identity else (0, (4, 1.5))}
                axes.plot(x, y, marker="o", markersize=3.5, linewidth=1.8 if with_identity else 1.2, **style)
                ends_of = [item["intervals"][limit] or (item["recall"][limit],) * 2 for item in chosen]
                low, high = np.array(ends_of, float).T
                axes.fill_between(x, low, high, color=CYCLE[number], alpha=0.15, linewidth=0)
                text = f"best {limit}" + ("" if with_identity else ", no identity")
                ends.append(CurveEnd(x[-1], y[-1], text, CYCLE[number]))
        if rival is not None:
            value, issued = rival["recall"]["own"], rival["issued"]["own"]
            axes.axhline(value, color=BOUND, linestyle="--", linewidth=1.1)
            axes.annotate(
                f"{rival['predictor']}: {value:.3f} with {issued:.1f} issued",
                (1, value), xycoords=("axes fraction", "data"), xytext=(-2, 3), textcoords="offset points",
                ha="right", va="bottom", fontsize=8, color=BOUND,
            )  # fmt: skip
        axes.xaxis.set_major_formatter(FuncFormatter(_binary))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel="SRAM a layer", ylabel="recall of the experts needed")
        axes.set_title(f"{sweep['model']}: learned predictor, by its size" + _mark(sweep))
        label_ends(axes, ends)
    return figure


def reliability_diagram(calibration: Document) -> Figure:
    """Observed frequency over predicted probability, and how often each is predicted."""
    with figure_style():
        figure, (left, right) = new_figure(height_in=3.1, columns=2)
        points = [point for point in calibration["reliability"] if point["count"]]
        x = [point["probability"] for point in points]
        left.plot([0, 1], [0, 1], color=BOUND, linestyle="--", linewidth=1.1)
        left.plot(x, [point["frequency"] for point in points], marker="o", markersize=4, color=BLUE)
        left.annotate(
            "calibrated", (0.62, 0.62), (6, -4), textcoords="offset points", va="top", fontsize=8, color=BOUND
        )
        left.set(xlabel="predicted probability", ylabel="share that was chosen", xlim=(0, 1), ylim=(0, 1))
        left.set_title(f"expected calibration error {calibration['calibration_error']:.4f}")
        edges = np.linspace(0, 1, len(calibration["reliability"]) + 1)
        counts = np.array([point["count"] for point in calibration["reliability"]], float)
        right.bar(edges[:-1], counts / counts.sum(), np.diff(edges), align="edge", color=ORANGE, edgecolor="white")
        right.set_yscale("log")
        right.set(xlabel="predicted probability", ylabel="share of predictions", xlim=(0, 1))
        right.set_title("how often it is said")
        figure.suptitle(
            f"{calibration['model']}: {calibration['predictor']}" + _mark(calibration), x=0.01, ha="left", fontsize=10
        )
    return figure


def _binary(value: float, _: int | None = None) -> str:
    """Bytes of a memory with binary units."""
    return f"{value / 1024:g} KiB" if value >= 1024 else f"{value:g} B"


def _mark(document: Document) -> str:
    return " (synthetic)" if document["synthetic"] else ""
