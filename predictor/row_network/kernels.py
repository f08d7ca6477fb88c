"""Every rule of a row network's inference, compiled: each is written once, for the streaming and the batch form."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from predictor.row_network.integers import (
    ADAPTED_LIMIT,
    CERTAIN,
    CHANCE_SHIFT,
    FRACTION_BITS,
    HIDDEN_MAX,
    KEY_ROTATION,
    SCORE_MAX,
    SCORE_MIN,
    SCORE_ZERO,
    TOKEN_MULTIPLIER,
)
from predictor.row_network.sources import DECAYED, MATCHED, SAME_TOKEN

Bools = NDArray[np.bool_]
I8 = NDArray[np.int8]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]

UNKNOWN = -1
"""The identity of a token that has none, the key of an entry that was not written, the place of no match."""


class Rules(NamedTuple):
    """What does not change: the sources, ranks, decays and n-gram tables of a network.

    Attributes:
        ages, offsets, indices, firsts, lasts: i64 ``[sources]``, as ``sources.Source``.
        rank_shifts: i64 ``[top_k]``.
        decay_shifts: i64 ``[decays]``.
        lengths: i64 ``[n-gram tables]``, ascending.
        by_routing: whether layer 0's choice stands for identity.
        nearest: the nearest lookahead served.
    """

    ages: I64
    offsets: I64
    indices: I64
    firsts: I64
    lasts: I64
    rank_shifts: I64
    decay_shifts: I64
    lengths: I64
    by_routing: bool
    nearest: int


class Tables(NamedTuple):
    """The arrays of ``integers.NetworkTables`` that inference reads."""

    rows: I8
    source_shifts: U8
    bias: I32
    identity_rows: I8
    identity_shifts: U8
    hidden_shifts: U8
    output: I8
    output_bias: I32
    score_shifts: U8
    adaptations: U8
    chances: U16


class State(NamedTuple):
    """What one sequence slot holds.

    Attributes:
        now: i32 ``[layers, hidden]``, the sums of this token.
        later: i32 ``[previous tokens, layers, hidden]``, those of the coming tokens so far.
        fresh: i32 ``[decays, layers, hidden]``, what this token adds to the decayed sums.
        decayed: i32 ``[decays, layers, hidden]``, with ``FRACTION_BITS``.
        last_ids: i16 ``[layers, top_k]``, the last recorded choice, where ``known`` bool ``[layers]``.
        recent: i64 ``[identities]``, identity rows of the latest tokens (−1: none).
        adapted: i32 ``[lookaheads asked, layers, experts]``.
        tokens: i64 ``[longest n-gram]``, identities of the latest tokens.
        keys, places: i64 ``[n-gram tables, entries]``.
        log: i16 ``[log tokens, layers, top_k]``, −1: not recorded.
        position: i64 ``[1]``, of this token in its sequence.
    """

    now: I32
    later: I32
    fresh: I32
    decayed: I32
    last_ids: I16
    known: Bools
    recent: I64
    adapted: I32
    tokens: I64
    keys: I64
    places: I64
    log: I16
    position: I64


@njit()
def add_rows(total: I32, rows: I8, ids: I16, rank_shifts: I64, shift: int) -> None:
    """``total [hidden]`` grows by the rows ``[experts, hidden]`` of ``ids``, shifted by rank and all by ``shift``."""
    for rank in range(len(ids)):
        left = rank_shifts[rank] + shift
        row = rows[ids[rank]]
        for i in range(len(total)):
            total[i] += np.int32(row[i]) << left


@njit()
def remember_token(tokens: I64, token: int) -> None:
    """``token`` becomes the latest of ``tokens``."""
    for age in range(len(tokens) - 1, 0, -1):
        tokens[age] = tokens[age - 1]
    if len(tokens):
        tokens[0] = token


@njit()
def ngram_key(tokens: I64, length: int) -> int:
    """The key of the last ``length`` identities of ``tokens`` (the latest first); ``UNKNOWN`` where one is missing."""
    key = 0
    for age in range(length - 1, -1, -1):
        if tokens[age] < 0:
            return UNKNOWN
        key = (((key << KEY_ROTATION) | (key >> (32 - KEY_ROTATION))) & 0xFFFFFFFF) ^ tokens[age]
    return key


@njit()
def routing_token(ids: I16, recorded: bool) -> int:
    """What stands for the set of ``ids``, whatever their order, u32; ``UNKNOWN`` where they were not recorded."""
    if not recorded:
        return UNKNOWN
    token = 0
    for expert in ids:
        token ^= ((int(expert) + 1) * TOKEN_MULTIPLIER) & 0xFFFFFFFF
    return token


@njit()
def look_up(lengths: I64, tokens: I64, keys: I64, places: I64, token: int, position: int, named: I64) -> None:
    """The token at ``position`` has the identity ``token``: fill ``named`` and take the entries.

    ``named`` i64 ``[n-gram tables + 1]``: the position that each table names and, last, the one that the longest
    matching n-gram names; ``UNKNOWN``: none.
    """
    remember_token(tokens, token)
    named[:] = UNKNOWN
    for table in range(len(lengths)):
        key = ngram_key(tokens, lengths[table])
        if key < 0:
            continue
        entry = key & (keys.shape[1] - 1)
        if keys[table, entry] == key:
            named[table] = places[table, entry]
            named[len(lengths)] = named[table]
        keys[table, entry] = key
        places[table, entry] = position


@njit()
def start_sequence(state: State) -> None:
    """Forget everything: no routing, no decayed sums, no identities, no adapted biases, no text."""
    state.now[:] = 0
    state.later[:] = 0
    state.fresh[:] = 0
    state.decayed[:] = 0
    state.known[:] = False
    state.recent[:] = UNKNOWN
    state.adapted[:] = 0
    state.tokens[:] = UNKNOWN
    state.keys[:] = UNKNOWN
    state.log[:] = UNKNOWN
    state.position[0] = -1


@njit()
def add_text(rules: Rules, tables: Tables, state: State, token: int) -> None:
    """Look up what stands for this token, and add what the target layers chose where the text stood so before."""
    if not len(rules.lengths):
        return
    position = state.position[0]
    named = np.empty(len(rules.lengths) + 1, np.int64)
    look_up(rules.lengths, state.tokens, state.keys, state.places, token, position, named)
    for source in range(len(rules.ages)):
        if rules.ages[source] != MATCHED:
            continue
        place = named[rules.indices[source]]  # −1, the longest, is the last
        if place < 0:
            continue
        # This token has taken the room of the one ``len(log)`` before it.
        oldest = max(place + rules.firsts[source], position - len(state.log) + 1)
        for earlier in range(oldest, min(place + rules.lasts[source] + 1, position)):
            record = state.log[earlier & (len(state.log) - 1)]
            for target in range(len(state.now)):
                if record[target, 0] >= 0:
                    add_rows(
                        state.now[target], tables.rows[target, source], record[target], rules.rank_shifts,
                        tables.source_shifts[target, source],
                    )  # fmt: skip


@njit()
def begin_token(rules: Rules, tables: Tables, state: State, token: int, identity: int) -> None:
    """A token with this identity (``UNKNOWN``: not recorded), whose row is ``identity`` (−1: none), begins."""
    state.position[0] += 1
    if len(state.log):
        state.log[state.position[0] & (len(state.log) - 1)] = UNKNOWN
    remember_token(state.recent, identity)
    for age in range(len(state.recent)):
        if state.recent[age] >= 0:
            rows = tables.identity_rows[state.recent[age], age]
            for layer in range(state.now.shape[0]):
                for i in range(state.now.shape[1]):
                    state.now[layer, i] += np.int32(rows[layer, i]) << tables.identity_shifts[layer, age]
    if not rules.by_routing:
        add_text(rules, tables, state, token)


@njit()
def observe(rules: Rules, tables: Tables, state: State, layer: int, ids: I16, recorded: bool) -> None:
    """The gate of ``layer`` chose ``ids``: add their rows to every sum that they feed, and log them."""
    if layer == 0 and rules.by_routing:
        add_text(rules, tables, state, routing_token(ids, recorded))
    if recorded:
        state.last_ids[layer] = ids
        state.known[layer] = True
        if len(state.log):
            state.log[state.position[0] & (len(state.log) - 1), layer] = ids
    for source in range(len(rules.ages)):
        age = rules.ages[source]
        target = layer - rules.offsets[source]
        if target < 0 or target >= state.now.shape[0] or age == MATCHED:
            continue
        if age == SAME_TOKEN:
            if not recorded:
                continue
            total = state.now[target]
        elif not state.known[layer]:
            continue
        elif age == DECAYED:
            total = state.fresh[rules.indices[source], target]
        else:
            total = state.later[age - 1, target]
        add_rows(
            total, tables.rows[target, source], state.last_ids[layer], rules.rank_shifts,
            tables.source_shifts[target, source],
        )  # fmt: skip


@njit()
def end_token(rules: Rules, state: State) -> None:
    """The last layer was observed: decay, and begin the next token's sums with all that is known of it."""
    now, later = state.now, state.later
    now[:] = 0
    if len(later):
        now += later[0]
        for age in range(len(later) - 1):
            later[age] = later[age + 1]
        later[len(later) - 1] = 0
    for index in range(len(rules.decay_shifts)):
        decay = rules.decay_shifts[index]
        right = FRACTION_BITS - decay // 2
        for layer in range(now.shape[0]):
            for i in range(now.shape[1]):
                value = state.decayed[index, layer, i]
                value += ((state.fresh[index, layer, i] << FRACTION_BITS) - value + (1 << (decay - 1))) >> decay
                state.decayed[index, layer, i] = value
                now[layer, i] += (value + (1 << right >> 1)) >> right
        state.fresh[index] = 0


