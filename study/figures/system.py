"""Figures of the whole system: time per token by share held, where a token's time goes, and which policy wins where."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from perfmodel.comparison import Comparison, Line
from perfmodel.rows import FETCH, HOST
from study.answer import Verdict, advice
from study.figures.style import BLUE, BOUND, GREEN, ORANGE, PURPLE, SKY, VERMILION, YELLOW, figure_style, new_figure
from study.numbers import percent

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

LINES: dict[str, dict[str, Any]] = {
    "LRU": {"color": BLUE, "marker": "o"},
    "decayed frequency": {"color": GREEN, "marker": "^"},
    "ST-MoE prefetch": {"color": PURPLE, "marker": "v"},
    "learned prefetch": {"color": ORANGE, "marker": "D"},
    "learned eviction": {"color": SKY, "marker": "s"},
    "learned": {"color": VERMILION, "marker": "o", "linewidth": 2.4},
    "perfect prefetch": {"color": BOUND, "linestyle": ":", "alpha": 0.8},
    "Belady + perfect prefetch": {"color": BOUND, "linestyle": "--", "alpha": 0.8},
    "static placement": {"color": BLUE, "marker": "o"},
    "background, frequency": {"color": GREEN, "marker": "^"},
    "background, learned": {"color": VERMILION, "marker": "o", "linewidth": 2.4},
    "background, oracle of next use": {"color": BOUND, "linestyle": ":", "alpha": 0.8},
    "background, oracle of uses": {"color": BOUND, "linestyle": "--", "alpha": 0.8},
}
ALL_RESIDENT: dict[str, Any] = {"color": BOUND, "linestyle": (0, (1, 3)), "alpha": 0.8}

FAMILIES = {FETCH: "A missing expert is fetched", HOST: "The host may compute it"}

FILLS = {
    "LRU": "#cfe3f1",
    "decayed frequency": "#c9ead9",
    "ST-MoE prefetch": "#ead6e2",
    "learned prefetch": "#f8dfae",
    "learned eviction": "#d3ebf9",
    "learned": VERMILION,
    "static placement": "#e5e7eb",
    "background, frequency": YELLOW,
    "background, learned": ORANGE,
}
"""Colours of the map's cells; of the learned rows strong ones, dark in grey too."""

SHORT = {
    "LRU": "LRU",
    "decayed frequency": "freq.",
    "ST-MoE prefetch": "ST-MoE",
    "learned prefetch": "l. prefetch",
    "learned eviction": "l. eviction",
    "learned": "learned",
    "static placement": "static",
    "background, frequency": "host + freq.",
    "background, learned": "host + learned",
}
"""Rows as written into the map's cells."""


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
                oracle = points[0].line(name).is_oracle
                axes.plot(shares, times, markersize=4, label=labelled(name, oracle=oracle), **LINES[name])
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


def labelled(name: str, *, oracle: bool) -> str:
    """``name``, marked where it knows the future and does not say so itself."""
    return f"{name} (oracle)" if oracle and "oracle" not in name else name


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
        axes.set_yticks(rows, [labelled(line.name, oracle=line.is_oracle) for line in lines])
        for tick, line in zip(axes.get_yticklabels(), lines, strict=True):
            tick.set_fontweight("bold" if line.name == point.recommended else "normal")
            tick.set_color(BOUND if line.is_oracle else "black")
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="time per output token, ms (mean)", xlim=(0, 1.13 * max(left)))
        axes.set_title("Where a token's time goes", x=0)
        handles = [Patch(color=colour) for _, colour in shown]
        figure.legend(handles, [name for name, _ in shown], loc="outside lower center", ncols=4)
    return figure


def _rows(lines: Sequence[Line]) -> list[float]:
    """Heights of the bars: a gap between the families."""
    return [row + 0.6 * (line.family == HOST) for row, line in enumerate(lines)]


def map_of_winners(points: Sequence[Comparison], machine_gb_per_s: float, host_gb_per_s: float | None) -> Figure:
    """Which row is recommended over each link with each share held, and its gain over the fastest row of the other kind
    (learned, unlearned); hatched where the interval of that gain holds 1. The machine's own link is framed, and links
    beyond what the host's memory reads are set apart.
    """
    links = sorted({point.link_gb_per_s for point in points})
    shares = sorted({point.config.capacity_fraction or 0.0 for point in points})
    with figure_style():
        figure, (axes,) = new_figure(height_in=0.9 + 0.52 * len(shares))
        used = []
        for point in points:
            column, row = links.index(point.link_gb_per_s), shares.index(point.config.capacity_fraction or 0.0)
            found = advice(point)
            name = found.best.name
            used.append(name)
            unclear = found.verdict is Verdict.UNCLEAR
            axes.add_patch(
                Rectangle(
                    (column - 0.5, row - 0.5), 1, 1, facecolor=FILLS[name], edgecolor="white", linewidth=1.5, zorder=1
                )
            )
            if unclear:
                axes.add_patch(
                    Rectangle(
                        (column - 0.48, row - 0.47), 0.96, 0.94, fill=False, hatch="////", edgecolor="#ffffff",
                        linewidth=0, alpha=0.55, zorder=2,
                    )
                )  # fmt: skip
            gain = "" if found.gain is None else f"{found.gain.ratio:.2f} ×"
            axes.annotate(
                f"{SHORT[name]}\n{gain}", (column, row), ha="center", va="center", fontsize=7.5, zorder=3,
                color="white" if name == "learned" else "black",
                fontweight="bold" if found.verdict is Verdict.PAYS else "normal",
            )  # fmt: skip
        axes.set(
            xlim=(-0.5, len(links) - 0.5),
            ylim=(-0.5, len(shares) - 0.5),
            xlabel="host link, GB/s",
            ylabel="experts held",
        )
        axes.set_xticks(range(len(links)), [f"{link:g}" for link in links])
        axes.set_yticks(range(len(shares)), [percent(share, 1 if round(1000 * share) % 10 else 0) for share in shares])
        axes.tick_params(length=0)
        axes.grid(visible=False)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        if machine_gb_per_s in links:
            axes.add_patch(
                Rectangle(
                    (links.index(machine_gb_per_s) - 0.5, -0.5), 1, len(shares), fill=False, edgecolor="black",
                    linewidth=1.4, zorder=4, clip_on=False,
                )
            )  # fmt: skip
        _mark_host(axes, links, len(shares), host_gb_per_s)
        axes.set_title("Which policy wins where", x=0, pad=20)
    return figure


def _mark_host(axes: Any, links: Sequence[float], rows: int, host_gb_per_s: float | None) -> None:
    """Set apart the links that are faster than the host's memory: they move no more than it reads."""
    beyond = [number for number, link in enumerate(links) if host_gb_per_s is not None and link > host_gb_per_s]
    if not beyond:
        return
    axes.plot(
        [beyond[0] - 0.5] * 2, [-0.5, rows - 0.5], color="black", linestyle=(0, (4, 2)), linewidth=1.2, clip_on=False
    )
    name = axes.annotate(
        f"→ no more than the host's memory reads: {host_gb_per_s:.3g} GB/s", (len(links) - 0.5, rows - 0.5),
        xytext=(0, 4), textcoords="offset points", fontsize=8, ha="right", annotation_clip=False,
    )  # fmt: skip
    name.set_in_layout(False)  # else a long name would squeeze the map
