"""The integer rules of the learned predictor, compiled: each is written once, for the streaming and the batch form.

Numbers that other files define (shifts, bits) come as arguments: a compiled constant of another file would go stale.
"""

import numpy as np
from numpy.typing import NDArray

from traces.compiled import njit

I8 = NDArray[np.int8]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]


@njit()
def add_rows(total: I32, rows: I8, ids: I16, rank_shifts: I64, shift: int) -> None:
    """``total [hidden]`` grows by the rows ``[experts, hidden]`` of ``ids``, shifted by rank and all by ``shift``."""
    for rank in range(len(ids)):
        left = rank_shifts[rank] + shift
        row = rows[ids[rank]]
        for i in range(len(total)):
            total[i] += np.int32(row[i]) << left


@njit()
def add_identity(now: I32, rows: I8, shifts: U8, identity: int) -> None:
    """``now [layers, hidden]`` grows by a token's rows ``[layers, hidden]``; ``identity``: how many tokens ago."""
    for layer in range(now.shape[0]):
        for i in range(now.shape[1]):
            now[layer, i] += np.int32(rows[layer, i]) << shifts[layer, identity]


@njit()
def tagged_key(tokens: I64, length: int, rotation: int) -> int:
    """The key of the last ``length`` identities of ``tokens`` (the latest first; −1: none); −1 where one is missing."""
    key = 0
    for age in range(length - 1, -1, -1):
        if tokens[age] < 0:
            return -1
        key = (((key << rotation) | (key >> (32 - rotation))) & 0xFFFFFFFF) ^ tokens[age]
    return key


@njit()
def remember_token(tokens: I64, token: int) -> None:
    """``token`` becomes the latest of ``tokens``."""
    for age in range(len(tokens) - 1, 0, -1):
        tokens[age] = tokens[age - 1]
    if len(tokens):
        tokens[0] = token


@njit()
def routing_token(ids: I16, recorded: bool, multiplier: int) -> int:
    """What stands for the set of ``ids``, whatever their order, u32; −1 where they were not recorded."""
    if not recorded:
        return -1
    token = 0
    for expert in ids:
        token ^= ((int(expert) + 1) * multiplier) & 0xFFFFFFFF
    return token


@njit()
def routing_tokens(ids: I16, multiplier: int) -> I64:
    """``routing_token`` of each row of ``ids [tokens, top_k]`` (−1: not recorded)."""
    found = np.empty(len(ids), np.int64)
    for token in range(len(ids)):
        found[token] = routing_token(ids[token], ids[token, 0] >= 0, multiplier)
    return found


@njit()
def add_tagged(
    token: int, first: int, now: I32, rows: I8, source_shifts: U8, rank_shifts: I64, ages: I64, indices: I64,
    tagged: int, tokens: I64, lengths: I64, rotation: int, keys: I64, choices: I16, entries: I64,
) -> None:  # fmt: skip
    """The latest token is ``token``: look it up in each tagged table, add the rows found, and take the entries.

    ``first``: the first target that is fed; ``tagged``: the age that marks tagged sources; ``tokens``: the latest ones;
    ``keys [tables, entries]`` (−1: not of this sequence), ``choices [tables, entries, layers, top_k]`` (−1: not
    recorded) and ``entries [tables]``: the ones taken (−1: none).
    """
    remember_token(tokens, token)
    for source in range(len(ages)):
        if ages[source] != tagged:
            continue
        table = indices[source]
        key = tagged_key(tokens, lengths[table], rotation)
        entries[table] = -1
        if key < 0:
            continue
        entry = key & (keys.shape[1] - 1)
        if keys[table, entry] == key:
            for layer in range(first, now.shape[0]):
                if choices[table, entry, layer, 0] >= 0:
                    add_rows(
                        now[layer], rows[layer, source], choices[table, entry, layer], rank_shifts,
                        source_shifts[layer, source],
                    )  # fmt: skip
        entries[table] = entry
        keys[table, entry] = key
        choices[table, entry] = -1


