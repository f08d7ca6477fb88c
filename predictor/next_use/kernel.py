"""The batch form, compiled: ``predictor.next_use.tables`` over a run of tokens.

What is compiled here calls nothing compiled elsewhere: numba's cache on disk does not notice a change in another file.
"""

import numpy as np
from numpy.typing import NDArray

from predictor.next_use.tables import FRACTION_BITS
from traces.compiled import njit

Ints = NDArray[np.int32]


@njit()
def score_tokens(
    ids: Ints,
    recorded: NDArray[np.bool_],
    starts: NDArray[np.bool_],
    positions: NDArray[np.int64],
    matches: NDArray[np.int64],
    lookahead: int,
    offset: Ints,
    previous: NDArray[np.bool_],
    group: Ints,
    shifts: Ints,
    first: Ints,
    last: Ints,
    rows: NDArray[np.int8],
    bias: Ints,
    gain: NDArray[np.int8],
    activation_shift: NDArray[np.int8],
    output: NDArray[np.int8],
    output_bias: Ints,
    output_shift: NDArray[np.int8],
    before: Ints,
    history: Ints,
    log: Ints,
    scores: NDArray[np.int8],
) -> None:
    """Fill ``scores`` i8 ``[tokens, layers, horizons · experts]``.

    ``positions`` and ``matches`` i64 ``[tokens]``: of ``matches.find_matches``. ``before`` i32 ``[layers, top_k]`` (the
    routing last recorded before the token, −1: none), ``history`` i32 ``[layers, groups, hidden]`` and the ring ``log``
    i32 ``[log_tokens, layers, top_k]`` (−1: not recorded) carry on from call to call. Targets below ``lookahead`` are
    left alone.
    """
    tokens, layers, top_k = ids.shape
    hidden = bias.shape[1]
    z = np.empty(hidden, np.int32)
    active = np.empty(hidden, np.int32)
    for token in range(tokens):
        if starts[token]:
            before[:] = -1
            history[:] = 0
        for target in range(lookahead, layers):
            z[:] = bias[target]
            past = history[target]
            for g in range(len(shifts)):
                for h in range(hidden):
                    past[g, h] -= past[g, h] >> shifts[g]
            for source in range(len(offset)):
                layer = target + offset[source]
                if layer < 0 or layer >= layers:
                    continue
                if last[source] >= 0:
                    if matches[token] < 0:
                        continue
                    # This token has the place of the one ``len(log)`` before it.
                    oldest = max(matches[token] + first[source], positions[token] - len(log) + 1)
                    for place in range(oldest, min(matches[token] + last[source] + 1, positions[token])):
                        chosen = log[place & (len(log) - 1), target]
                        if chosen[0] < 0:
                            continue
                        for i in range(top_k):
                            row = rows[target, source, chosen[i]]
                            for h in range(hidden):
                                z[h] += row[h]
                    continue
                now = layer <= target - lookahead and not previous[source]
                if now and not recorded[token, layer]:
                    continue
                if not now and before[layer, 0] < 0:
                    continue
                for i in range(top_k):
                    row = rows[target, source, ids[token, layer, i] if now else before[layer, i]]
                    if group[source] < 0:
                        for h in range(hidden):
                            z[h] += row[h]
                    else:
                        sums = past[group[source]]
                        for h in range(hidden):
                            sums[h] += np.int32(row[h]) << FRACTION_BITS
            for g in range(len(shifts)):
                drop = FRACTION_BITS + shifts[g] - gain[target, g]
                for h in range(hidden):
                    z[h] += past[g, h] >> drop
            for h in range(hidden):
                active[h] = min(255, max(0, z[h]) >> activation_shift[target])
            for k in range(output.shape[1]):
                total = output_bias[target, k]
                column = output[target, k]
                for h in range(hidden):
                    total += active[h] * column[h]
                scores[token, target, k] = min(127, max(-128, total >> output_shift[target]))
        for layer in range(layers):
            if recorded[token, layer]:
                before[layer] = ids[token, layer]
        if len(log):
            record = log[positions[token] & (len(log) - 1)]
            for layer in range(layers):
                for i in range(top_k):
                    record[layer, i] = ids[token, layer, i] if recorded[token, layer] else -1
