"""One expert's time by the number of tokens that chose it, by where it runs."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from perfmodel.expert_times import ExpertTimes
from study.figures.style import BLUE, GREEN, PURPLE, SKY, VERMILION, figure_style, new_figure
from study.numbers import seconds

CURVES: dict[str, tuple[str, dict[str, Any]]] = {
    "in_memory_s": ("in memory, alone", {"color": VERMILION, "linewidth": 2.4}),
    "in_memory_more_s": ("in memory, one more while all groups are busy", {"color": VERMILION, "linestyle": "--"}),
    "resident_s": ("on the device, its weights there", {"color": GREEN}),
    "fetched_s": ("fetched from that memory, computed on the device", {"color": BLUE}),
    "host_fetched_s": ("fetched from the host, computed on the device", {"color": SKY}),
    "host_s": ("by the host's processor", {"color": PURPLE}),
}


def expert_over_tokens(experts: ExpertTimes) -> Figure:
    """Time over tokens, both logarithmic; a dot where being alone in memory begins to be slower, a ring where one more
    in a busy memory does.
    """
    lost = experts.lost
    turns = (
        ("resident_s", lost.to_resident, "full"),
        ("fetched_s", lost.to_fetched, "full"),
        ("host_fetched_s", lost.to_host_fetched, "full"),
        ("host_s", lost.to_host, "full"),
        ("resident_s", lost.more_to_resident, "none"),
    )
    tokens = [row.tokens for row in experts.times]
    with figure_style():
        figure, (axes,) = new_figure(height_in=4.4)
        for name, (label, look) in CURVES.items():
            times = [getattr(row, name) for row in experts.times]
            if None in times:
                continue
            axes.plot(tokens, [1e6 * at for at in times], label=label, **look)
        for name, first, fill in turns:
            if first is None or not tokens[0] < first <= tokens[-1]:
                continue
            at = _between(tokens, [getattr(row, name) for row in experts.times], first)
            axes.plot([first], [1e6 * at], marker="o", markersize=6, color=CURVES[name][1]["color"], fillstyle=fill)
            axes.annotate(f"{first}", (first, 1e6 * at), xytext=(4, -11), textcoords="offset points", fontsize=8)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(tokens)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_locator(LogLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: seconds(value * 1e-6)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="tokens that chose the expert", ylabel="time of the expert")
        axes.set_title("Where one expert is fastest")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _between(tokens: list[int], times: list[float], at: int) -> float:
    """The time at ``at`` tokens, by the straight line between its neighbours."""
    above = next(index for index, number in enumerate(tokens) if number >= at)
    share = (at - tokens[above - 1]) / (tokens[above] - tokens[above - 1])
    return times[above - 1] + share * (times[above] - times[above - 1])
