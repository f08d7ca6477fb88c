"""Documents of an evaluation: metrics by issue limit, each with its interval.

A *limit* is a number of experts as text, or ``own``: uncapped, every score at or above the threshold. ``None`` stands
for a metric without rows, and for an interval with fewer than two sequences.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from predictor.measure.bootstrap import Bootstrap, interval
from predictor.measure.metrics import Tally, answered, exact_set, gate_mass_recall, issued_per_layer, precision, recall

OWN = "own"

SplitName = Literal["train", "test", "all"]

ByLimit = dict[str, float | None]
Ends = tuple[float, float] | None
IntervalByLimit = dict[str, Ends]


class Document(BaseModel):
    """A frozen part of a result document."""

    model_config = ConfigDict(frozen=True)


class Intervals(Document):
    """95 % bootstrap intervals over sequences (``predictor.measure.bootstrap``) of the metrics beside them."""

    recall: IntervalByLimit
    gate_mass: IntervalByLimit
    precision: IntervalByLimit
    issued: IntervalByLimit
    exact_set: Ends


class Metrics(Document):
    """The metrics of ``measure.metrics``; ``gate_mass`` is gate-mass recall, ``None`` without weights."""

    recall: ByLimit
    gate_mass: ByLimit
    precision: ByLimit
    issued: ByLimit
    exact_set: float | None
    answered: float | None
    intervals: Intervals


class Layer(Document):
    """A layer; ``early``: it is below the lookahead, so that overall figures do not count it."""

    layer: int
    early: bool


class Group(Document):
    """The size of a group of sequences."""

    sequences: int
    tokens: int


class LayerResult(Metrics, Layer):
    """Metrics of one layer."""


class GroupResult(Metrics, Group):
    """Metrics of the sequences of one domain or dataset."""


def metrics(tally: Tally, keys: list[str], bootstrap: Bootstrap) -> dict[str, Any]:
    """The fields of ``Metrics`` for ``tally [sequences]``, with the names ``keys`` for its limits."""
    return layer_metrics(tally.each(lambda counts: counts[:, None]), keys, bootstrap)[0]


def layer_metrics(tally: Tally, keys: list[str], bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """The fields of ``Metrics`` for every layer of ``tally [sequences, layers]``."""
    ratios = {
        "recall": recall(tally),
        "gate_mass": gate_mass_recall(tally),
        "precision": precision(tally),
        "issued": issued_per_layer(tally),
    }
    values = {name: ratio.over(0).values() for name, ratio in ratios.items()}
    ends = {name: interval(ratio, bootstrap) for name, ratio in ratios.items()}
    exact = exact_set(tally)
    exact_values, exact_ends = exact.over(0).values(), interval(exact, bootstrap)
    answered_values = answered(tally).over(0).values()
    return [
        {
            **{name: by_limit(column[layer], keys) for name, column in values.items()},
            "exact_set": or_none(exact_values[layer]),
            "answered": or_none(answered_values[layer]),
            "intervals": Intervals(
                **{name: intervals_by_limit(low[layer], high[layer], keys) for name, (low, high) in ends.items()},
                exact_set=ends_or_none(exact_ends.low[layer], exact_ends.high[layer]),
            ),
        }
        for layer in range(tally.rows.shape[1])
    ]


def by_limit(values: NDArray[np.float64], keys: list[str]) -> ByLimit:
    """``values [limits]`` under their keys; limits beyond the keys are left out."""
    return {key: or_none(value) for key, value in zip(keys, values, strict=False)}


def intervals_by_limit(low: NDArray[np.float64], high: NDArray[np.float64], keys: list[str]) -> IntervalByLimit:
    """The ends of intervals under their keys."""
    return {key: ends_or_none(below, above) for key, below, above in zip(keys, low, high, strict=False)}


def or_none(value: float) -> float | None:
    """A plain float, or ``None`` for NaN."""
    return None if np.isnan(value) else float(value)


def ends_or_none(low: float, high: float) -> Ends:
    """A pair of plain floats, or ``None`` for NaN."""
    return None if np.isnan(low) else (float(low), float(high))
