"""Summaries of repeated measurements."""

import statistics
from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from catalog.config import StrictModel

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Summary(StrictModel):
    """One measured time over repeated runs, s.

    Attributes:
        minimum, median, mean, maximum: over the runs.
        spread: interquartile range; 0 for a single run.
        runs: number of runs.
    """

    minimum: Seconds
    median: Seconds
    mean: Seconds
    maximum: Seconds
    spread: Seconds
    runs: int = Field(ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for middle in (self.median, self.mean):
            if not self.minimum <= middle <= self.maximum:
                raise ValueError("minimum, median (and mean), maximum do not ascend; measure again")
        if self.spread > self.maximum - self.minimum:
            raise ValueError("spread: exceeds maximum − minimum; measure again")
        return self

    @classmethod
    def of(cls, times_s: Sequence[float]) -> Self:
        """The summary of ``times_s`` (at least one), s."""
        least, most = min(times_s), max(times_s)
        quartiles = (
            statistics.quantiles(times_s, n=4, method="inclusive") if len(times_s) > 1 else [least, least, least]
        )
        return cls(
            minimum=least,
            median=statistics.median(times_s),
            mean=min(most, max(least, statistics.fmean(times_s))),  # a mean of equal times may round beyond them
            maximum=most,
            spread=min(most - least, quartiles[2] - quartiles[0]),
            runs=len(times_s),
        )

    def over(self, pieces: int) -> Self:
        """The time of one of ``pieces`` equal pieces that each run was made of."""
        times = ("minimum", "median", "mean", "maximum", "spread")
        return type(self)(**{name: getattr(self, name) / pieces for name in times}, runs=self.runs)