@njit()
def matched_tokens(tokens: I64, starts: NDArray[np.bool_], length: int, rotation: int, table_entries: int) -> I64:
    """For each token the earlier one that a tagged table names, −1: none; ``tokens``: identities, in order.

    What ``add_tagged`` finds, for training, which needs no choices moved.
    """
    found = np.full(len(tokens), -1, np.int64)
    keys = np.full(table_entries, -1, np.int64)
    writers = np.zeros(table_entries, np.int64)
    latest = np.full(length, -1, np.int64)
    for token in range(len(tokens)):
        if starts[token]:
            keys[:] = -1
            latest[:] = -1
        remember_token(latest, tokens[token])
        key = tagged_key(latest, length, rotation)
        if key < 0:
            continue
        entry = key & (table_entries - 1)
        if keys[entry] == key:
            found[token] = writers[entry]
        keys[entry] = key
        writers[entry] = token
    return found


@njit()
def observe(
    layer: int,
    ids: I16,
    recorded: bool,
    last_ids: I16,
    known: NDArray[np.bool_],
    now: I32,
    later: I32,
    fresh: I32,
    rows: I8,
    source_shifts: U8,
    rank_shifts: I64,
    ages: I64,
    indices: I64,
    offsets: I64,
    tagged: int,
    choices: I16,
    entries: I64,
) -> None:
    """The gate of ``layer`` chose ``ids``: add their rows to every sum that they feed, and note them where taken.

    What was not recorded feeds nothing in this token; for later tokens the last recorded choice stands in, but not in
    the tagged tables, whose sums are of one token.
    """
    if recorded:
        last_ids[layer] = ids
        known[layer] = True
        for table in range(len(entries)):
            if entries[table] >= 0:
                choices[table, entries[table], layer] = ids
    for source in range(len(ages)):
        target = layer - offsets[source]
        if target < 0 or target >= now.shape[0] or ages[source] == tagged:
            continue
        if ages[source] == 0:
            if not recorded:
                continue
            total = now[target]
        elif not known[layer]:
            continue
        elif ages[source] > 0:
            total = later[ages[source] - 1, target]
        else:
            total = fresh[indices[source], target]
        add_rows(total, rows[target, source], last_ids[layer], rank_shifts, source_shifts[target, source])


@njit()
def end_token(
    now: I32, later: I32, fresh: I32, decayed: I32, bias: I32, decay_shifts: I64, fraction_bits: int, entries: I64
) -> None:
    """The last layer was observed: decay, and begin the next token's sums with all that is known of it."""
    entries[:] = -1
    now[:] = bias
    if len(later):
        now += later[0]
        for age in range(len(later) - 1):
            later[age] = later[age + 1]
        later[len(later) - 1] = 0
    for index in range(len(decay_shifts)):
        decay = decay_shifts[index]
        right = fraction_bits - decay // 2
        for layer in range(now.shape[0]):
            for i in range(now.shape[1]):
                state = decayed[index, layer, i]
                state += ((fresh[index, layer, i] << fraction_bits) - state + (1 << (decay - 1))) >> decay
                decayed[index, layer, i] = state
                now[layer, i] += (state + (1 << right >> 1)) >> right
        fresh[index] = 0


@njit()
def adapt(
    adapted: I32, scores: I32, ids: I16, probabilities: NDArray[np.uint16], bin_shift: int, one: int, limit: int
) -> None:
    """The gate chose ``ids``: move the bias of each expert ``[experts]`` by how wrong its probability was."""
    for expert in range(len(adapted)):
        adapted[expert] -= np.int32(probabilities[scores[expert] >> bin_shift])
    for expert in ids:
        adapted[expert] += one
    for expert in range(len(adapted)):
        adapted[expert] = min(limit, max(-limit, adapted[expert]))


@njit()
def score_layer(
    now: I32, hidden_shift: int, hidden_max: int, output: I8, output_bias: I32, score_shift: int,
    adapted: I32, adaptation: int, zero: int, lowest: int, highest: int, scores: I32,
) -> None:  # fmt: skip
    """Scores i32 ``[experts]`` of one target from its sum ``now [hidden]`` and adapted biases ``[experts]``."""
    scores[:] = output_bias
    for i in range(len(now)):
        value = (now[i] + (1 << hidden_shift >> 1)) >> hidden_shift
        if value > 0:
            unit = np.int32(min(value, hidden_max))
            for expert in range(len(scores)):
                scores[expert] += unit * np.int32(output[i, expert])
    half = 1 << score_shift >> 1
    for expert in range(len(scores)):
        value = ((scores[expert] + half) >> score_shift) + zero
        if adaptation:
            value += adapted[expert] >> adaptation
        scores[expert] = min(highest, max(lowest, value))


