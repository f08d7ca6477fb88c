"""The blocks of the prefetch engine and what goes between them."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from study.figures.style import BLUE, figure_style

_WIDTH, _HEIGHT = 168.0, 98.0
_UNIT_IN = 0.046
_INK, _SOFT, _LINE = "#111827", "#4b5563", "#374151"
_PREDICT, _DECIDE, _MOVE, _CONTROL, _OUTSIDE = "#dbeafe", "#d1fae5", "#fde8d0", "#e5e7eb", "#f9fafb"
_HALO = 3.2


def engine_blocks() -> Figure:
    """The diagram; y grows downwards, a unit is 0.046 inches."""
    with figure_style():
        figure = Figure(figsize=(_WIDTH * _UNIT_IN, _HEIGHT * _UNIT_IN))
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, _WIDTH), ylim=(_HEIGHT, 0))
        axes.axis("off")
        _outside(axes)
        _predictors(axes)
        _control(axes)
        _staging(axes)
        _connections(axes)
    return figure


def _outside(axes: Any) -> None:
    """The engine's edge, and what its ports lead to."""
    axes.add_patch(Rectangle((27, 3), 112, 92, fill=False, edgecolor=_SOFT, linewidth=1.1))
    _box(axes, (1, 8, 14, 84), "Whoever\nruns the\nlayers", _OUTSIDE, dashed=True)
    _box(axes, (150, 9, 17, 16), "Memory of\ntexts and\nimages", _OUTSIDE, dashed=True)
    _box(axes, (150, 54, 17, 13), "Far memory\nof experts", _OUTSIDE, dashed=True)
    _box(axes, (150, 71, 17, 13), "Staging\nbuffer", _OUTSIDE, dashed=True)


def _predictors(axes: Any) -> None:
    """Text, net and tables."""
    _box(axes, (55, 10, 36, 14), "Memory of the text", _PREDICT, top=True)
    _box(axes, (56.5, 15, 21, 7.5), "Text unit: n-gram\ntables, log, identity", "white", small=True)
    _box(axes, (79.5, 15, 10, 7.5), "Image\nloader", "white", small=True)
    _box(axes, (55, 29, 36, 29), "Net", _PREDICT, top=True)
    _box(axes, (56.5, 34, 15.5, 12.5), "Sums", "white", small=True, top=True)
    _sram(axes, (57.5, 38, 13.5, 3.3), "rows")
    _sram(axes, (57.5, 42.3, 13.5, 3.3), "accumulators")
    _box(axes, (74, 34, 15.5, 12.5), "Scores", "white", small=True, top=True)
    _sram(axes, (75, 38, 13.5, 3.3), "matrix")
    _sram(axes, (75, 42.3, 13.5, 3.3), "chances")
    _box(axes, (56.5, 49.5, 33, 7), "Selection: merged over slots;\nthe best m; values of a layer", "white", small=True)
    _box(axes, (55, 64, 36, 16), "Tables (ST-MoE)", _PREDICT, top=True)
    _sram(axes, (56.5, 69, 12.5, 4.3), "correlations")
    _sram(axes, (56.5, 74.3, 12.5, 4.3), "history")
    _box(axes, (70.5, 69, 8.5, 9.6), "Scorer", "white", small=True)
    _box(axes, (80.5, 69, 9, 4.3), "Issuer", "white", small=True)
    _box(axes, (80.5, 74.3, 9, 4.3), "Updater", "white", small=True)


def _control(axes: Any) -> None:
    """What takes events, gives notices, and holds settings."""
    _box(axes, (30, 10, 18, 14), "Notices", _CONTROL, "what each slot\nstill waits for")
    _box(axes, (30, 42, 18, 21), "Front end", _CONTROL, "checks an event,\nrefuses a bad one,\ncounts deadlines")
    _box(axes, (30, 85.5, 106, 7.5), "Registers, counters, errors, interrupt", _CONTROL)
    _box(axes, (101, 34, 8, 46), "Arbiter", _CONTROL, vertical=True)


def _staging(axes: Any) -> None:
    """What decides and what moves."""
    _box(axes, (118, 28, 18, 26), "Stager", _DECIDE, top=True)
    _sram(axes, (119.5, 33, 15, 4.2), "directory")
    _box(axes, (119.5, 38.3, 15, 4.4), "Queue", "white", small=True)
    _box(axes, (119.5, 43.4, 15, 4.4), "Places", "white", small=True)
    _box(axes, (119.5, 48.5, 15, 4.4), "Scan, values", "white", small=True)
    _box(axes, (118, 59, 18, 6), "Link", _MOVE)
    _box(axes, (118, 69, 18, 14), "DMA", _MOVE, "legaliser, landing,\nrealigner, read and\nwrite managers")


