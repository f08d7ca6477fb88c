"""One prefetch as a timing diagram: what each port of the engine did, cycle by cycle."""

from typing import Any

from matplotlib.figure import Figure

from study.engine.one_prefetch import OnePrefetch
from study.figures.style import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, figure_style

_INK, _SOFT, _IDLE = "#111827", "#4b5563", "#d1d5db"
_HALF = 0.33
"""Of a lane's height that a mark takes, above and below its middle."""
_ABSENT = "#f3f4f6"


def prefetch_timeline(story: OnePrefetch) -> Figure:
    """Lanes from top to bottom in the order in which things happen; x is cycles from the first gate's acceptance."""
    lanes = (
        ("events", _events),
        ("net: next-layer scores", lambda axes, y, of: _busy(axes, y, of.scores["next-layer"], BLUE)),
        ("net: next-use scores", lambda axes, y, of: _busy(axes, y, of.scores["next-use"], SKY)),
        ("stager: commands", _commands),
        ("far: AR", lambda axes, y, of: _ticks(axes, y, [asked for asked, _, _ in of.reads], ORANGE)),
        ("far: R", lambda axes, y, of: _busy(axes, y, [(first, last) for _, first, last in of.reads], ORANGE)),
        ("staging: AW, W", lambda axes, y, of: _busy(axes, y, [burst[1:3] for burst in of.writes], GREEN)),
        ("staging: B", lambda axes, y, of: _ticks(axes, y, [burst[3] for burst in of.writes], GREEN)),
        ("notices", _notices),
        (f"expert {story.expert} of layer {story.layer}", _states),
    )
    with figure_style():
        figure = Figure(figsize=(7.4, 4.3))
        axes = figure.subplots()
        first = min(-8, *(cycle for cycle, _, _ in story.events))
        axes.set(xlim=(first, story.end), ylim=(len(lanes) - 0.4, -1.15), xlabel="cycle")
        for number, (_, draw) in enumerate(lanes):
            axes.plot([first, story.end], [number + _HALF] * 2, color=_IDLE, linewidth=0.7, zorder=1)
            draw(axes, number, story)
        axes.set_yticks(range(len(lanes)), [name for name, _ in lanes])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", visible=False)
        _key_cycles(axes, story, len(lanes))
    return figure


def _key_cycles(axes: Any, story: OnePrefetch, lanes: int) -> None:
    """The cycles that the story is about, as lines through all lanes, named on top."""
    gate = max(cycle for cycle, kind, layer in story.events if kind == "GATE" and layer == story.layer)
    marks = (
        (0, f"GATE {story.layer - 1}", "left"),
        (story.prediction, "PREFETCH", "left"),
        (story.moving, "transfer", "left"),
        (story.resident, "resident", "left"),
        (gate, f"GATE {story.layer}", "right"),
    )
    for cycle, name, side in marks:
        axes.plot(
            [cycle, cycle], [-0.6, lanes - 0.5], color=VERMILION, linewidth=0.7, linestyle=(0, (3, 2)), zorder=1.5
        )
        axes.text(
            cycle, -0.68, f"{name}\n{cycle}", ha=side, va="bottom", fontsize=6.8, color=VERMILION, linespacing=1.1
        )


def _ticks(axes: Any, y: float, cycles: list[int], colour: str) -> None:
    """A line in each cycle."""
    axes.vlines(cycles, y - _HALF, y + _HALF, color=colour, linewidth=1.3, zorder=3)


def _busy(axes: Any, y: float, spans: Any, colour: str) -> None:
    """Full from the first to the last cycle of each span."""
    axes.broken_barh(
        [(first, last - first + 1) for first, last in spans], (y - _HALF, 2 * _HALF), facecolor=colour, linewidth=0.4,
        edgecolor="white", zorder=3,
    )  # fmt: skip


def _events(axes: Any, y: float, story: OnePrefetch) -> None:
    for cycle, kind, layer in story.events:
        _ticks(axes, y, [cycle], _INK)
        near = story.end - cycle < 40
        axes.text(
            cycle + (-4 if near else 4), y, f"{kind} {layer}", fontsize=6.3, va="center", ha="right" if near else "left",
            color=_INK,
        )  # fmt: skip


_COMMAND_COLOURS = {"PREFETCH": BLUE, "SET_VALUES": SKY, "GRANT": ORANGE, "ARRIVE": GREEN}


def _commands(axes: Any, y: float, story: OnePrefetch) -> None:
    """Each as long as the stager works on it; those of the story are named."""
    for first, last, kind in story.commands:
        colour = _COMMAND_COLOURS.get(kind, _SOFT)
        axes.broken_barh(
            [(first, last - first + 1)],
            (y - _HALF, 2 * _HALF),
            facecolor=colour,
            linewidth=0.4,
            edgecolor="white",
            zorder=3,
        )
    named = {"DEMAND": 0, "PREFETCH": story.prediction, "SET_VALUES": None, "ARRIVE": story.resident, "RELEASE": None}
    shown: set[str] = set()
    for first, last, kind in story.commands:
        if kind in named and kind not in shown and (named[kind] is None or first >= (named[kind] or 0)):
            shown.add(kind)
            axes.text(
                (first + last + 1) / 2, y + _HALF + 0.06, kind, fontsize=5.6, ha="center", va="top", zorder=4,
                color=_COMMAND_COLOURS.get(kind, _SOFT),
            )  # fmt: skip


def _notices(axes: Any, y: float, story: OnePrefetch) -> None:
    """Those of this expert are coloured and named."""
    mine = {(story.layer, story.expert)}
    for cycle, kind, layer, expert in story.notices:
        own = (layer, expert) in mine and kind != "READY"
        _ticks(axes, y, [cycle], PURPLE if own else _SOFT)
        if own or kind == "READY":
            right = kind != "HERE"
            axes.text(
                cycle + (4 if right else -4), y, kind, fontsize=6.3, va="center", ha="left" if right else "right",
                color=PURPLE if own else _SOFT,
            )  # fmt: skip


def _states(axes: Any, y: float, story: OnePrefetch) -> None:
    first = axes.get_xlim()[0]
    states = (
        ("absent", first, story.queued, _ABSENT),
        ("queued", story.queued, story.moving, "#fde68a"),
        (f"moving to place {story.place}", story.moving, story.resident, "#fdba74"),
        ("resident", story.resident, story.used, "#86efac"),
        ("", story.used, story.end, "#22c55e"),
    )
    for name, begin, end, colour in states:
        axes.broken_barh(
            [(begin, end - begin)], (y - _HALF, 2 * _HALF), facecolor=colour, edgecolor=_SOFT, linewidth=0.6, zorder=3
        )
        if name and end - begin > 25:
            axes.text((begin + end) / 2, y, name, fontsize=6.8, ha="center", va="center", color=_INK, zorder=4)
