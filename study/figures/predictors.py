"""Figures of the predictors: recall against issued experts, and recall by layer."""

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from study.figures.labels import CurveEnd, label_ends
from study.figures.style import BOUND, CYCLE, figure_style, new_figure
from study.numbers import layers_text, tokens_of

Document = dict[str, Any]
"""JSON values of ``predictor.measure.compare.Comparison``."""

COLOURS = (*CYCLE, "#1f2937", "#92400e", "#6d28d9")
DASHES = ("-", (0, (5, 1.2)), (0, (1.5, 1)))
"""Line styles, one for each pass through the colours."""

_BAND = 0.18  # opacity of an interval
_LIMIT_MARK: dict[str, Any] = {"marker": "o", "markersize": 3.2, "linestyle": "none"}
_OWN_MARK: dict[str, Any] = {
    "marker": "o",
    "markersize": 9,
    "markerfacecolor": "none",
    "linestyle": "none",
    "zorder": 5,
}


def look(comparison: Document, number: int) -> dict[str, Any]:
    """The line style of predictor ``number``, the same in every figure; trained ones have thicker lines."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
        "linewidth": 1.3 if comparison["evaluations"][number]["file"] is None else 2.2,
    }


def recall_against_issued(comparison: Document) -> Figure:
    """Recall over bytes issued per token and layer, one curve per predictor, with the perfect and the random bound.

    A curve's points are the issue limits 1 … half of the experts. Dots mark the limits in the tables, the band is the
    95 % interval over sequences, and the large open mark is a predictor uncapped. If the size of an expert is not
    known, the abscissa is in experts.
    """
    with figure_style():
        figure, (axes,) = new_figure(height_in=4.2)
        unit, _ = _unit(comparison)
        reach = _reach(comparison)
        axes.set(xlim=(0, reach * 1.015 * unit), ylim=(0, 1.03), ylabel="recall of the experts needed")
        _bounds(axes, comparison, unit)
        ends = [_curve(axes, comparison, number, unit) for number in range(len(comparison["curves"]))]
        _abscissa(axes, comparison)
        _key(axes, comparison)
        axes.set_title(
            f"{comparison['model']}: {tokens_of(comparison['tokens'], comparison['sequences'])}, "
            f"{layers_text(comparison['lookahead'])} ahead" + (", synthetic" if comparison["synthetic"] else "")
        )
        label_ends(axes, [end for end in ends if end is not None])
    return figure


def _reach(comparison: Document) -> float:
    """The most experts that any point issues; a limit or a threshold may be beyond the curves' ends."""
    points = [value for curve in comparison["curves"] for value in curve["issued"]]
    points += [value for evaluation in comparison["evaluations"] for value in evaluation["issued"].values()]
    return max((value for value in points if value), default=1.0)


def _bounds(axes: Any, comparison: Document, unit: float) -> None:
    """Draw the perfect and the random bound, with names along their lines."""
    experts, top_k = comparison["experts"] * unit, comparison["top_k"] * unit
    right = axes.get_xlim()[1]
    axes.plot([0, top_k, max(top_k, right)], [0, 1, 1], color=BOUND, linestyle="--", linewidth=1.1)
    axes.plot([0, right], [0, right / experts], color=BOUND, linestyle=":", linewidth=1.3)
    names = {"color": BOUND, "fontsize": 8, "textcoords": "offset points"}
    axes.annotate("perfect", (0.8 * top_k, 0.8), (-5, 0), ha="right", va="center", **names)
    axes.annotate("random", (0.4 * right, 0.4 * right / experts), (4, -3), ha="left", va="top", **names)


