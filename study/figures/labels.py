"""Write the names of curves at their ends, in place of a legend."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_GAP = 0.052
"""Least distance between two names, as a share of the axes' height: a line of small print."""

_NAMES_AT = 1.05
"""Where names begin, as a share of the axes' width."""


@dataclass(frozen=True)
class CurveEnd:
    """The last point of a curve, its name and its colour."""

    x: float
    y: float
    text: str
    colour: str


def label_ends(axes: Any, ends: Sequence[CurveEnd]) -> None:
    """Write each name to the right of ``axes``, near the height of its curve's end and with a thin line to it.

    The limits of the axes must be final.
    """
    low, high = axes.get_ylim()
    ordered = sorted(ends, key=lambda end: end.y)
    heights = spread([(end.y - low) / (high - low) for end in ordered], _GAP)
    for end, height in zip(ordered, heights, strict=True):
        line = {"arrowstyle": "-", "color": end.colour, "linewidth": 0.6, "alpha": 0.6, "shrinkA": 2, "shrinkB": 1}
        axes.annotate(
            end.text,
            xy=(end.x, end.y),
            xytext=(_NAMES_AT, height),
            textcoords="axes fraction",
            color=end.colour,
            fontsize=8,
            va="center",
            annotation_clip=False,
            arrowprops={**line, "relpos": (0, 0.5)},
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending ``heights`` (0 … 1), moved so that neighbours are at least ``gap`` apart; within 0 … 1 if they fit.

    Neighbours that are too close form a group, which is centred on the mean of its members' own heights.
    """
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _lowest(groups[-2], gap) + gap * len(groups[-2]) > _lowest(groups[-1], gap):
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_lowest(group, gap) + gap * place for group in groups for place in range(len(group))]


def _lowest(group: list[float], gap: float) -> float:
    """The height of a group's first member."""
    reach = gap * (len(group) - 1)
    return max(0.0, min(sum(group) / len(group) - reach / 2, 1.0 - reach))