@njit()
def distance_of(target: int, lookahead: int, nearest: int) -> int:
    """The lookahead at which ``target`` is asked, counted from the nearest: before layer 0 no gate is known."""
    return max(min(lookahead, target + 1), nearest) - nearest


@njit()
def score_layer(
    rules: Rules, tables: Tables, state: State, asked: int, target: int, lookahead: int, scores: I32
) -> None:
    """Scores i32 ``[questions · experts]`` of one target from what its sum holds now.

    ``lookahead`` is the one of place ``asked`` among those that the state serves.
    """
    now = state.now[target]
    bias = tables.bias[target, distance_of(target, lookahead, rules.nearest)]
    output = tables.output[target]
    hidden_shift, score_shift = tables.hidden_shifts[target], tables.score_shifts[target]
    scores[:] = tables.output_bias[target]
    for i in range(len(now)):
        value = (now[i] + bias[i] + (1 << hidden_shift >> 1)) >> hidden_shift
        if value > 0:
            unit = np.int32(min(value, HIDDEN_MAX))
            for answer in range(len(scores)):
                scores[answer] += unit * np.int32(output[i, answer])
    half = 1 << score_shift >> 1
    adaptation = tables.adaptations[target]
    for answer in range(len(scores)):
        value = ((scores[answer] + half) >> score_shift) + SCORE_ZERO
        if adaptation:
            value += state.adapted[asked, target, answer] >> adaptation
        scores[answer] = min(SCORE_MAX, max(SCORE_MIN, value))


