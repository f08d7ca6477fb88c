"""Count a training trace: the profiles from which the unlearned predictors are made.

All profiles are integers. A *rate* is a fixed-point fraction with ``RATE_BITS`` bits, floor-rounded, so that scores are
reproducible on every machine and a sum of ``top_k`` rates stays far inside an i32.
"""

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from predictor.base import ExpertIds, check_lookahead, id_chunks
from traces import RoutingTrace

RATE_BITS = 20
RATE_ONE = 1 << RATE_BITS

_COUNT_CHUNK_TOKENS = 8192


def selection_rates(trace: RoutingTrace) -> NDArray[np.int32]:
    """Share of a layer's recorded tokens that chose each expert: fixed point i32 ``[layers, experts]``."""
    counts = np.zeros((trace.layers, trace.experts), np.int64)
    rows = np.zeros(trace.layers, np.int64)
    for _, ids, recorded, _ in id_chunks(trace, _COUNT_CHUNK_TOKENS):
        rows += recorded.sum(axis=0)
        for layer in range(trace.layers):
            counts[layer] += np.bincount(ids[recorded[:, layer], layer].ravel(), minlength=trace.experts)
    return _as_rates(counts, rows[:, None])


def spatial_rates(trace: RoutingTrace, distance: int) -> NDArray[np.int32]:
    """P(the target layer chooses b | the layer ``distance`` below it chose a for the same token).

    Fixed point i32 ``[layers, experts a, experts b]``, indexed by the target layer; zero where target < ``distance``.

    Raises:
        ForestageError: if no layer has a layer ``distance`` below it.
    """
    check_lookahead(distance, trace.layers)  # compiled code indexes memory with it
    pairs = np.zeros((trace.layers, trace.experts, trace.experts), np.int64)
    given = np.zeros((trace.layers, trace.experts), np.int64)
    for _, ids, recorded, _ in id_chunks(trace, _COUNT_CHUNK_TOKENS):
        _count_spatial(ids, recorded, distance, pairs, given)
    return _as_rates(pairs, given[:, :, None])


def temporal_rates(trace: RoutingTrace) -> NDArray[np.int32]:
    """P(this token chooses b | the sequence's previous recorded token chose a in the same layer).

    Fixed point i32 ``[layers, experts a, experts b]``.
    """
    pairs = np.zeros((trace.layers, trace.experts, trace.experts), np.int64)
    given = np.zeros((trace.layers, trace.experts), np.int64)
    history = np.full((trace.layers, trace.top_k), -1, np.int32)
    for _, ids, recorded, starts in id_chunks(trace, _COUNT_CHUNK_TOKENS):
        _count_temporal(ids, recorded, starts, history, pairs, given)
    return _as_rates(pairs, given[:, :, None])


def _as_rates(counts: NDArray[np.int64], of: NDArray[np.int64]) -> NDArray[np.int32]:
    """``counts / of`` as fixed point, rounded down; 0 where ``of`` is 0."""
    return ((counts << RATE_BITS) // np.maximum(of, 1)).astype(np.int32)


@njit()
def _count_spatial(
    ids: ExpertIds,
    recorded: NDArray[np.bool_],
    distance: int,
    pairs: NDArray[np.int64],
    given: NDArray[np.int64],
) -> None:
    tokens, layers, top_k = ids.shape
    for token in range(tokens):
        for layer in range(distance, layers):
            if not (recorded[token, layer] and recorded[token, layer - distance]):
                continue
            for i in range(top_k):
                source = ids[token, layer - distance, i]
                given[layer, source] += 1
                for j in range(top_k):
                    pairs[layer, source, ids[token, layer, j]] += 1


@njit()
def _count_temporal(
    ids: ExpertIds,
    recorded: NDArray[np.bool_],
    starts: NDArray[np.bool_],
    history: NDArray[np.int32],
    pairs: NDArray[np.int64],
    given: NDArray[np.int64],
) -> None:
    tokens, layers, top_k = ids.shape
    for token in range(tokens):
        if starts[token]:
            history[:] = -1
        for layer in range(layers):
            if not recorded[token, layer]:
                continue
            if history[layer, 0] >= 0:
                for i in range(top_k):
                    source = history[layer, i]
                    given[layer, source] += 1
                    for j in range(top_k):
                        pairs[layer, source, ids[token, layer, j]] += 1
            for i in range(top_k):
                history[layer, i] = ids[token, layer, i]
