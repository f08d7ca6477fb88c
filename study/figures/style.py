"""The style of all figures, and their conversion to SVG for the report."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure

matplotlib.use("Agg")

# Okabe and Ito's palette, which colour-blind readers can distinguish too.
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, YELLOW, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#F0E442",
    "#6b7280",
)
CYCLE = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
BOUND = GREY
"""Colour of every bound and oracle (perfect, Belady, random), dashed or dotted."""

# matplotlib types the keys as literals; it checks these itself when the context is entered.
_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "axes.prop_cycle": cycler(color=CYCLE),
    "figure.constrained_layout.use": True,
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Set the style; draw inside this context."""
    with matplotlib.rc_context(_RC):
        yield


def new_figure(width_in: float = 7.2, height_in: float = 3.0, columns: int = 1) -> tuple[Figure, list[Any]]:
    """A figure with ``columns`` axes side by side."""
    figure = Figure(figsize=(width_in, height_in))
    axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(axes)


def to_svg(figure: Figure, identity: str) -> str:
    """The figure as an inline SVG element with ids unique to ``identity``; the same data give the same text."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "forestage"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    return re.sub(r'(id="|href="#|url\(#)', rf"\1{identity}-", text)
