"""Are the chances true? Predicted against observed, horizon by horizon.

Of every (token, layer, expert) whose horizon lies within its sequence, predictions are sorted into 16 bins of equal
width by the chance that was given. The *calibration error* is the mean over predictions of the distance between its
bin's mean chance and the share of the bin that was wanted (Naeini et al., "Obtaining well calibrated probabilities
using Bayesian binning", AAAI 2015: expected calibration error).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictor.base import Scores
from predictor.measure.results import Document
from predictor.next_use.labels import NextUseHead
from predictor.next_use.predictor import NextUsePredictor
from predictor.row_network.chances import count_answers, examples_of
from predictor.row_network.integers import CERTAIN
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
        predictor: whose chances are held against what came.
        trace: what is predicted.
    """

    def __init__(self, predictor: NextUsePredictor, trace: RoutingTrace) -> None:
        self._network = predictor.network
        self._horizons = predictor.config.horizons
        self._head = NextUseHead.of(predictor.config)
        self._examples = examples_of(predictor.network, trace)
        self._seen = np.zeros(predictor.network.tables.chances.shape, np.int64)
        self._came = np.zeros_like(self._seen)

    def add(self, first: int, scores: Scores) -> None:
        """Scores i32 ``[tokens, layers, horizons, experts]`` from token ``first`` on."""
        count_answers(self._network, self._head, self._examples, first, scores, self._seen, self._came)

    def result(self) -> list[HorizonCalibration]:
        """One entry a horizon that any prediction was counted for."""
        entries = []
        for number, horizon in enumerate(self._horizons):
            seen, came = (part[:, :, number].ravel() for part in (self._seen, self._came))
            given = self._network.tables.chances[:, :, number].ravel().astype(np.int64)
            bin_of = np.minimum(given * BINS // CERTAIN, BINS - 1)
            total = int(seen.sum())
            if not total:
                continue
            count = np.bincount(bin_of, seen, BINS)
            chance = np.bincount(bin_of, seen * given / CERTAIN, BINS)
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