@njit()
def start_sequence(
    now: I32, later: I32, fresh: I32, decayed: I32, known: NDArray[np.bool_], recent: I64, adapted: I32,
    tokens: I64, keys: I64, bias: I32,
) -> None:  # fmt: skip
    """Forget everything: no routing, no decayed sums, no identities, no adapted biases, no tagged entries."""
    now[:] = bias
    later[:] = 0
    decayed[:] = 0
    fresh[:] = 0
    known[:] = False
    recent[:] = -1
    adapted[:] = 0
    tokens[:] = -1
    keys[:] = -1


@njit()
def add_identities(now: I32, recent: I64, identity: int, identity_rows: NDArray[np.int8], shifts: U8) -> None:
    """The token about to be processed has the row ``identity`` (−1: none); ``recent [identities]`` remembers."""
    remember_token(recent, identity)
    for age in range(len(recent)):
        if recent[age] >= 0:
            add_identity(now, identity_rows[recent[age], age], shifts, age)


@njit()
def score_tokens(
    ids: I16, recorded: NDArray[np.bool_], starts: NDArray[np.bool_], identities: I64, hashes: I64, lookahead: int,
    rows: I8, source_shifts: U8, bias: I32, identity_rows: I8, identity_shifts: U8, hidden_shifts: U8,
    output: I8, output_bias: I32, score_shifts: U8,
    rank_shifts: I64, ages: I64, indices: I64, offsets: I64, decay_shifts: I64, fraction_bits: int,
    tagged: int, by_routing: bool, multiplier: int, lengths: I64, rotation: int,
    adaptations: U8, probabilities: NDArray[np.uint16], bin_shift: int, one: int, adapted_limit: int,
    hidden_max: int, zero: int, lowest: int, highest: int,
    now: I32, later: I32, fresh: I32, decayed: I32, last_ids: I16, known: NDArray[np.bool_], recent: I64,
    adapted: I32, tokens: I64, keys: I64, choices: I16, entries: I64, scores: I32,
) -> None:  # fmt: skip
    """Scores i32 ``[tokens, layers, experts]`` of consecutive tokens: the streaming form's calls, in its order."""
    layers = ids.shape[1]
    for token in range(ids.shape[0]):
        if starts[token]:
            start_sequence(now, later, fresh, decayed, known, recent, adapted, tokens, keys, bias)
        add_identities(now, recent, identities[token], identity_rows, identity_shifts)
        if not by_routing:
            add_tagged(
                hashes[token], 0, now, rows, source_shifts, rank_shifts, ages, indices, tagged, tokens, lengths,
                rotation, keys, choices, entries,
            )  # fmt: skip
        for target in range(lookahead):
            score_layer(
                now[target], hidden_shifts[target], hidden_max, output[target], output_bias[target],
                score_shifts[target], adapted[target], adaptations[target], zero, lowest, highest,
                scores[token, target],
            )  # fmt: skip
        for layer in range(layers):
            if by_routing and layer == 0:
                add_tagged(
                    routing_token(ids[token, 0], recorded[token, 0], multiplier), lookahead, now, rows, source_shifts,
                    rank_shifts, ages, indices, tagged, tokens, lengths, rotation, keys, choices, entries,
                )  # fmt: skip
            observe(
                layer, ids[token, layer], recorded[token, layer], last_ids, known, now, later, fresh,
                rows, source_shifts, rank_shifts, ages, indices, offsets, tagged, choices, entries,
            )  # fmt: skip
            if recorded[token, layer] and adaptations[layer]:
                adapt(
                    adapted[layer], scores[token, layer], ids[token, layer], probabilities[layer], bin_shift, one,
                    adapted_limit,
                )  # fmt: skip
            target = layer + lookahead
            if target < layers:
                score_layer(
                    now[target], hidden_shifts[target], hidden_max, output[target], output_bias[target],
                    score_shifts[target], adapted[target], adaptations[target], zero, lowest, highest,
                    scores[token, target],
                )  # fmt: skip
        end_token(now, later, fresh, decayed, bias, decay_shifts, fraction_bits, entries)
