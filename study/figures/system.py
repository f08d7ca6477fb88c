"""Figures of the system model: where a token's time goes, and TPOT over the host link's bandwidth."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from study.figures.style import BLUE, BOUND, GREEN, ORANGE, PURPLE, SKY, VERMILION, figure_style, new_figure

PARTS = {
    "compute_s": ("operations", GREEN),
    "hbm_s": ("HBM", BLUE),
    "demand_wait_s": ("waiting for demand loads", VERMILION),
    "late_prefetch_wait_s": ("waiting for late prefetches", ORANGE),
    "engine_latency_s": ("prefetch engine", PURPLE),
}
"""Parts of a token's time, in the order in which they are stacked."""

LINES = {
    "on_demand": {"color": VERMILION, "marker": "o"},
    "lru_cache": {"color": BLUE, "marker": "s"},
    "st_moe_prefetch": {"color": GREEN, "marker": "D"},
    "perfect_prefetch": {"color": BOUND, "linestyle": "--"},
    "all_resident": {"color": BOUND, "linestyle": ":"},
}


def time_per_token(runs: list[dict[str, Any]], labels: list[str], bounds: list[bool]) -> Figure:
    """Mean TPOT of each run in milliseconds, as stacked parts; bounds are drawn pale."""
    with figure_style():
        figure, (axes,) = new_figure(height_in=0.9 + 0.36 * len(runs))
        rows = range(len(runs))
        left = [0.0] * len(runs)
        shown = []
        for part, (name, colour) in PARTS.items():
            widths = [1e3 * run["tpot_parts_s"][part] for run in runs]
            if not any(widths):
                continue
            shown.append((name, colour))
            bars = axes.barh(rows, widths, left=left, color=colour, height=0.62)
            for bar, bound in zip(bars, bounds, strict=True):
                bar.set_alpha(0.5 if bound else 1.0)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        for row, total in zip(rows, left, strict=True):
            axes.annotate(
                f"{total:.3g} ms", (total, row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8
            )
        axes.set_yticks(rows, labels)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set(
            xlabel="time per output token, ms (mean)", xlim=(0, 1.12 * max(left)), title="Where a token's time goes"
        )
        names = [name for name, _ in shown]
        handles = [Patch(color=colour) for _, colour in shown]
        axes.legend(handles, names, loc="lower right")
    return figure


def tpot_over_bandwidth(sweep: list[dict[str, Any]], labels: dict[str, str], machine_gb_per_s: float) -> Figure:
    """TPOT over the host link's bandwidth, both logarithmic; one line per policy."""
    with figure_style():
        figure, (axes,) = new_figure(height_in=3.2)
        for policy, look in LINES.items():
            points = sorted((point["link_gb_per_s"], 1e3 * point["tpot_s"][policy]) for point in sweep)
            axes.plot(*zip(*points, strict=True), markersize=4, label=labels[policy], **look)
        axes.axvline(machine_gb_per_s, color=SKY, linewidth=1)
        axes.annotate(
            "the machine's link",
            (machine_gb_per_s, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, -9),
            textcoords="offset points",
            fontsize=8,
            color=BLUE,
        )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set(
            xlabel="host link, GB/s",
            ylabel="time per output token, ms",
            title="What bandwidth buys",
        )
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
