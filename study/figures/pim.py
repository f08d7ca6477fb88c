"""Figures of products in memory: the roofline of a stack, and the commands of a product by bank."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from pim_model.unit.parameters import UnitParameters
from pim_model.unit.schedule import UnitCommand, UnitSchedule
from study.figures.style import BLUE, BOUND, GREEN, ORANGE, PURPLE, VERMILION, figure_style

_LOOK = {
    "bf16": {"color": BLUE, "marker": "o"},
    "int8": {"color": VERMILION, "marker": "s"},
    "mxfp4": {"color": GREEN, "marker": "^"},
}
_BEYOND = 70.0
"""Operations per byte up to which the curves are drawn."""


def roofline(stacks: list[dict[str, Any]]) -> Figure:
    """Rate over operations per byte of weights: each stack's limits, and an expert with some numbers of tokens.

    ``stacks``: documents of ``study.subjects.memory_expert.roofline``.
    """
    with figure_style():
        figure = Figure(figsize=(3.75 * len(stacks) + 0.2, 3.7))
        every = figure.subplots(1, len(stacks), squeeze=False)[0]
        slanted = []
        for number, (axes, stack) in enumerate(zip(every, stacks, strict=True)):
            slanted += _stack(axes, stack, first=number == 0)
        figure.draw_without_rendering()  # now it is known how steep the lines are
        for axes, text in slanted:
            (x0, y0), (x1, y1) = axes.transData.transform([(1, 1), (10, 10)])
            text.set_rotation(np.degrees(np.arctan2(y1 - y0, x1 - x0)))
    return figure


def _stack(axes: Any, stack: dict[str, Any], *, first: bool) -> list[tuple[Any, Any]]:
    """Draw a stack; the texts that go along a slanted line, with their axes."""
    roof, limit, pins = stack["peak_gop_per_s"], stack["limit_gb_per_s"], stack["pins_gb_per_s"]
    low, high = 0.75, 110.0
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(0.04 * roof, 2.4 * roof))
    x = np.geomspace(low, high, 400)
    axes.plot(x, np.minimum(x * limit, roof), color=BOUND, linewidth=1.4)
    axes.plot(x, x * pins, color=BOUND, linewidth=1.4, linestyle="--")
    small = {"fontsize": 7.5, "color": BOUND}
    along = {**small, "rotation_mode": "anchor"}
    slanted = [
        axes.text(0.86, 0.86 * limit * 1.1, f"banks, {limit / 1000:.2g} TB/s", va="bottom", **along),
        axes.text(4.4, 4.4 * pins * 0.9, f"pins, {pins / 1000:.2g} TB/s", va="top", **along),
    ]
    axes.text(1.05 * roof / limit, roof * 1.06, f"lanes, {roof / 1000:.3g} · 10¹²/s", va="bottom", **small)
    ends = []
    for name, look in _LOOK.items():
        points = [point for point in stack["points"] if point["format"] == name]
        once = [point for point in points if point["weight_reads"] == 1]
        more = [point for point in points if point["operations_per_byte"] <= _BEYOND][len(once) - 1 :]
        axes.plot(*_curve(more), color=look["color"], linewidth=1, alpha=0.6)
        axes.plot(*_curve(once), markersize=4, linewidth=1.4, **look)
        for point in once[:-1]:
            # Points of several formats at the same place on the x axis: names below the lowest.
            same = [other for other in stack["points"] if _is_near(other, point)]
            lowest = min(other["gop_per_s"] for other in same)
            axes.annotate(
                _label(point, name), (point["operations_per_byte"], lowest), (6, -1 if name == "bf16" else -10),
                textcoords="offset points", fontsize=7, color=look["color"], va="top",
            )  # fmt: skip
        ends.append((once[-1], name))
    _name_ends(axes, ends, roof)
    lost = ", ".join(f"{name.upper()} {number}" for name, number in stack["slower_from_tokens"].items() if number)
    level = max(point["gop_per_s"] for point, _ in ends)
    axes.annotate(
        "pins are faster from\n" + lost.replace(", ", " tokens,\n", 1) + " tokens", (level / pins, level),
        (14, -24), textcoords="offset points", fontsize=7, color=BOUND, va="top",
    )  # fmt: skip
    xs, ys = _curve(stack["published"])
    axes.plot(xs, ys, color=PURPLE, linewidth=1, alpha=0.6)
    axes.plot(xs[:1], ys[:1], color=PURPLE, marker="D", markersize=3.6)
    axes.annotate(
        "HBM-PIM’s own\nkernel, BF16", (xs[-1], ys[-1]), (5, 0), textcoords="offset points", fontsize=7, color=PURPLE,
        va="center",
    )  # fmt: skip
    axes.set(xlabel="operations per byte of weights")
    axes.set_title(f"{stack['device']}, one stack{'' if stack['published_part'] else ' (blocks assumed)'}")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1000:g}"))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    if first:
        axes.set_ylabel("10¹² operations a second")
    return [(axes, text) for text in slanted]


def _curve(points: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    return [point["operations_per_byte"] for point in points], [point["gop_per_s"] for point in points]


def _is_near(point: dict[str, Any], other: dict[str, Any]) -> bool:
    return 0.9 < point["operations_per_byte"] / other["operations_per_byte"] < 1.1


def _label(point: dict[str, Any], name: str) -> str:
    return f"{name.upper()} · {point['tokens']}"


def _name_ends(axes: Any, ends: list[tuple[dict[str, Any], str]], roof: float) -> None:
    """Write what each format reaches with one read of the weights, above one another."""
    left, lowest, line = 0.82, 0.86 * roof, 1.21
    ordered = sorted(ends, key=lambda end: end[0]["gop_per_s"])
    for place, (point, name) in enumerate(ordered):
        colour = _LOOK[name]["color"]
        axes.annotate(
            _label(point, name),
            (point["operations_per_byte"], point["gop_per_s"]),
            (left, lowest * line**place),
            textcoords="data",
            fontsize=7,
            color=colour,
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.7, "relpos": (1, 0.5)},
        )
    axes.text(left, lowest * line ** len(ordered), "format · tokens", fontsize=7, color="#374151", va="center")


_OPEN, _ACT_COLOUR, _REFRESH = "#dbe4ee", "#111827", "#d1d5db"


def timeline(
    schedule: UnitSchedule, parameters: UnitParameters, title: str, window: tuple[int, int] | None = None
) -> Figure:
    """The commands of a program by bank, with a lane each for loads and readbacks; ``window``: clocks shown."""
    blocks, timings = parameters.blocks.blocks, parameters.timings
    first, last = (0, schedule.done_ck) if window is None else window
    lanes = 2 * blocks + 2
    with figure_style():
        figure = Figure(figsize=(7.4, 0.6 + 0.155 * lanes))
        axes = figure.subplots()
        for half in (0, 1):
            for block in range(blocks):
                row = half * (blocks + 0.6) + block
                opened, closed = _open_periods(schedule, half, block, last)
                axes.broken_barh(
                    list(zip(opened, closed - opened, strict=True)), (row - 0.42, 0.84), color=_OPEN, linewidth=0
                )
            begins, ends = _reading(schedule, half, timings.interval)
            axes.broken_barh(
                list(zip(begins, ends - begins, strict=True)),
                (half * (blocks + 0.6) - 0.42, blocks - 0.16),
                facecolors=(BLUE, VERMILION)[half],
                alpha=0.75,
                linewidth=0,
            )
            acts = (schedule.command == UnitCommand.ACT) & (schedule.half == half)
            rows = half * (blocks + 0.6) + schedule.block[acts]
            axes.vlines(schedule.clock_ck[acts], rows - 0.42, rows + 0.42, color=_ACT_COLOUR, linewidth=1.1)
        for lane, (command, colour) in enumerate(((UnitCommand.LDI, ORANGE), (UnitCommand.RDA, PURPLE))):
            row = 2 * blocks + 1.3 + lane * 1.15
            clocks = schedule.clock_ck[schedule.command == command]
            axes.vlines(clocks, row - 0.45, row + 0.45, color=colour, linewidth=0.8)
        bottom = 2 * blocks + 3.2
        for clock in schedule.clock_ck[schedule.command == UnitCommand.REFAB]:
            axes.axvspan(clock, clock + timings.refresh, color=_REFRESH, linewidth=0, zorder=0)
            if first <= clock <= last:
                middle = (clock + min(clock + timings.refresh, last)) / 2
                axes.text(middle, blocks - 0.2, "refresh", fontsize=8, ha="center", va="center", color="#4b5563")
        axes.set(xlim=(first, last), ylim=(bottom, -0.8), xlabel="clock", title=title)
        axes.set_yticks(
            [(blocks - 1) / 2, blocks + 0.6 + (blocks - 1) / 2, 2 * blocks + 1.3, 2 * blocks + 2.45],
            [f"half 0,\n{blocks} banks", f"half 1,\n{blocks} banks", "LDI", "RDA"],
        )
        axes.grid(False)
        axes.tick_params(axis="y", length=0)
        _key(axes)
    return figure


def _key(axes: Any) -> None:
    """What the marks mean, in the line of the title."""
    texts = (
        ("| ACT", _ACT_COLOUR, 0.50),
        ("row open, to PREH", "#7b8ca3", 0.555),
        ("read by all blocks (PIM):", "#374151", 0.715),
        ("half 0,", BLUE, 0.925),
        ("1", VERMILION, 0.985),
    )
    for text, colour, at in texts:
        axes.text(at, 1.025, text, transform=axes.transAxes, fontsize=7.5, color=colour)


def _open_periods(
    schedule: UnitSchedule, half: int, block: int, end: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """From when to when a bank has an open row."""
    acts = (schedule.command == UnitCommand.ACT) & (schedule.half == half) & (schedule.block == block)
    closing = ((schedule.command == UnitCommand.PREH) & (schedule.half == half)) | (
        schedule.command == UnitCommand.PREAB
    )
    opened = schedule.clock_ck[acts]
    closes = np.append(schedule.clock_ck[closing], end)
    return opened, closes[np.searchsorted(closes[:-1], opened)]


def _reading(schedule: UnitSchedule, half: int, interval: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """From when to when columns of a half follow each other."""
    clocks = schedule.clock_ck[(schedule.command == UnitCommand.PIM) & (schedule.half == half)]
    breaks = np.flatnonzero(np.diff(clocks) > 2 * interval) + 1
    parts = np.split(clocks, breaks)
    return np.array([part[0] for part in parts]), np.array([part[-1] + interval for part in parts])
