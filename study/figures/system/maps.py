"""Which policy wins where: a map over the share of experts held and a bandwidth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from perfmodel.comparison import Comparison
from study.figures.style import figure_style, new_figure
from study.figures.system.looks import FILLS, SHORT
from study.system.answer import Verdict, advice
from study.system.machine import host_memory_of, link_of
from study.system.words import ratio_text, share_text


@dataclass(frozen=True)
class MapAxis:
    """The bandwidth along a map.

    Attributes:
        title: of the map.
        label: of the axis.
        value: of a point, GB/s.
        capped: said of the columns whose link is faster than the host's memory; ``{host}`` is the memory's bandwidth.
    """

    title: str
    label: str
    value: Callable[[Comparison], float]
    capped: str


LINKS = MapAxis(
    "Which policy wins over which link",
    "host link, GB/s",
    link_of,
    "→ no more than the host's memory reads: {host:.3g} GB/s",
)
HOSTS = MapAxis(
    "Which policy wins beside which host memory",
    "host memory that can be used, GB/s",
    host_memory_of,
    "← the link moves no more than the memory reads",
)


def map_of_winners(points: Sequence[Comparison], axis: MapAxis, own_gb_per_s: float) -> Figure:
    """Which row is recommended at each bandwidth with each share held, and its gain over the fastest row of the other
    kind (learned, unlearned); hatched where the interval of that gain holds 1. The machine's own bandwidth is framed,
    and columns whose link is faster than the host's memory are set apart.
    """
    columns = sorted({axis.value(point) for point in points})
    shares = sorted({point.config.capacity_fraction or 0.0 for point in points})
    with figure_style():
        figure, (axes,) = new_figure(height_in=0.9 + 0.52 * len(shares))
        for point in points:
            _draw_cell(
                axes, columns.index(axis.value(point)), shares.index(point.config.capacity_fraction or 0.0), point
            )
        axes.set(
            xlim=(-0.5, len(columns) - 0.5),
            ylim=(-0.5, len(shares) - 0.5),
            xlabel=axis.label,
            ylabel="experts held",
        )
        axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
        axes.set_yticks(range(len(shares)), [share_text(share) for share in shares])
        axes.tick_params(length=0)
        axes.grid(visible=False)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        if own_gb_per_s in columns:
            axes.add_patch(
                Rectangle(
                    (columns.index(own_gb_per_s) - 0.5, -0.5), 1, len(shares), fill=False, edgecolor="black",
                    linewidth=1.4, zorder=4, clip_on=False,
                )
            )  # fmt: skip
        said = _set_apart(axes, points, axis, columns, len(shares))
        axes.set_title(axis.title, x=0, pad=20 if said else 6)
    return figure


def _draw_cell(axes: Any, column: int, row: int, point: Comparison) -> None:
    found = advice(point)
    name = found.best.name
    axes.add_patch(
        Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=FILLS[name], edgecolor="white", linewidth=1.5, zorder=1)
    )
    if found.verdict is Verdict.UNCLEAR:
        axes.add_patch(
            Rectangle(
                (column - 0.48, row - 0.47), 0.96, 0.94, fill=False, hatch="////", edgecolor="#ffffff", linewidth=0,
                alpha=0.55, zorder=2,
            )
        )  # fmt: skip
    axes.annotate(
        f"{SHORT[name]}\n{'' if found.gain is None else ratio_text(found.gain)}", (column, row), ha="center",
        va="center", fontsize=7.5, zorder=3, color="white" if name == "learned" else "black",
        fontweight="bold" if found.verdict is Verdict.PAYS else "normal",
    )  # fmt: skip


def _set_apart(axes: Any, points: Sequence[Comparison], axis: MapAxis, columns: Sequence[float], rows: int) -> bool:
    """Draw a line beside the columns whose link is faster than the host's memory: it moves no more than that reads.

    Returns whether there are any.
    """
    capped = sorted({columns.index(axis.value(point)) for point in points if link_of(point) > host_memory_of(point)})
    if not capped:
        return False
    on_the_right = capped[-1] == len(columns) - 1
    at = capped[0] - 0.5 if on_the_right else capped[-1] + 0.5
    axes.plot([at] * 2, [-0.5, rows - 0.5], color="black", linestyle=(0, (4, 2)), linewidth=1.2, clip_on=False)
    name = axes.annotate(
        axis.capped.format(host=host_memory_of(points[0])),
        (len(columns) - 0.5 if on_the_right else -0.5, rows - 0.5),
        xytext=(0, 4), textcoords="offset points", fontsize=8, ha="right" if on_the_right else "left",
        annotation_clip=False,
    )  # fmt: skip
    name.set_in_layout(False)  # else a long name would squeeze the map
    return True
