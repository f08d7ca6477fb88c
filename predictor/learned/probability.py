"""Scores → probabilities: a monotone table per layer, and how well a table is calibrated."""

import numpy as np
from numpy.typing import NDArray

from predictor.base import Predictor, read_ids
from predictor.learned.tables import PROBABILITY_BINS, PROBABILITY_ONE, PROBABILITY_SHIFT
from traces import RoutingTrace
from traces.compiled import njit

Counts = NDArray[np.int64]


def score_histogram(predictor: Predictor, trace: RoutingTrace) -> tuple[Counts, Counts]:
    """(times seen, times chosen), both i64 ``[layers, PROBABILITY_BINS]``, of every expert of every recorded row."""
    seen = np.zeros((trace.layers, PROBABILITY_BINS), np.int64)
    chosen = np.zeros_like(seen)
    for first, scores in predictor.score_chunks(trace):
        ids, recorded = read_ids(trace, first, first + len(scores))
        _count(scores, ids, recorded, PROBABILITY_SHIFT, seen, chosen)
    return seen, chosen


@njit()
def _count(
    scores: NDArray[np.int32],
    ids: NDArray[np.int32],
    recorded: NDArray[np.bool_],
    shift: int,
    seen: Counts,
    chosen: Counts,
) -> None:
    for token in range(scores.shape[0]):
        for layer in range(scores.shape[1]):
            if recorded[token, layer]:
                for expert in range(scores.shape[2]):
                    seen[layer, scores[token, layer, expert] >> shift] += 1
                for expert in ids[token, layer]:
                    chosen[layer, scores[token, layer, expert] >> shift] += 1


def calibrate(seen: Counts, chosen: Counts) -> NDArray[np.uint16]:
    """The table u16 ``[layers, PROBABILITY_BINS]`` of counts ``[layers, PROBABILITY_BINS]``.

    Isotonic regression (pooling of adjacent violators): the non-decreasing table with the least squared error. A bin
    that was never seen takes the rate of the bins around it that were; a layer that was never recorded takes the table
    of all layers together.
    """
    table = np.empty(seen.shape, np.uint16)
    for layer in range(len(seen)):
        known = slice(layer, layer + 1) if seen[layer].any() else slice(None)
        rate = _isotonic(chosen[known].sum(axis=0).astype(np.float64), seen[known].sum(axis=0).astype(np.float64))
        table[layer] = np.round(rate * PROBABILITY_ONE)
    return table


def _isotonic(hits: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Non-decreasing rates ``[bins]``; empty bins are interpolated, and all are 0 where every one is empty."""
    blocks: list[list[float]] = []  # [hits, weight, bins]
    filled = np.flatnonzero(weight)
    if not len(filled):
        return np.zeros(len(hits))
    for index in filled:
        blocks.append([hits[index], weight[index], 1])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            last = blocks.pop()
            blocks[-1] = [mine + theirs for mine, theirs in zip(blocks[-1], last, strict=True)]
    rates = np.concatenate([np.full(int(count), hit / total) for hit, total, count in blocks])
    return np.interp(np.arange(len(hits)), filled, rates)


def calibration_error(seen: Counts, chosen: Counts, table: NDArray[np.uint16]) -> float | None:
    """Expected calibration error: mean over predictions of |probability − frequency in its bin|, bins per layer.

    ``None`` where there was no prediction.
    """
    if not seen.any():
        return None
    predicted = table / PROBABILITY_ONE
    observed = np.divide(chosen, seen, out=np.zeros(seen.shape), where=seen > 0)
    return float((np.abs(predicted - observed) * seen).sum() / seen.sum())


def reliability(
    seen: Counts, chosen: Counts, table: NDArray[np.uint16], bins: int = 20
) -> tuple[NDArray[np.float64], NDArray[np.float64], Counts]:
    """(mean probability, frequency, count) of predictions in ``bins`` equal intervals of probability, over layers."""
    predicted = table / PROBABILITY_ONE
    place = np.minimum((predicted * bins).astype(int), bins - 1)
    count = np.bincount(place.ravel(), seen.ravel(), bins)
    total = np.bincount(place.ravel(), (predicted * seen).ravel(), bins)
    hits = np.bincount(place.ravel(), chosen.ravel(), bins)
    safe = np.maximum(count, 1)
    return np.where(count, total / safe, np.nan), np.where(count, hits / safe, np.nan), count.astype(np.int64)