def _connections(axes: Any) -> None:
    """Streams and buses, each with its words."""
    # The ports.
    _arrow(axes, [(15, 52), (30, 52)], "events", (21, 51.2), port=True)
    _arrow(axes, [(30, 17), (15, 17)], "notices", (21, 16.2), port=True)
    _arrow(axes, [(15, 87.6), (30, 87.6)], "control", (21, 86.8), both=True, port=True)
    _arrow(axes, [(30, 91), (15, 91)], "interrupt", (21, 94.3), port=True)
    _arrow(axes, [(91, 17), (150, 17)], "text", (144.5, 16.2), both=True, port=True)
    _arrow(axes, [(150, 60.5), (141, 60.5), (141, 72), (136, 72)], "far", (145.5, 59.7), both=True, port=True)
    _arrow(axes, [(136, 77.5), (150, 77.5)], "staging", (144.5, 76.7), port=True)
    # Events.
    _arrow(axes, [(48, 50), (51, 50), (51, 19), (55, 19)])
    _arrow(axes, [(51, 40), (55, 40)])
    _arrow(axes, [(48, 50), (51, 50), (51, 72), (55, 72)], "tokens and gates", (49.6, 33), vertical=True)
    _arrow(axes, [(48, 61), (101, 61)], "DEMAND, EXPIRE, RELEASE: at once", (73, 60.3))
    # Predictions.
    _arrow(axes, [(66, 24), (66, 29)], "rows, records", (67, 27.5), left=True)
    _arrow(axes, [(84.5, 24), (84.5, 29)], "load", (85.5, 27.5), left=True)
    _arrow(axes, [(72, 40), (74, 40)], inner=True)
    _arrow(axes, [(82, 46.5), (82, 49.5)], inner=True)
    _arrow(axes, [(91, 51.3), (101, 51.3)], "PREFETCH", (95.6, 50.6))
    _arrow(axes, [(91, 55.3), (101, 55.3)], "VALUES", (95.6, 54.6))
    _arrow(axes, [(91, 72), (101, 72)], "PREFETCH", (95.6, 71.3))
    # Commands, transfers.
    _arrow(axes, [(109, 41), (118, 41)], "one com-\nmand at\na time", (113.5, 40.3))
    _arrow(axes, [(118, 62), (109, 62)], "GRANT\nARRIVE\nPREEMPT\nFAIL", (113.5, 71.8))
    _arrow(axes, [(127, 54), (127, 59)], "transfer", (128, 57.4), left=True)
    _arrow(axes, [(127, 65), (127, 69)], "chunks", (128, 67.9), left=True)
    _arrow(axes, [(127, 28), (127, 6.5), (39, 6.5), (39, 10)], "actions", (60, 5.8))
    # Registers.
    _arrow(axes, [(105, 85.5), (105, 80)], "PRELOAD, FIX", (98.3, 83.7))
    _arrow(axes, [(62.5, 85.5), (62.5, 80)], "window", (63.5, 83.7), both=True, left=True)
    _arrow(axes, [(39, 85.5), (39, 79)], "settings to all,\ncounts and errors\nfrom all", (39, 78), both=True)


def _box(
    axes: Any,
    place: tuple[float, float, float, float],
    title: str,
    colour: str,
    lines: str = "",
    *,
    top: bool = False,
    small: bool = False,
    dashed: bool = False,
    vertical: bool = False,
) -> None:
    """A block; ``top``: its title is above what it contains."""
    x, y, width, height = place
    axes.add_patch(
        FancyBboxPatch(
            (x + 0.5, y + 0.5), width - 1, height - 1, boxstyle="round,pad=0.5,rounding_size=0.7", facecolor=colour,
            edgecolor=_SOFT if dashed or small else _LINE, linewidth=0.6 if small else 0.9,
            linestyle="--" if dashed else "-", zorder=3,
        )
    )  # fmt: skip
    middle = (x + width / 2, y + height / 2)
    look = {"ha": "center", "color": _INK, "zorder": 5, "linespacing": 1.15}
    if top:
        axes.text(middle[0], y + 1.1, title, va="top", fontsize=6.6 if small else 8, weight="bold", **look)
    elif lines:
        axes.text(middle[0], y + 1.6, title, va="top", fontsize=8, weight="bold", **look)
        axes.text(middle[0], y + height / 2 + 2, lines, va="center", fontsize=5.8, **look)
    else:
        axes.text(
            *middle, title, va="center", fontsize=6 if small else 8, weight="normal" if small else "bold",
            rotation=90 if vertical else 0, **look,
        )  # fmt: skip


def _sram(axes: Any, place: tuple[float, float, float, float], name: str) -> None:
    """A memory on the chip."""
    x, y, width, height = place
    axes.add_patch(Rectangle((x, y), width, height, facecolor="#f3f4f6", edgecolor=_SOFT, linewidth=0.6, zorder=4))
    axes.add_patch(Rectangle((x, y), 0.9, height, facecolor=_SOFT, linewidth=0, zorder=4))
    axes.text(x + 0.45 + width / 2, y + height / 2, name, ha="center", va="center", fontsize=5.8, color=_INK, zorder=5)


def _arrow(
    axes: Any,
    points: list[tuple[float, float]],
    words: str = "",
    at: tuple[float, float] = (0, 0),
    *,
    both: bool = False,
    port: bool = False,
    vertical: bool = False,
    left: bool = False,
    inner: bool = False,
) -> None:
    """Along ``points``, over a halo so that lines that cross do not look joined; ``left``: words begin at ``at``."""
    xs, ys = zip(*points, strict=True)
    width = 1.4 if port else 0.9
    if not inner:
        axes.plot(xs, ys, color="white", linewidth=width + _HALO, zorder=1.5, solid_capstyle="butt")
    axes.plot(xs, ys, color=_LINE, linewidth=width, zorder=4 if inner else 2, solid_joinstyle="miter")
    ends = [(points[-2], points[-1]), *([(points[1], points[0])] if both else [])]
    for here, there in ends:
        axes.annotate(
            "", there, here, zorder=6,
            arrowprops={
                "arrowstyle": "-|>", "color": _LINE, "linewidth": 0, "shrinkA": 0, "shrinkB": 0,
                "mutation_scale": 5 if inner else 8,
            },
        )  # fmt: skip
    if words:
        look: dict[str, Any] = {"weight": "bold", "color": BLUE} if port else {"color": _SOFT}
        axes.text(
            *at, words, fontsize=6.6 if port else 5.6, va="center" if vertical else "bottom", zorder=6,
            ha="left" if left else "center", rotation=90 if vertical else 0, linespacing=1.1, **look,
        )  # fmt: skip
