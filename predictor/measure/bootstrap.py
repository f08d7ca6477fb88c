"""95 % intervals of a metric: the percentile bootstrap over sequences.

The unit is the sequence, not the token: tokens of one sequence resemble each other, so intervals over tokens would be
far too narrow. Each draw takes ``n`` of the ``n`` evaluated sequences with replacement; its metric is the ratio of the
sums over the drawn sequences. The interval runs from the 2.5th to the 97.5th percentile of ``resamples`` draws (Efron
and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3). It shows how far the figure would move with other
sequences of the same kind; it does not include the effect of training on another split.

The draws depend only on the seed and the number of sequences: two predictors on the same part get the same draws.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from catalog.config import StrictModel
from predictor.measure.metrics import Ratio, divide

PERCENTILES = (2.5, 97.5)

_BLOCK_WEIGHTS = 1 << 21  # f64 weights of resamples × sequences held at once, 16 MiB


class Bootstrap(StrictModel):
    """How intervals are resampled.

    Attributes:
        resamples: number of draws; 0 gives no intervals.
        seed: seed of the draws.
    """

    resamples: int = Field(default=1000, ge=0, le=1_000_000)
    seed: int = Field(default=0, ge=0)


class Interval(NamedTuple):
    """Lower and upper ends, f64 arrays of the same shape; NaN where there is no interval."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]


def interval(ratio: Ratio, bootstrap: Bootstrap) -> Interval:
    """Intervals of ``ratio``, whose arrays are ``[sequences, …]``: two arrays ``[…]``.

    NaN if there are fewer than two sequences or no resamples, and where the metric itself is undefined. Draws in which
    it is undefined are left out.
    """
    sequences = len(ratio.numerator)
    shape = ratio.numerator.shape[1:]
    if sequences < 2 or bootstrap.resamples == 0:
        return Interval(np.full(shape, np.nan), np.full(shape, np.nan))
    # Counts are far below 2⁵³, so their sums in floating point are exact.
    numerator = ratio.numerator.reshape(sequences, -1).astype(np.float64)
    denominator = ratio.denominator.reshape(sequences, -1).astype(np.float64)
    values = np.concatenate(
        [divide(weights @ numerator, weights @ denominator) for weights in _draws(sequences, bootstrap)]
    )
    low, high = _percentiles(values)
    return Interval(low.reshape(shape), high.reshape(shape))


def _draws(sequences: int, bootstrap: Bootstrap) -> Iterator[NDArray[np.float64]]:
    """How often each draw contains each sequence: f64 ``[draws of the block, sequences]``, in blocks."""
    generator = np.random.Generator(np.random.PCG64(bootstrap.seed))
    block = max(1, _BLOCK_WEIGHTS // sequences)
    for first in range(0, bootstrap.resamples, block):
        draws = min(block, bootstrap.resamples - first)
        drawn = generator.integers(sequences, size=(draws, sequences))
        drawn += np.arange(draws)[:, None] * sequences
        yield np.bincount(drawn.ravel(), minlength=draws * sequences).reshape(draws, sequences).astype(np.float64)


def _percentiles(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``PERCENTILES`` of every column of ``values [draws, columns]`` without NaN: f64 ``[2, columns]``."""
    ends = np.percentile(values, PERCENTILES, axis=0)
    for column in np.flatnonzero(np.isnan(values).any(axis=0)):
        defined = values[:, column][~np.isnan(values[:, column])]
        ends[:, column] = np.percentile(defined, PERCENTILES) if len(defined) else np.nan
    return ends
