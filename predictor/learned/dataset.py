"""A trace as training sees it: what feeds the sums of every token, in floating point, and what was chosen."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predictor.base import id_chunks
from predictor.learned.config import LearnedConfig
from predictor.learned.context import rank_shifts
from predictor.learned.kernels import matched_tokens, routing_tokens
from predictor.learned.tables import KEY_ROTATION, TOKEN_MULTIPLIER
from traces import RoutingTrace
from traces.compiled import njit

RANK_UNIT = 2.0
"""A row shifted left by one weighs 1 in floating point, so that inputs are about as large as unranked ones."""


@dataclass(frozen=True)
class Dataset:
    """Arrays over the tokens of a trace; a layer that was not recorded keeps its last choice of the sequence.

    Attributes:
        ids: i16 ``[tokens, layers, top_k]``: what was chosen; −1 where it was not recorded.
        held: i16 ``[tokens, layers, top_k]``: the last recorded choice up to and with this token; −1: none yet.
        position: i32 ``[tokens]``: tokens since the start of the sequence.
        decayed: f16 ``[decays, tokens, layers, experts]``: decayed sums at the start of each token, with their gain.
        identity: i64 ``[tokens]``: row of each token's identity; ``identity_rows`` where a token does not exist.
        matched: i64 ``[tagged tables, tokens]``: the earlier token that each tagged table names, −1: none.
        gate_weights: f16 ``[tokens, layers, top_k]`` or ``None``.
        rank_weights: f32 ``[top_k]``.
        experts: experts a layer.
    """

    ids: NDArray[np.int16]
    held: NDArray[np.int16]
    position: NDArray[np.int32]
    decayed: NDArray[np.float16]
    identity: NDArray[np.int64]
    matched: NDArray[np.int64]
    gate_weights: NDArray[np.float16] | None
    rank_weights: NDArray[np.float32]
    experts: int

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return len(self.ids)


def frequent_tokens(trace: RoutingTrace, rows: int) -> NDArray[np.uint32]:
    """u32 ``[rows − 1]`` ascending: the most frequent identities of a trace (ties: the smaller hash).

    Where the trace has fewer, the largest hashes that do not occur fill the rest, so that a table has its size.
    """
    assert trace.token_hash is not None
    values, counts = np.unique(np.asarray(trace.token_hash), return_counts=True)
    chosen = values[np.argsort(-counts, kind="stable")[: rows - 1]]
    spare = np.setdiff1d(np.arange(2**32 - 2 * rows, 2**32, dtype=np.uint32), chosen)[::-1]
    return np.sort(np.concatenate([chosen, spare[: rows - 1 - len(chosen)]])).astype(np.uint32)


def prepare(trace: RoutingTrace, config: LearnedConfig, *, ranked: bool, identity: NDArray[np.int64]) -> Dataset:
    """The dataset of a trace whose tokens have the identity rows ``identity``."""
    weights = (2.0 ** np.array(rank_shifts(trace.top_k, ranked))).astype(np.float32)
    weights /= RANK_UNIT if ranked else 1.0
    shape = (trace.tokens, trace.layers, trace.top_k)
    ids = np.empty(shape, np.int16)
    held = np.empty(shape, np.int16)
    decayed = np.zeros((len(config.decays), trace.tokens, trace.layers, trace.experts), np.float16)
    starts_all = np.zeros(trace.tokens, np.bool_)
    last = np.full(shape[1:], -1, np.int16)
    state = np.zeros(decayed.shape[:1] + decayed.shape[2:], np.float32)
    rates = 2.0 ** -np.array(config.decays, np.float32)
    gains = 2.0 ** (np.array(config.decays) // 2).astype(np.float32)
    for first, chunk, recorded, starts in id_chunks(trace):
        part = slice(first, first + len(chunk))
        ids[part] = np.where(recorded[:, :, None], chunk, -1)
        starts_all[part] = starts
        sums = np.empty((len(config.decays), len(chunk), *state.shape[1:]), np.float32)  # numba knows no f16
        _hold_and_decay(ids[part], starts, weights, rates, gains, last, state, held[part], sums)
        decayed[:, part] = sums
    begun = np.maximum.accumulate(np.where(starts_all, np.arange(trace.tokens), 0))
    return Dataset(
        ids=ids,
        held=held,
        position=(np.arange(trace.tokens) - begun).astype(np.int32),
        decayed=decayed,
        identity=identity,
        matched=_matched(trace, config, starts_all, ids),
        gate_weights=None if trace.gate_weights is None else np.asarray(trace.gate_weights),
        rank_weights=weights,
        experts=trace.experts,
    )


def _matched(
    trace: RoutingTrace, config: LearnedConfig, starts: NDArray[np.bool_], ids: NDArray[np.int16]
) -> NDArray[np.int64]:
    if not config.tagged:
        return np.empty((0, trace.tokens), np.int64)
    if config.tagged_by == "routing":
        tokens = routing_tokens(ids[:, 0], TOKEN_MULTIPLIER)
    else:
        tokens = np.asarray(trace.token_hash).astype(np.int64)
    entries = config.tagged_entries
    return np.stack([matched_tokens(tokens, starts, length, KEY_ROTATION, entries) for length in config.tagged])


@njit()
def _hold_and_decay(
    ids: NDArray[np.int16],
    starts: NDArray[np.bool_],
    weights: NDArray[np.float32],
    rates: NDArray[np.float32],
    gains: NDArray[np.float32],
    last: NDArray[np.int16],
    state: NDArray[np.float32],
    held: NDArray[np.int16],
    decayed: NDArray[np.float32],
) -> None:
    for token in range(ids.shape[0]):
        if starts[token]:
            last[:] = -1
            state[:] = 0
        for layer in range(ids.shape[1]):
            for index in range(len(rates)):
                for expert in range(state.shape[2]):
                    decayed[index, token, layer, expert] = state[index, layer, expert] * gains[index]
                    state[index, layer, expert] -= state[index, layer, expert] * rates[index]
            if ids[token, layer, 0] >= 0:
                last[layer] = ids[token, layer]
            held[token, layer] = last[layer]
            if last[layer, 0] >= 0:
                for rank in range(ids.shape[2]):
                    for index in range(len(rates)):
                        state[index, layer, last[layer, rank]] += weights[rank] * rates[index]
