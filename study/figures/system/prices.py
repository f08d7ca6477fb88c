"""Time per token over the price of a transfer: what moving too much, and too little, costs."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from perfmodel.comparison import Comparison, Line
from predictor.policies.policy import Eviction
from predictor.policies.rows import FETCH, HOST
from predictor.policies.tuning import Tried
from predictor.row_network.integers import CERTAIN
from study.figures.style import BLUE, VERMILION, figure_style
from study.numbers import seconds

UNITS = {
    Eviction.LEARNED: ("Learned values", "price of a transfer, certain uses", 1 / CERTAIN),
    Eviction.FREQUENCY: ("Decayed counters of use", "price of a transfer, % of the counters' range", 100 / CERTAIN),
}
"""What values a price is compared with: title, axis, and the scale of its axis."""

FAMILIES: dict[str, dict[str, Any]] = {
    FETCH: {"color": BLUE, "marker": "s"},
    HOST: {"color": VERMILION, "marker": "o"},
}


def time_over_price(point: Comparison) -> Figure:
    """How much slower each row is on the tuning tokens at each price than at its best, of its fastest kind of
    background loads; one side for each kind of value. The price that was chosen is ringed.
    """
    kinds = {kind: lines for kind in UNITS if (lines := _priced(point, kind))}
    with figure_style():
        figure = Figure(figsize=(7.2, 2.7))
        sides = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        for axes, (kind, lines) in zip(sides, kinds.items(), strict=True):
            title, label, scale = UNITS[kind]
            for line in lines:
                _draw_row(axes, line, scale)
            axes.set_title(title)
            axes.set_xlabel(label)
            axes.legend(loc="best")
        sides[0].set_ylabel("slower than at its best price, %")
    return figure


def has_prices(point: Comparison) -> bool:
    """Whether a row that is no oracle was tried at several prices."""
    return any(_priced(point, kind) for kind in UNITS)


def _priced(point: Comparison, kind: Eviction) -> list[Line]:
    return [
        line
        for line in point.lines
        if line.policy.eviction is kind and not line.is_oracle and len(tried_prices(line.tried)) > 1
    ]


def tried_prices(tried: Sequence[Tried]) -> list[Tried]:
    """Of the policies with background loads that differ in price alone, those with the fastest; by price."""
    loads = [one for one in tried if one.policy.background]
    if not loads:
        return []
    best = min(loads, key=lambda one: one.step_s).policy
    alike = [one for one in loads if one.policy.model_copy(update={"price": best.price}) == best]
    return sorted(alike, key=lambda one: one.policy.price)


def _draw_row(axes: Any, line: Line, scale: float) -> None:
    curve = tried_prices(line.tried)
    least_s = min(one.step_s for one in curve)
    prices = [scale * one.policy.price for one in curve]
    slower = [100 * (one.step_s / least_s - 1) for one in curve]
    axes.plot(prices, slower, markersize=4, label=f"{line.name}: {seconds(least_s)} at best", **FAMILIES[line.family])
    if line.policy.background:
        axes.plot(
            [scale * line.policy.price], [100 * (line.tuning_s / least_s - 1)], marker="o", markersize=10,
            markerfacecolor="none", markeredgecolor="black", linestyle="none",
        )  # fmt: skip
