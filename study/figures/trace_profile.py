"""The figure of ``forestage trace stats --figure``: a trace's routing in six panels."""

from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from study.figures.style import BLUE, BOUND, GREEN, ORANGE, PURPLE, VERMILION, figure_style
from study.figures.trace import overlap_nulls
from study.numbers import percent, tokens_of

Document = dict[str, Any]
"""The JSON document of ``forestage trace stats``."""

_UNIFORM: dict[str, Any] = {"color": BOUND, "linestyle": "--", "linewidth": 1.2, "label": "independent, uniform"}
_POPULARITY: dict[str, Any] = {
    "color": BOUND,
    "linestyle": ":",
    "linewidth": 1.4,
    "label": "independent, popularity kept",
}


def trace_profile(profile: Document) -> Figure:
    """Six panels: overlap, cross-layer information, experts of a batch, tokens per expert, working sets, LRU."""
    with figure_style():
        figure = Figure(figsize=(10.2, 5.6))
        panels: tuple[Callable[[Any, Document], None], ...] = (
            _overlap,
            _cross_layer,
            _distinct_experts,
            _tokens_per_expert,
            _working_sets,
            _lru,
        )
        for axes, letter, panel in zip(figure.subplots(2, 3).ravel(), "abcdef", panels, strict=True):
            panel(axes, profile)
            axes.set_title(f"{letter}  {axes.get_title(loc='left')}", loc="left")
        model = profile["model"].replace("$", r"\$")  # a $ would begin a formula
        made = ", synthetic" if profile["synthetic"] else ""
        figure.suptitle(
            f"{model}: {tokens_of(profile['tokens'], profile['sequences'])}, "
            f"{profile['layers']} MoE layers, top-{profile['top_k']} of {profile['experts']} experts{made}",
            fontsize=10,
            x=0.01,
            ha="left",
        )
    return figure


def _overlap(axes: Any, profile: Document) -> None:
    values = [row["temporal_overlap"] or 0.0 for row in profile["by_layer"]]
    axes.bar(range(len(values)), values, color=BLUE, width=0.75)
    overlap_nulls(axes, profile)
    axes.set(xlabel="MoE layer", ylabel=f"shared experts of {profile['top_k']}", title="Consecutive tokens share")
    _room_for_legend(axes, 1.45)
    _count_axis(axes)


def _cross_layer(axes: Any, profile: Document) -> None:
    pairs = profile["cross_layer"]["by_pair"]
    if not pairs:
        _nothing(axes, "Adjacent layers tell", "one MoE layer: no pair")
        return
    layers = range(1, len(pairs) + 1)
    axes.bar(layers, [pair["mutual_information_bits"] for pair in pairs], color=GREEN, width=0.75, label="measured")
    null = [pair["null_mutual_information_bits"] for pair in pairs]
    axes.bar(layers, null, color=BOUND, width=0.75, label="link broken (null)")
    axes.set(xlabel="MoE layer", ylabel="bits, from the layer before", title="Adjacent layers tell")
    _room_for_legend(axes)
    _count_axis(axes)


def _distinct_experts(axes: Any, profile: Document) -> None:
    sizes = profile["batches"]["by_size"]
    if not sizes:
        _nothing(axes, "A batch touches", "no token of which every layer was recorded")
        return
    batch = [size["batch"] for size in sizes]
    axes.plot(batch, [size["uniform_distinct_experts"] for size in sizes], **_UNIFORM)
    axes.plot(batch, [size["popularity_distinct_experts"] for size in sizes], **_POPULARITY)
    measured, spread = [s["distinct_experts"] for s in sizes], [s["distinct_experts_std"] for s in sizes]
    low, high = ([m + sign * d for m, d in zip(measured, spread, strict=True)] for sign in (-1, 1))
    axes.fill_between(batch, low, high, color=VERMILION, alpha=0.18, linewidth=0)
    axes.plot(batch, measured, color=VERMILION, marker="o", markersize=3.5, label="measured, ± 1 s.d.")
    axes.set(xlabel="batch, sequences", ylabel="distinct experts a layer", title="A batch touches", ylim=(0, None))
    _powers_of_two(axes, batch)
    axes.legend(loc="best")


def _tokens_per_expert(axes: Any, profile: Document) -> None:
    sizes = {size["batch"]: size for size in profile["batches"]["by_size"]}
    shown = sizes.get(profile["histogram_batch"])
    if shown is None:
        _nothing(axes, "Tokens on an active expert", f"too few sequences for a batch of {profile['histogram_batch']}")
        return
    shares = [100 * share for share in shown["tokens_per_expert"]]
    axes.bar(range(1, len(shares) + 1), shares, color=ORANGE, width=0.85)
    one, few = shown["single_token_share"], shown["at_most_four_share"]
    axes.annotate(
        f"one token: {percent(one)}\nat most four: {percent(few)}",
        (0.97, 0.95),
        xycoords="axes fraction",
        ha="right",
        va="top",
        fontsize=8,
    )
    axes.set(
        xlabel=f"tokens, batch of {shown['batch']}", ylabel="% of active experts", title="Tokens on an active expert"
    )
    _count_axis(axes)


def _working_sets(axes: Any, profile: Document) -> None:
    sets = profile["working_sets"]["by_window"]
    if not sets:
        _nothing(axes, "A window of tokens uses", "no run of recorded tokens")
        return
    window = [one["window"] for one in sets]
    axes.plot(window, [one["uniform_distinct_experts"] for one in sets], **_UNIFORM)
    axes.plot(window, [one["popularity_distinct_experts"] for one in sets], **_POPULARITY)
    measured = [one["distinct_experts"] for one in sets]
    axes.plot(window, measured, color=PURPLE, marker="o", markersize=3.5, label="measured")
    axes.set(
        xlabel="window, tokens of one sequence",
        ylabel="distinct experts a layer",
        title="A window of tokens uses",
        ylim=(0, None),
    )
    _powers_of_two(axes, window)
    axes.legend(loc="best")


def _lru(axes: Any, profile: Document) -> None:
    points = profile["lru"]["by_capacity"]
    capacity = [point["capacity"] for point in points]
    axes.plot(
        capacity,
        [100 * point["capacity"] / profile["experts"] for point in points],
        **{**_UNIFORM, "label": "any cache, uniform"},
    )
    static = [100 * point["static_hit_rate"] for point in points]
    axes.plot(capacity, static, **{**_POPULARITY, "label": "most used, static"})
    rates = [100 * point["hit_rate"] for point in points]
    axes.plot(capacity, rates, color=BLUE, marker="o", markersize=3.5, label="LRU")
    axes.set(
        xlabel="experts held, a layer", ylabel="hit rate, %", title="An LRU cache holds", xlim=(0, None), ylim=(0, 102)
    )
    axes.legend(loc="lower right")


def _count_axis(axes: Any) -> None:
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="x", visible=False)


def _powers_of_two(axes: Any, values: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(values, [str(value) for value in values])
    axes.minorticks_off()


def _room_for_legend(axes: Any, headroom: float = 1.28) -> None:
    axes.set_ylim(0, headroom * axes.get_ylim()[1])
    axes.legend(loc="upper right")


def _nothing(axes: Any, title: str, reason: str) -> None:
    axes.set_title(title)
    axes.set_axis_off()
    axes.annotate(reason, (0.5, 0.5), xycoords="axes fraction", ha="center", va="center", fontsize=8, color=BOUND)
