"""Are the chances true? Predicted against observed, horizon by horizon.

Of every (token, layer, expert) whose horizon lies within its sequence, predictions are sorted into 16 bins of equal
width by the chance that was given. The *calibration error* is the mean over predictions of the distance between its
bin's mean chance and the share of the bin that was wanted (Naeini et al., "Obtaining well calibrated probabilities
using Bayesian binning", AAAI 2015: expected calibration error).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictor.base import read_ids
from predictor.measure.results import Document
from predictor.next_use.labels import wanted_within
from predictor.next_use.parameters import NextUseParameters
from predictor.next_use.tables import CERTAIN, CHANCES
from traces import RoutingTrace

BINS = 16


class HorizonCalibration(Document):
    """The chances of one horizon against what came.

    Attributes:
        horizon: tokens.
        wanted: share of all predictions that came true.
        calibration_error: see the module.
        bin_chance, bin_wanted: mean chance and share that came true of each bin; ``None`` where it is empty.
        bin_share: of all predictions in each bin.
    """

    horizon: int
    wanted: float
    calibration_error: float
    bin_chance: list[float | None]
    bin_wanted: list[float | None]
    bin_share: list[float]


class Reliability:
    """Counts predictions chunk by chunk against a trace's future.

    Args:
        trace: what is predicted; its labels take a byte a (token, layer, expert).
        parameters: of the predictor.
    """

    def __init__(self, trace: RoutingTrace, parameters: NextUseParameters) -> None:
        self._parameters = parameters
        ids, recorded = read_ids(trace, 0, trace.tokens)
        offsets = np.asarray(trace.sequence_offsets)
        ends = np.repeat(offsets[1:], np.diff(offsets))
        horizons = len(parameters.horizons)
        # What is wanted within a horizon is within every longer one: the number of those is all there is to know.
        self._within: NDArray[np.uint8] = np.empty((trace.tokens, trace.layers, trace.experts), np.uint8)
        for layer in range(trace.layers):
            wanted, known = wanted_within(
                np.ascontiguousarray(ids[:, layer]),
                np.ascontiguousarray(recorded[:, layer]),
                ends,
                trace.experts,
                parameters.horizons,
                including_now=parameters.lookahead > 0,
            )
            self._within[:, layer] = wanted.sum(axis=1)
        self._known = known
        self._seen = np.zeros((horizons, len(CHANCES)), np.int64)
        self._came = np.zeros((horizons, len(CHANCES)), np.int64)

    def add(self, first: int, scores: NDArray[np.int8]) -> None:
        """Scores i8 ``[tokens, layers, horizons, experts]`` from token ``first`` on."""
        part = slice(first, first + len(scores))
        depth = self._parameters.lookahead
        horizons = len(self._parameters.horizons)
        for horizon in range(horizons):
            known = self._known[part, horizon]
            given = scores[known, depth:, horizon].astype(np.int64).ravel() + 128
            came = (self._within[part][known, depth:] >= horizons - horizon).ravel()
            self._seen[horizon] += np.bincount(given, minlength=len(CHANCES))
            self._came[horizon] += np.bincount(given[came], minlength=len(CHANCES))

    def result(self) -> list[HorizonCalibration]:
        """One entry a horizon that any prediction was counted for."""
        bin_of = np.minimum(CHANCES * BINS // CERTAIN, BINS - 1)
        entries = []
        for number, horizon in enumerate(self._parameters.horizons):
            seen, came = self._seen[number], self._came[number]
            total = int(seen.sum())
            if not total:
                continue
            count = np.bincount(bin_of, seen, BINS)
            chance = np.bincount(bin_of, seen * CHANCES / CERTAIN, BINS)
            wanted = np.bincount(bin_of, came, BINS)
            entries.append(
                HorizonCalibration(
                    horizon=horizon,
                    wanted=float(came.sum() / total),
                    calibration_error=float(np.abs(chance - wanted).sum() / total),
                    bin_chance=_means(chance, count),
                    bin_wanted=_means(wanted, count),
                    bin_share=(count / total).tolist(),
                )
            )
        return entries


def _means(sums: NDArray[Any], counts: NDArray[Any]) -> list[float | None]:
    return [float(s / n) if n else None for s, n in zip(sums, counts, strict=True)]
