"""A trace as training sees it: what feeds the sums of any of its tokens, in floating point.

Memory grows with the ids of the trace alone: decayed sums are kept at every ``CHECKPOINT`` tokens, and carried on from
there for the tokens of a batch.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from predictor.base import id_chunks
from predictor.row_network.config import NetworkConfig
from predictor.row_network.kernels import UNKNOWN, distance_of, named_tokens, routing_token
from predictor.row_network.sources import DECAYED, MATCHED, SAME_TOKEN, rank_shifts, source_arrays
from predictor.row_network.twin import identity_rows
from traces import RoutingTrace

RANK_UNIT = 2.0
"""A row shifted left by one weighs 1 in floating point, so that inputs are about as large as unranked ones."""
CHECKPOINT = 16

Bools = NDArray[np.bool_]
F32 = NDArray[np.float32]
I16 = NDArray[np.int16]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Examples:
    """The tokens of some sequences.

    Attributes:
        ids: i16 ``[tokens, layers, top_k]``: what was chosen; −1 where it was not recorded.
        held: i16 ``[tokens, layers, top_k]``: the last recorded choice up to and with this token; −1: none yet.
        begins, ends: i64 ``[tokens]``: the first token of each one's sequence, and the one after its last.
        checkpoints: f32 ``[decays, tokens / CHECKPOINT, layers, experts]``: decayed sums at the start of those tokens.
        identity: i64 ``[tokens]``: row of each token's identity.
        named: i64 ``[n-gram tables + 1, tokens]``: the earlier token that each table names, then that of the longest
            n-gram; −1: none.
        gate_weights: f16 ``[tokens, layers, top_k]`` or ``None``.
        rank_weights: f32 ``[top_k]``.
        experts: experts a layer.
        config: what feeds the sums.
    """

    ids: I16
    held: I16
    begins: I64
    ends: I64
    checkpoints: F32
    identity: I64
    named: I64
    gate_weights: NDArray[np.float16] | None
    rank_weights: F32
    experts: int
    config: NetworkConfig

    @classmethod
    def of(
        cls, trace: RoutingTrace, config: NetworkConfig, *, ranked: bool, identity_tokens: NDArray[np.uint32]
    ) -> "Examples":
        """The tokens of ``trace``; ``identity_tokens`` ascending: those with identity rows of their own."""
        ids, held = (np.empty((trace.tokens, trace.layers, trace.top_k), np.int16) for _ in range(2))
        checkpoints = (len(config.decays), -(-trace.tokens // CHECKPOINT), trace.layers, trace.experts)
        starts = np.zeros(trace.tokens, np.bool_)
        for first, chunk, recorded, begun in id_chunks(trace):
            part = slice(first, first + len(chunk))
            ids[part] = np.where(recorded[:, :, None], chunk, UNKNOWN)
            starts[part] = begun
        weights = (2.0 ** np.array(rank_shifts(trace.top_k, ranked))).astype(np.float32)
        weights /= RANK_UNIT if ranked else 1.0
        rates = 2.0 ** -np.array([shift for shift, _ in config.decays], np.float32)
        found = np.zeros(checkpoints, np.float32)
        _hold_and_decay(ids, starts, weights, rates, CHECKPOINT, held, found)
        offsets = np.asarray(trace.sequence_offsets)
        hashes = np.full(trace.tokens, UNKNOWN, np.int64)
        if config.looks_at_identity:
            hashes = np.asarray(trace.token_hash).astype(np.int64)
        lengths = np.array(config.ngram_tables if config.looks_for_matches else (), np.int64)
        tokens = _routing_tokens(ids[:, 0]) if config.ngram_by == "routing" else hashes
        return cls(
            ids=ids,
            held=held,
            begins=np.repeat(offsets[:-1], np.diff(offsets)),
            ends=np.repeat(offsets[1:], np.diff(offsets)),
            checkpoints=found,
            identity=identity_rows(identity_tokens, hashes) if config.identities else hashes,
            named=named_tokens(tokens, starts, lengths, config.ngram_entries)
            if len(lengths)
            else np.full((1, trace.tokens), UNKNOWN, np.int64),
            gate_weights=None if trace.gate_weights is None else np.asarray(trace.gate_weights),
            rank_weights=weights,
            experts=trace.experts,
            config=config,
        )

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return len(self.ids)

    def inputs(self, tokens: I64, lookaheads: I64) -> F32:
        """What feeds the sums f32 ``[layers, tokens, sources, experts]`` of ``tokens``, asked at ``lookaheads``."""
        config = self.config
        fields = source_arrays(config)
        shifts = np.array([shift for shift, _ in config.decays], np.int64)
        found = np.zeros((self.ids.shape[1], len(tokens), len(fields.ages), self.experts), np.float32)
        state = np.zeros((len(shifts), self.ids.shape[1], self.experts), np.float32)
        _fill(
            tokens, lookaheads, self.ids, self.held, self.begins, self.checkpoints, self.named, self.rank_weights,
            2.0 ** -shifts.astype(np.float32), (2.0 ** (shifts // 2)).astype(np.float32), *fields,
            config.ngram_by == "routing", config.log_tokens, CHECKPOINT, state, found,
        )  # fmt: skip
        return found

    def identities(self, tokens: I64) -> I64:
        """Identity rows i64 ``[identities, tokens]`` of each token and its previous ones; ``identity_rows``: none."""
        none = self.config.identity_rows
        found = np.full((self.config.identities, len(tokens)), none, np.int64)
        for age in range(self.config.identities):
            exists = tokens - age >= self.begins[tokens]
            found[age] = np.where(exists, self.identity[np.where(exists, tokens - age, 0)], none)
        return found

    def distances(self, lookaheads: I64) -> I64:
        """``kernels.distance_of`` every layer at ``lookaheads [tokens]``: i64 ``[layers, tokens]``."""
        return _distances(self.ids.shape[1], lookaheads, self.config.nearest)


def frequent_tokens(trace: RoutingTrace, rows: int) -> NDArray[np.uint32]:
    """u32 ``[rows − 1]`` ascending: the most frequent identities of a trace (ties: the smaller hash).

    Where the trace has fewer, the largest hashes that do not occur fill the rest, so that a table has its size.
    """
    assert trace.token_hash is not None
    values, counts = np.unique(np.asarray(trace.token_hash), return_counts=True)
    chosen = values[np.argsort(-counts, kind="stable")[: rows - 1]]
    spare = np.setdiff1d(np.arange(2**32 - 2 * rows, 2**32, dtype=np.uint32), chosen)[::-1]
    return np.sort(np.concatenate([chosen, spare[: rows - 1 - len(chosen)]])).astype(np.uint32)


@njit()
def _routing_tokens(ids: I16) -> I64:
    """``routing_token`` of each row of ``ids [tokens, top_k]`` (−1: not recorded)."""
    found = np.empty(len(ids), np.int64)
    for token in range(len(ids)):
        found[token] = routing_token(ids[token], ids[token, 0] >= 0)
    return found


@njit()
def _distances(layers: int, lookaheads: I64, nearest: int) -> I64:
    found = np.empty((layers, len(lookaheads)), np.int64)
    for layer in range(layers):
        for token in range(len(lookaheads)):
            found[layer, token] = distance_of(layer, lookaheads[token], nearest)
    return found


@njit()
def _decay(state: F32, held: I16, weights: F32, rates: F32) -> None:
    """A token's choices ``held [layers, top_k]`` enter the decayed sums ``[decays, layers, experts]``."""
    for index in range(len(rates)):
        for layer in range(state.shape[1]):
            sums = state[index, layer]
            for expert in range(len(sums)):
                sums[expert] -= sums[expert] * rates[index]
            if held[layer, 0] >= 0:
                for rank in range(held.shape[1]):
                    sums[held[layer, rank]] += weights[rank] * rates[index]


