"""A figure and its interval as one cell of a table for a person; both ends are in ``--json``."""

from predictor.measure.results import Ends
from study.numbers import fixed


def with_interval(value: float | None, interval: Ends, *, sign: str = "") -> str:
    """``0.597 ±0.007``: half the width of the interval, which need not be symmetric but nearly is.

    ``sign`` ``+`` writes the sign of a difference.
    """
    figure = fixed(value) if value is None else f"{value:{sign}.3f}"
    return figure if interval is None else f"{figure} ±{(interval[1] - interval[0]) / 2:.3f}"
