"""Time per token by share of experts held, and where a token's time goes."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from perfmodel.comparison import Comparison, Line
from predictor.policies.rows import FETCH, HOST
from study.figures.style import BLUE, BOUND, GREEN, ORANGE, PURPLE, VERMILION, figure_style, new_figure
from study.figures.system.looks import ALL_RESIDENT, LINES
from study.system.words import row_name

PARTS = {
    "compute": ("operations", GREEN),
    "hbm": ("reading weights from HBM", BLUE),
    "demand_wait": ("waiting for demand loads", VERMILION),
    "late_wait": ("waiting for loads on their way", ORANGE),
    "host_wait": ("waiting for the host", PURPLE),
}
"""Parts of a token's time, in the order in which they are stacked."""

LEAST_NAMED = 0.002
"""Share of the longest bar below which a part cannot be seen and is not named."""

FAMILIES = {FETCH: "A missing expert is fetched", HOST: "The host may compute it"}


def time_by_share(points: Sequence[Comparison]) -> Figure:
    """Time per token over the share of experts held, logarithmic; one side for each family, oracles pale and dashed."""
    families = [family for family in FAMILIES if any(line.family == family for line in points[0].lines)]
    with figure_style():
        figure = Figure(figsize=(7.2, 5.0))
        sides = list(figure.subplots(1, len(families), sharex=True, sharey=True, squeeze=False)[0])
        shares = [100 * point.config.capacity_fraction for point in points if point.config.capacity_fraction]
        for axes, family in zip(sides, families, strict=True):
            for name in (line.name for line in points[0].lines if line.family == family):
                times = [1e3 * point.line(name).outcome.tpot.mean_s for point in points]
                axes.plot(shares, times, markersize=4, label=row_name(points[0].line(name)), **LINES[name])
            resident = [1e3 * point.all_resident_s for point in points]
            axes.plot(shares, resident, label="everything resident", **ALL_RESIDENT)
            axes.set_title(FAMILIES[family])
            axes.set(xlabel="experts held, % of all", xticks=shares)
            axes.xaxis.set_major_formatter("{x:g}")
            axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.17), ncols=1)
        first = sides[0]
        first.set_yscale("log")
        first.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        first.yaxis.set_major_formatter("{x:g}")
        first.yaxis.set_minor_formatter(NullFormatter())
        first.set_ylabel("time per output token, ms")
    return figure


def parts_of_a_token(point: Comparison) -> Figure:
    """The mean time per token of each row in milliseconds, as stacked parts; oracles are drawn pale."""
    lines = point.lines
    with figure_style():
        figure, (axes,) = new_figure(height_in=1.1 + 0.3 * len(lines))
        rows = _rows(lines)
        left = [0.0] * len(lines)
        shown = []
        for part, (name, colour) in PARTS.items():
            widths = [1e3 * line.outcome.parts_s[part] for line in lines]
            if not any(widths):
                continue
            if max(widths) > LEAST_NAMED * 1e3 * max(line.outcome.tpot.mean_s for line in lines):
                shown.append((name, colour))
            bars = axes.barh(rows, widths, left=left, color=colour, height=0.66)
            for bar, line in zip(bars, lines, strict=True):
                bar.set_alpha(0.4 if line.is_oracle else 1.0)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        for row, total, line in zip(rows, left, lines, strict=True):
            axes.annotate(
                f"{total:.3g} ms",
                (total, row),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                fontweight="bold" if line.name == point.recommended else "normal",
            )
        axes.set_yticks(rows, [row_name(line) for line in lines])
        for tick, line in zip(axes.get_yticklabels(), lines, strict=True):
            tick.set_fontweight("bold" if line.name == point.recommended else "normal")
            tick.set_color(BOUND if line.is_oracle else "black")
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="time per output token, ms (mean)", xlim=(0, 1.13 * max(left)))
        axes.set_title("Where a token's time goes", x=0)
        handles = [Patch(color=colour) for _, colour in shown]
        figure.legend(handles, [name for name, _ in shown], loc="outside lower center", ncols=min(len(shown), 3))
    return figure


def _rows(lines: Sequence[Line]) -> list[float]:
    """Heights of the bars: a gap between the families."""
    return [row + 0.6 * (line.family == HOST) for row, line in enumerate(lines)]