@njit()
def _hold_and_decay(ids: I16, starts: Bools, weights: F32, rates: F32, every: int, held: I16, checkpoints: F32) -> None:
    last = np.full(ids.shape[1:], -1, np.int16)
    state = np.zeros((len(rates), ids.shape[1], checkpoints.shape[3]), np.float32)
    for token in range(len(ids)):
        if starts[token]:
            last[:] = -1
            state[:] = 0
        if token % every == 0:
            checkpoints[:, token // every] = state
        for layer in range(ids.shape[1]):
            if ids[token, layer, 0] >= 0:
                last[layer] = ids[token, layer]
        held[token] = last
        _decay(state, last, weights, rates)


@njit()
def _add(column: F32, ids: I16, weights: F32) -> None:
    """``column [experts]`` grows by the weights of ``ids``; −1: none."""
    if ids[0] >= 0:
        for rank in range(len(ids)):
            column[ids[rank]] += weights[rank]


@njit()
def _fill(
    tokens: I64, lookaheads: I64, ids: I16, held: I16, begins: I64, checkpoints: F32, named: I64, weights: F32,
    rates: F32, gains: F32, ages: I64, offsets: I64, indices: I64, firsts: I64, lasts: I64,
    by_routing: bool, log_tokens: int, every: int, state: F32, found: F32,
) -> None:  # fmt: skip
    layers = ids.shape[1]
    for row in range(len(tokens)):
        token, lookahead = tokens[row], lookaheads[row]
        kept = token // every * every
        if kept >= begins[token]:
            state[:] = checkpoints[:, token // every]
        else:
            kept = begins[token]
            state[:] = 0
        for earlier in range(kept, token):
            _decay(state, held[earlier], weights, rates)
        for source in range(len(ages)):
            age = ages[source]
            for target in range(layers):
                layer = target + offsets[source]
                if layer < 0 or layer >= layers:
                    continue
                column = found[target, row, source]
                if age == SAME_TOKEN:
                    if layer <= target - lookahead:
                        _add(column, ids[token, layer], weights)
                elif age == DECAYED:
                    for expert in range(len(column)):
                        column[expert] = state[indices[source], layer, expert] * gains[indices[source]]
                elif age == MATCHED:
                    place = named[indices[source], token]
                    if place < 0 or (by_routing and target < lookahead):
                        continue
                    oldest = max(place + firsts[source], token - log_tokens + 1)
                    for other in range(oldest, min(place + lasts[source] + 1, token)):
                        _add(column, ids[other, layer], weights)
                elif token - age >= begins[token]:
                    _add(column, held[token - age, layer], weights)
