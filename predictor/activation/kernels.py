"""Which sequence of the collection a running one resembles, and what that says of its experts: compiled, one home.

Every rule is that of several running sequences at once, each in a *slot*; an online runtime has one slot. Floating
point is IEEE 754 in a fixed order, so that arrays and online forms agree in every bit.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from predictor.measure.ranking import best_experts
from predictor.row_network.integers import CERTAIN

NO_MATCH = -1


class Collection(NamedTuple):
    """What training left.

    Attributes:
        units: f64 ``[layers, experts, matrices]``: each matrix's row of a layer, of length 1 (or all 0).
        ratios: f64 ``[matrices, layers, experts]``: share of the sequence's tokens that chose the expert.
        epsilon: added to every ratio.
        depth: how much less the deeper layers' experts are worth, 0 … 1.
        by_match: whether values are by the matched matrix; else by the running one.
    """

    units: NDArray[np.float64]
    ratios: NDArray[np.float64]
    epsilon: float
    depth: float
    by_match: bool


class Running(NamedTuple):
    """The running sequences, ``S`` slots.

    Attributes:
        counts: i64 ``[S, layers, experts]``, tokens that chose each expert: the running activation matrix.
        tokens: i64 ``[S, layers]``, recorded.
        squares: i64 ``[S, layers]``, sums of the squares of ``counts``.
        products: f64 ``[S, layers, matrices]``, of ``counts`` with ``units``.
        cosines: f64 ``[S, layers, matrices]``.
        match: i64 ``[S]``, the most similar matrix; ``NO_MATCH`` before any gate.
        live: bool ``[S]``, whether a sequence runs.
        now: i64 ``[S]``, its tokens in this step.
    """

    counts: NDArray[np.int64]
    tokens: NDArray[np.int64]
    squares: NDArray[np.int64]
    products: NDArray[np.float64]
    cosines: NDArray[np.float64]
    match: NDArray[np.int64]
    live: NDArray[np.bool_]
    now: NDArray[np.int64]


class Activation(NamedTuple):
    """Both."""

    collection: Collection
    running: Running


@njit()
def start(running: Running, slot: int) -> None:
    """A sequence begins in ``slot``."""
    running.counts[slot] = 0
    running.tokens[slot] = 0
    running.squares[slot] = 0
    running.products[slot] = 0
    running.cosines[slot] = 0
    running.match[slot] = NO_MATCH
    running.live[slot] = True


@njit()
def note(activation: Activation, slot: int, layer: int, ids: NDArray[np.int16]) -> None:
    """A token of ``slot`` chose ``ids`` in ``layer``; `match` is to follow.

    Raises:
        ValueError: for an id that is no expert's: it indexes memory.
    """
    collection, running = activation
    for expert in ids:
        if not 0 <= expert < running.counts.shape[2]:
            raise ValueError("a gate's choice names an expert that the model has not")
    running.tokens[slot, layer] += 1
    products = running.products[slot, layer]
    for expert in ids:
        running.squares[slot, layer] += 2 * running.counts[slot, layer, expert] + 1
        running.counts[slot, layer, expert] += 1
        units = collection.units[layer, expert]
        for matrix in range(len(products)):
            products[matrix] += units[matrix]


@njit()
def match(activation: Activation, slot: int, layer: int) -> None:
    """The gate of ``layer`` is noted: the most similar matrix, by the mean of the layers' cosines; of equals the first.

    A layer of which nothing is known counts 0 for every matrix.
    """
    running = activation.running
    layers, matrices = running.cosines.shape[1:]
    length = np.sqrt(np.float64(running.squares[slot, layer]))
    for matrix in range(matrices):
        running.cosines[slot, layer, matrix] = running.products[slot, layer, matrix] / length
    total = np.zeros(matrices)
    for each in range(layers):
        cosines = running.cosines[slot, each]
        for matrix in range(matrices):
            total[matrix] += cosines[matrix]
    running.match[slot] = np.argmax(total)


@njit()
def value(activation: Activation, layer: int, values: NDArray[np.int32]) -> None:
    """What each expert of ``layer`` is worth, ``values [experts]``: its ratio, less in deep layers by ``depth``.

    Of several live sequences the ratio is the chance that any chooses it, as if they chose independently.
    """
    collection, running = activation
    layers, experts = running.counts.shape[1:]
    weight = 1.0 - collection.depth * (layer / layers)
    for expert in range(experts):
        left = 1.0
        for slot in range(len(running.live)):
            if running.live[slot]:
                left *= 1.0 - _ratio(collection, running, slot, layer, expert)
        values[expert] = _units(1.0 - left, collection.epsilon, weight)


@njit()
def _ratio(collection: Collection, running: Running, slot: int, layer: int, expert: int) -> float:
    if running.match[slot] < 0:
        return 0.0
    if collection.by_match:
        return collection.ratios[running.match[slot], layer, expert]
    if running.tokens[slot, layer] == 0:
        return 0.0
    return running.counts[slot, layer, expert] / running.tokens[slot, layer]


@njit()
def predict(
    activation: Activation, gate: int, target: int, experts: NDArray[np.int16], chances: NDArray[np.int32]
) -> int:
    """The first experts of ``target`` by the matched matrices, after the gate of ``gate`` (−1: before layer 0).

    Fills ``experts`` and ``chances [most]``, best first, −1 where there are no more; returns how many there are.
    Nothing is predicted where no sequence of the step has passed a gate yet.
    """
    collection, running = activation
    layers, count = running.counts.shape[1:]
    weight = 1.0 - (target - gate) / layers
    row = np.zeros(count, np.int32)
    known = False
    for slot in range(len(running.live)):
        known |= running.now[slot] > 0 and running.match[slot] >= 0
    if known:
        for expert in range(count):
            left = 1.0
            for slot in range(len(running.live)):
                if running.now[slot] > 0 and running.match[slot] >= 0:
                    missed = 1.0 - collection.ratios[running.match[slot], target, expert]
                    for _ in range(running.now[slot]):
                        left *= missed
            row[expert] = min(CERTAIN, _units(1.0 - left, collection.epsilon, weight))
    found = min(best_experts(row, 1, experts), len(experts))
    for rank in range(found):
        chances[rank] = row[experts[rank]]
    return found


@njit()
def _units(ratio: float, epsilon: float, weight: float) -> int:
    return int((ratio + epsilon) * weight * CERTAIN + 0.5)
