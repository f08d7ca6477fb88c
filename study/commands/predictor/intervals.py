"""Write a figure and its interval as one cell of a printed table; ``--json`` has both ends."""

from predictor.measure.results import Ends
from study.numbers import fixed


def with_interval(value: float | None, interval: Ends, *, sign: str = "") -> str:
    """``0.597 ±0.007``, where ± is half the width of the interval, which is nearly symmetric.

    ``sign`` "+" also writes the sign of a positive value, for differences.
    """
    figure = fixed(value) if value is None else f"{value:{sign}.3f}"
    return figure if interval is None else f"{figure} ±{(interval[1] - interval[0]) / 2:.3f}"
