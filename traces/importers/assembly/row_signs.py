"""Find signs in rows and sequences that routing does not come from a text: equal weights, padding, repetition.

One pass counts them all, in chunks:

* a token whose gate weights are *equal* in every layer (to the bit): a router without input scores all experts equally.
  Weights of exactly 1 do not count: PhiMoE gives them if no other expert's score is near;
* a token whose rows are all the first experts *in order*, 0, 1, … k − 1: the k best of equal scores;
* sequences of at least ``REPEATED_TOKENS`` that are *the same* token by token: shorter prompts may well occur twice.

If rows are short or layers few, some of each occur by chance, so each count has its expectation beside it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catalog.compiled import njit
from traces.trace import RoutingTrace

REPEATED_TOKENS = 8
"""Fewest tokens of a sequence that counts as repeating another; shorter ones are greetings."""

SAMPLED_TOKENS = 1 << 16
"""Number of tokens, spread over the trace, that measure how often two tokens are equal by chance."""

_HALF_ONE = 0x3C00
"""The bit pattern of 1 in f16."""

_HASH_START = 0xCBF29CE484222325
_HASH_PRIME = 0x100000001B3
"""FNV-1a, 64 bits (IETF draft-eastlake-fnv): here of ids rather than bytes."""


@dataclass(frozen=True, eq=False)
class SignedTokens:
    """The tokens with a sign in every recorded layer.

    Attributes:
        tokens: number of tokens.
        first, last: the first and the last of them; −1 if there are none.
        expected: the most to expect if layers were independent of each other.
    """

    tokens: int
    first: int
    last: int
    expected: float


@dataclass(frozen=True, eq=False)
class RowSigns:
    """The counts of one pass.

    Attributes:
        equal_weights: tokens with equal gate weights.
        in_order: tokens with the first experts in order.
        repeated: i64 ``[sequences that repeat an earlier one, 2]``: the sequence, and the first one equal to it.
    """

    equal_weights: SignedTokens
    in_order: SignedTokens
    repeated: npt.NDArray[np.int64]


def row_signs(trace: RoutingTrace) -> RowSigns:
    """Count the signs in ``trace``; needs 8 bytes of memory per sequence."""
    layers = trace.layers
    rows, equal, ordered = (np.zeros(layers, np.int64) for _ in range(3))
    totals = np.array([[0, -1, -1], [0, -1, -1]], np.int64)
    sequence_hashes = np.empty(trace.sequences, np.uint64)
    open_hash = np.full(1, _HASH_START, np.uint64)
    step = -(-trace.tokens // SAMPLED_TOKENS)
    samples: list[npt.NDArray[np.uint64]] = []
    done = ended = 0
    for part in trace.chunks():
        hashes = np.empty(part.tokens, np.uint64)
        weights = np.zeros((0, layers, trace.top_k), np.uint16)
        if part.gate_weights is not None:
            weights = part.gate_weights.view(np.uint16)
        _count_signs(part.expert_ids, weights, trace.experts, done, rows, equal, ordered, totals, hashes)
        samples.append(hashes[-done % step :: step].copy())
        closed = int(np.searchsorted(trace.sequence_offsets, done + part.tokens, side="right")) - 1
        closing = trace.sequence_offsets[ended + 1 : closed + 1] - done
        _close_sequences(hashes, closing, open_hash, sequence_hashes[ended:closed])
        ended = closed
        done += part.tokens
    # f16 has 10 bits of fraction: different weights round to the same value about once in 2^10.
    by_bits = 8.0 * trace.tokens * 2.0 ** (-10 * (trace.top_k - 1) * layers)
    return RowSigns(
        equal_weights=_signed(totals[0], min(by_bits, _expected(trace, rows, equal, totals[0, 0]))),
        in_order=_signed(totals[1], _expected(trace, rows, ordered, totals[1, 0])),
        repeated=_repeated(trace, sequence_hashes, _chance(np.concatenate(samples))),
    )


def _signed(total: npt.NDArray[np.int64], expected: float) -> SignedTokens:
    """``total [(tokens, first, last)]`` with its expectation."""
    return SignedTokens(int(total[0]), int(total[1]), int(total[2]), expected)


def _expected(
    trace: RoutingTrace, rows: npt.NDArray[np.int64], signed: npt.NDArray[np.int64], everywhere: int
) -> float:
    """Expected tokens with a sign in every layer, if the other tokens' ``rows`` have theirs (``signed``) independently.

    With few layers this cannot be estimated: the tokens in question would be their own expectation.
    """
    if trace.layers < 4:
        return float(trace.tokens)
    share = np.maximum(signed - everywhere, 0) / np.maximum(rows - everywhere, 1)
    return trace.tokens * float(np.prod(share))


def _chance(hashes: npt.NDArray[np.uint64]) -> float:
    """Chance that two of the sampled tokens are equal in every layer."""
    if len(hashes) < 2:
        return 1.0
    counts = np.unique(hashes, return_counts=True)[1].astype(np.float64)
    return float((counts * (counts - 1)).sum() / (len(hashes) * (len(hashes) - 1.0)))


def _repeated(trace: RoutingTrace, hashes: npt.NDArray[np.uint64], chance: float) -> npt.NDArray[np.int64]:
    """Repetitions among sequences so long that chance would give fewer than one in a hundred."""
    lengths = np.diff(trace.sequence_offsets)
    order = np.lexsort((hashes, lengths))  # stable: equal sequences stay in order
    same = np.zeros(len(order), np.bool_)
    same[1:] = (hashes[order[1:]] == hashes[order[:-1]]) & (lengths[order[1:]] == lengths[order[:-1]])
    first = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    pairs = np.stack([order, order[first]], axis=1)[same]
    of_length, number = np.unique(lengths, return_counts=True)
    expected = number * (number - 1.0) / 2 * np.power(chance, of_length.astype(np.float64))
    believed = expected[np.searchsorted(of_length, lengths[pairs[:, 0]])] < 0.01
    pairs = pairs[believed & (lengths[pairs[:, 0]] >= REPEATED_TOKENS)]
    return pairs[np.argsort(pairs[:, 0])]


@njit()
def _count_signs(
    ids: npt.NDArray[np.unsignedinteger],
    weights: npt.NDArray[np.uint16],
    experts: int,
    offset: int,
    rows: npt.NDArray[np.int64],
    equal: npt.NDArray[np.int64],
    ordered: npt.NDArray[np.int64],
    totals: npt.NDArray[np.int64],
    hashes: npt.NDArray[np.uint64],
) -> None:
    """Add the signs of ``ids`` to the counts by layer and to ``totals [2, (tokens, first, last)]``; fill ``hashes``.

    ``weights`` are the bits of the gate weights, empty if the trace has none. Rows of one expert have no sign.
    """
    tokens, layers, top_k = ids.shape
    weighed = len(weights) > 0 and top_k > 1
    for token in range(tokens):
        recorded, are_equal, are_ordered = 0, 0, 0
        value = np.uint64(_HASH_START)
        for layer in range(layers):
            for i in range(top_k):
                value = (value ^ np.uint64(ids[token, layer, i])) * np.uint64(_HASH_PRIME)
            if ids[token, layer, 0] >= experts:
                continue
            recorded += 1
            rows[layer] += 1
            if weighed:
                alike = int(weights[token, layer, 0] != _HALF_ONE)
                for i in range(1, top_k):
                    if weights[token, layer, i] != weights[token, layer, 0]:
                        alike = 0
                        break
                are_equal += alike
                equal[layer] += alike
            if top_k > 1 and experts > top_k:
                in_order = 1
                for i in range(top_k):
                    if ids[token, layer, i] != i:
                        in_order = 0
                        break
                are_ordered += in_order
                ordered[layer] += in_order
        hashes[token] = value
        if recorded:
            if are_equal == recorded:
                totals[0, 0] += 1
                totals[0, 2] = offset + token
                if totals[0, 1] < 0:
                    totals[0, 1] = offset + token
            if are_ordered == recorded:
                totals[1, 0] += 1
                totals[1, 2] = offset + token
                if totals[1, 1] < 0:
                    totals[1, 1] = offset + token


@njit()
def _close_sequences(
    hashes: npt.NDArray[np.uint64],
    ends: npt.NDArray[np.int64],
    open_hash: npt.NDArray[np.uint64],
    closed: npt.NDArray[np.uint64],
) -> None:
    """Hashes of the sequences that end at ``ends`` within these tokens; ``open_hash [1]`` is the unfinished one's."""
    sequence = 0
    for token in range(len(hashes)):
        open_hash[0] = (open_hash[0] ^ hashes[token]) * np.uint64(_HASH_PRIME)
        if sequence < len(ends) and token + 1 == ends[sequence]:
            closed[sequence] = open_hash[0]
            open_hash[0] = np.uint64(_HASH_START)
            sequence += 1
