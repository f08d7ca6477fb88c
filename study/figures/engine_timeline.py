"""One prefetch as a timing diagram: what each port of the engine did, cycle by cycle."""

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from study.figures.style import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, figure_style

if TYPE_CHECKING:
    from study.engine.one_prefetch import OnePrefetch

_INK, _SOFT, _IDLE = "#111827", "#4b5563", "#d1d5db"
_HALF = 0.33
"""Of a lane's height that a mark takes, above and below its middle."""
_ABSENT = "#f3f4f6"
_NEAR = 80
"""Cycles between marks whose names would touch."""


def prefetch_timeline(story: "OnePrefetch") -> Figure:
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
        figure = Figure(figsize=(7.4, 4.8))
        axes = figure.subplots()
        first = min(-8, *(cycle for cycle, _, _ in story.events))
        axes.set(
            xlim=(first, story.end), ylim=(len(lanes) - 0.4, -2.4), xlabel="cycle, from the acceptance of the gate"
        )
        for number, (_, draw) in enumerate(lanes):
            axes.plot([first, story.end], [number + _HALF] * 2, color=_IDLE, linewidth=0.7, zorder=1)
            draw(axes, number, story)
        axes.set_yticks(range(len(lanes)), [name for name, _ in lanes])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", visible=False)
        _key_cycles(axes, story, len(lanes))
        _legend(axes)
    return figure


def _legend(axes: Any) -> None:
    """The commands' colours, below."""
    handles = [Patch(color=colour, label=name) for name, colour in _COMMAND_COLOURS.items()]
    handles.append(Patch(color=_SOFT, label="DEMAND, EXPIRE, RELEASE"))
    axes.legend(
        handles=handles, title="commands of the stager:", loc="upper center", bbox_to_anchor=(0.42, -0.115),
        ncols=len(handles), fontsize=6.5, title_fontsize=6.5, handlelength=1, columnspacing=1.4,
    )  # fmt: skip


def _key_cycles(axes: Any, story: "OnePrefetch", lanes: int) -> None:
    """The cycles that the story is about, as lines through all lanes, named on top."""
    gate = max(cycle for cycle, kind, layer in story.events if kind == "GATE" and layer == story.layer)
    marks = (
        (0, f"GATE {story.layer - 1}", "left"),
        (story.prediction, "PREFETCH", "left"),
        (story.moving, "transfer", "left"),
        (story.resident, "resident", "left"),
        (gate, f"GATE {story.layer}", "right"),
    )
    raised = False
    for number, (cycle, name, side) in enumerate(marks):
        # Names of marks that are close to each other stand on two lines in turn.
        raised = number > 0 and not raised and cycle - marks[number - 1][0] < _NEAR
        axes.plot(
            [cycle, cycle], [-1.55 if raised else -0.6, lanes - 0.5], color=VERMILION, linewidth=0.7,
            linestyle=(0, (3, 2)), zorder=1.5,
        )  # fmt: skip
        axes.text(
            cycle, -1.6 if raised else -0.65, f"{name}\n{cycle}", ha=side, va="bottom", fontsize=6.8, color=VERMILION,
            linespacing=1.1,
        )  # fmt: skip


def _ticks(axes: Any, y: float, cycles: list[int], colour: str) -> None:
    """A line in each cycle."""
    axes.vlines(cycles, y - _HALF, y + _HALF, color=colour, linewidth=1.3, zorder=3)


def _busy(axes: Any, y: float, spans: Any, colour: str) -> None:
    """Full from the first to the last cycle of each span."""
    axes.broken_barh(
        [(first, last - first + 1) for first, last in spans], (y - _HALF, 2 * _HALF), facecolor=colour, linewidth=0.4,
        edgecolor="white", zorder=3,
    )  # fmt: skip


def _events(axes: Any, y: float, story: "OnePrefetch") -> None:
    for cycle, kind, layer in story.events:
        _ticks(axes, y, [cycle], _INK)
        near = story.end - cycle < 40
        axes.text(
            cycle + (-4 if near else 4), y, f"{kind} {layer}", fontsize=6.3, va="center",
            ha="right" if near else "left", color=_INK,
        )  # fmt: skip


_COMMAND_COLOURS = {"PREFETCH": BLUE, "SET_VALUES": SKY, "GRANT": ORANGE, "ARRIVE": GREEN}


def _commands(axes: Any, y: float, story: "OnePrefetch") -> None:
    """Each as long as the stager works on it."""
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


def _notices(axes: Any, y: float, story: "OnePrefetch") -> None:
    """Those of this expert are coloured and named."""
    mine = {(story.layer, story.expert)}
    for cycle, kind, layer, expert in story.notices:
        own = (layer, expert) in mine and kind != "READY"
        _ticks(axes, y, [cycle], PURPLE if own else _SOFT)
        if own or kind == "READY":
            right = kind != "HERE"
            axes.text(
                cycle + (4 if right else -11), y, kind, fontsize=6.3, va="center", ha="left" if right else "right",
                color=PURPLE if own else _SOFT,
            )  # fmt: skip


def _states(axes: Any, y: float, story: "OnePrefetch") -> None:
    first = axes.get_xlim()[0]
    states = (
        ("absent", first, story.queued, _ABSENT),
        ("queued", story.queued, story.moving, "#fde68a"),
        (f"moving to place {story.place}", story.moving, story.resident, "#fdba74"),
        ("resident", story.resident, story.used, "#86efac"),
        ("in use", story.used, story.end, "#22c55e"),
    )
    for name, begin, end, colour in states:
        axes.broken_barh(
            [(begin, end - begin)], (y - _HALF, 2 * _HALF), facecolor=colour, edgecolor=_SOFT, linewidth=0.6, zorder=3
        )
        if name and end - begin > 25:
            axes.text((begin + end) / 2, y, name, fontsize=6.2, ha="center", va="center", color=_INK, zorder=4)
