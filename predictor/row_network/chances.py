"""Scores → chances: a monotone table per layer, lookahead and question, and how well a table is calibrated."""

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from predictor.base import Scores
from predictor.row_network.head import Head
from predictor.row_network.inputs import Examples
from predictor.row_network.integers import CERTAIN, CHANCE_BINS, CHANCE_SHIFT
from predictor.row_network.twin import RowNetwork
from traces import RoutingTrace

Counts = NDArray[np.int64]


def score_histogram(
    network: RowNetwork, head: Head, trace: RoutingTrace, examples: Examples | None = None
) -> tuple[Counts, Counts]:
    """(times seen, times true), both i64 ``[layers, lookaheads, questions, CHANCE_BINS]``, of every answer that is
    known; at the lookahead of ``network``. ``examples``: of ``trace``, made here where ``None``."""
    shape = (trace.layers, network.config.distances, network.config.questions, CHANCE_BINS)
    seen, came = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    if examples is None:
        examples = examples_of(network, trace)
    for first, scores in network.score_chunks(trace):
        count_answers(network, head, examples, first, scores, seen, came)
    return seen, came


def count_answers(
    network: RowNetwork, head: Head, examples: Examples, first: int, scores: Scores, seen: Counts, came: Counts
) -> None:
    """Add the answers ``scores`` of the tokens from ``first`` on to the counts of ``score_histogram``."""
    tokens = np.arange(first, first + len(scores))
    truth, weight = head.labels(examples, tokens)
    distances = examples.distances(np.full(len(tokens), network.lookahead))
    answers = scores.reshape(len(scores), network.layers, network.config.questions, network.experts)
    _count(answers, truth, weight, distances, seen, came)


def examples_of(network: RowNetwork, trace: RoutingTrace) -> Examples:
    """The tokens of ``trace`` as ``network`` was trained on them."""
    return Examples.of(trace, network.config, ranked=network.ranked, identity_tokens=network.tables.identity_tokens)


@njit()
def _count(
    scores: NDArray[np.int32],
    truth: NDArray[np.float32],
    weight: NDArray[np.float32],
    distances: NDArray[np.int64],
    seen: Counts,
    came: Counts,
) -> None:
    for token in range(scores.shape[0]):
        for layer in range(scores.shape[1]):
            distance = distances[layer, token]
            for question in range(scores.shape[2]):
                for expert in range(scores.shape[3]):
                    if weight[layer, token, question, expert] > 0:
                        place = scores[token, layer, question, expert] >> CHANCE_SHIFT
                        seen[layer, distance, question, place] += 1
                        if truth[layer, token, question, expert] > 0:
                            came[layer, distance, question, place] += 1


def calibrate(seen: Counts, came: Counts) -> NDArray[np.uint16]:
    """The tables u16 ``[layers, …, CHANCE_BINS]`` of counts of that shape.

    Isotonic regression (pooling of adjacent violators): the non-decreasing table with the least squared error. A bin
    that was never seen takes the rate of the bins around it that were; a table of which nothing was seen takes that of
    all layers together.
    """
    table = np.empty(seen.shape, np.uint16)
    for place in np.ndindex(seen.shape[:-1]):
        known = place if seen[place].any() else (slice(None), *place[1:])
        every = tuple(range(seen[known].ndim - 1))
        hits, total = (part[known].sum(axis=every).astype(np.float64) for part in (came, seen))
        table[place] = np.round(_isotonic(hits, total) * CERTAIN)
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


def calibration_error(seen: Counts, came: Counts, table: NDArray[np.uint16]) -> float | None:
    """Expected calibration error: mean over predictions of |chance − frequency in its bin|, bins per table (Naeini et
    al., "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015).

    ``None`` where there was no prediction.
    """
    if not seen.any():
        return None
    predicted = table / CERTAIN
    observed = np.divide(came, seen, out=np.zeros(seen.shape), where=seen > 0)
    return float((np.abs(predicted - observed) * seen).sum() / seen.sum())


def reliability(
    seen: Counts, came: Counts, table: NDArray[np.uint16], bins: int = 20
) -> tuple[NDArray[np.float64], NDArray[np.float64], Counts]:
    """(mean chance, frequency, count) of predictions in ``bins`` equal intervals of chance, over all tables."""
    predicted = table / CERTAIN
    place = np.minimum((predicted * bins).astype(int), bins - 1)
    count = np.bincount(place.ravel(), seen.ravel(), bins)
    total = np.bincount(place.ravel(), (predicted * seen).ravel(), bins)
    hits = np.bincount(place.ravel(), came.ravel(), bins)
    safe = np.maximum(count, 1)
    return np.where(count, total / safe, np.nan), np.where(count, hits / safe, np.nan), count.astype(np.int64)
