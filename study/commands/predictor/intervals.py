"""A figure and its interval as one cell of a table for a person; both ends are in ``--json``."""

from predictor.results import Ends
from study.numbers import fixed


def with_interval(value: float | None, interval: Ends) -> str:
    """``0.597 ±0.007``: half the width of the interval, which need not be symmetric but nearly is."""
    return fixed(value) if interval is None else f"{fixed(value)} ±{(interval[1] - interval[0]) / 2:.3f}"