@njit()
def adapt(
    rules: Rules, tables: Tables, state: State, asked: int, layer: int, lookahead: int, ids: I16, recorded: bool,
    scores: I32,
) -> None:  # fmt: skip
    """The gate of ``layer`` chose ``ids``: move the bias of each expert by how wrong its chance was."""
    if not recorded or not tables.adaptations[layer]:
        return
    adapted = state.adapted[asked, layer]
    chances = tables.chances[layer, distance_of(layer, lookahead, rules.nearest), 0]
    for expert in range(len(adapted)):
        adapted[expert] -= np.int32(chances[scores[expert] >> CHANCE_SHIFT])
    for expert in ids:
        adapted[expert] += CERTAIN
    for expert in range(len(adapted)):
        adapted[expert] = min(ADAPTED_LIMIT, max(-ADAPTED_LIMIT, adapted[expert]))


@njit()
def score_tokens(
    rules: Rules, tables: Tables, state: State, lookahead: int, ids: I16, recorded: Bools, starts: Bools,
    tokens: I64, identities: I64, scores: I32,
) -> None:  # fmt: skip
    """Scores i32 ``[tokens, layers, answers]`` of consecutive tokens: the streaming form's calls, in its order."""
    layers = ids.shape[1]
    for token in range(ids.shape[0]):
        if starts[token]:
            start_sequence(state)
        begin_token(rules, tables, state, tokens[token], identities[token])
        for target in range(lookahead):
            score_layer(rules, tables, state, 0, target, lookahead, scores[token, target])
        for layer in range(layers):
            choice, known = ids[token, layer], recorded[token, layer]
            if lookahead:
                adapt(rules, tables, state, 0, layer, lookahead, choice, known, scores[token, layer])
            observe(rules, tables, state, layer, choice, known)
            target = layer + lookahead
            if target < layers:
                score_layer(rules, tables, state, 0, target, lookahead, scores[token, target])
        end_token(rules, state)


@njit()
def named_tokens(tokens: I64, starts: Bools, lengths: I64, entries: int) -> I64:
    """What ``look_up`` names for consecutive ``tokens``, i64 ``[n-gram tables + 1, tokens]``: the row of the earlier
    token, ``UNKNOWN``: none. For training, which needs no log."""
    found = np.full((len(lengths) + 1, len(tokens)), UNKNOWN, np.int64)
    keys = np.full((len(lengths), entries), UNKNOWN, np.int64)
    places = np.zeros((len(lengths), entries), np.int64)
    latest = np.full(lengths[-1], UNKNOWN, np.int64)
    for token in range(len(tokens)):
        if starts[token]:
            keys[:] = UNKNOWN
            latest[:] = UNKNOWN
        look_up(lengths, latest, keys, places, tokens[token], token, found[:, token])
    return found