def _curve(axes: Any, comparison: Document, number: int, unit: float) -> CurveEnd | None:
    """Draw one predictor's curve, its interval, the limits in the tables and its uncapped point.

    Returns the curve's end; ``None`` if it has no point.
    """
    curve, evaluation, style = comparison["curves"][number], comparison["evaluations"][number], look(comparison, number)
    issued, recall, low, high = (np.array(curve[key], float) for key in ("issued", "recall", "low", "high"))
    axes.fill_between(issued * unit, low, high, color=style["color"], alpha=_BAND, linewidth=0)
    axes.plot(issued * unit, recall, **style)
    # A metric without recorded rows is ``None``.
    for key in (key for key, value in evaluation["recall"].items() if value is not None):
        mark = _OWN_MARK if key == "own" else _LIMIT_MARK
        axes.plot(evaluation["issued"][key] * unit, evaluation["recall"][key], color=style["color"], **mark)
    own = "own" in evaluation["recall"]
    end = (evaluation["issued"]["own"], evaluation["recall"]["own"]) if own else (issued[-1], recall[-1])
    if end[1] is None or np.isnan(end[1]):
        return None
    return CurveEnd(float(end[0] * unit), float(end[1]), curve["predictor"], style["color"])


def _unit(comparison: Document) -> tuple[float, str]:
    """The size of one expert on the abscissa, and its unit; 1 and no unit if the size is not known."""
    expert_bytes = comparison["size"]["expert_bytes"]
    if expert_bytes is None:
        return 1.0, ""
    return (expert_bytes / 1e6, "MB") if expert_bytes >= 1e6 else (expert_bytes / 1e3, "kB")


def _abscissa(axes: Any, comparison: Document) -> None:
    """Label the abscissa in bytes (below) and experts (above), or only in experts if their size is not known."""
    unit, name = _unit(comparison)
    if not name:
        axes.set_xlabel("experts issued a token and layer")
        return
    axes.set_xlabel(f"issued a token and layer, {name} ({unit:.3g} {name} an expert, none resident)")
    above = axes.secondary_xaxis("top", functions=(lambda x: x / unit, lambda x: x * unit))
    above.set_xlabel("experts issued a token and layer", color=BOUND, fontsize=8)
    above.tick_params(labelsize=8, colors=BOUND)
    above.spines["top"].set_visible(False)


def _key(axes: Any, comparison: Document) -> None:
    """Explain the marks and the band below the random bound, where no curve runs."""
    limits = ", ".join(comparison["bounds"]["perfect"])
    handles: list[Artist] = [Line2D([], [], color=BOUND, **_LIMIT_MARK, label=f"at most {limits} experts")]
    if any("own" in evaluation["recall"] for evaluation in comparison["evaluations"]):
        handles.append(Line2D([], [], color=BOUND, **_OWN_MARK, label="own threshold, no limit"))
    handles.append(Patch(color=BOUND, alpha=_BAND, linewidth=0, label="95 % over sequences"))
    axes.legend(handles=handles, loc="lower right", fontsize=7.5, labelcolor=BOUND, handlelength=1.4)


def recall_by_layer(comparison: Document, limit: str) -> Figure:
    """Recall at ``limit`` issued experts for every target layer, one line per predictor; open marks are below the
    lookahead and in no mean.
    """
    with figure_style():
        figure, (axes,) = new_figure(height_in=3.2)
        ends = []
        for number, evaluation in enumerate(comparison["evaluations"]):
            style = look(comparison, number)
            name = comparison["curves"][number]["predictor"]
            # Below the lookahead most predictors issue nothing; an unrecorded layer has no recall.
            rows = [row for row in evaluation["by_layer"] if row["issued"][limit]]
            late = [(row["layer"], row["recall"][limit]) for row in rows if not row["early"]]
            early = [(row["layer"], row["recall"][limit]) for row in rows if row["early"]]
            axes.plot(*np.reshape(late, (-1, 2)).T, marker="o", markersize=3, **style)
            axes.plot(*np.reshape(early, (-1, 2)).T, color=style["color"], **{**_OWN_MARK, "markersize": 4})
            if late:
                ends.append(CurveEnd(*late[-1], name, style["color"]))
        axes.set(xlabel="target MoE layer", ylabel=f"recall@{limit}", ylim=(0, 1.02), title=f"Recall@{limit} by layer")
        axes.xaxis.get_major_locator().set_params(integer=True)
        label_ends(axes, ends)
    return figure
