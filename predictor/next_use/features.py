"""The sources of a target layer as numbers to train on: one column a (source, expert).

A source of the routing itself holds 1 where the expert was chosen; an average over the past holds the share of the
tokens in which it was, decayed as the integers are (``predictor.next_use.tables``), without their rounding; what
followed holds how often it was.
"""

import numpy as np
from numpy.typing import NDArray

from predictor.next_use.sources import SourceArrays
from traces.compiled import njit


def features_of(
    ids: NDArray[np.int32],
    recorded: NDArray[np.bool_],
    starts: NDArray[np.bool_],
    target: int,
    lookahead: int,
    sources: SourceArrays,
    experts: int,
    matches: NDArray[np.int64],
    log_tokens: int,
) -> NDArray[np.float16]:
    """Features f16 ``[tokens, sources · experts]`` of one target layer.

    ``matches`` i64 ``[tokens]``: the row of the token that each one matches, −1: none; the other arguments as
    ``kernel.score_tokens``.
    """
    features = np.zeros((len(ids), len(sources.offset), experts), np.float16)
    layers = ids.shape[1]
    for source, (offset, previous, group) in enumerate(
        zip(sources.offset, sources.previous, sources.group, strict=True)
    ):
        layer = target + int(offset)
        if not 0 <= layer < layers:
            continue
        column = np.zeros((len(ids), experts), np.float32)
        chosen, known = np.ascontiguousarray(ids[:, layer]), np.ascontiguousarray(recorded[:, layer])
        if sources.last[source] >= 0:
            _count(chosen, known, matches, int(sources.first[source]), int(sources.last[source]), log_tokens, column)
            features[:, source] = column
            continue
        now = layer <= target - lookahead and not previous
        decay = 1.0 if group < 0 else 0.5 ** int(sources.shifts[group])
        _fill(chosen, known, starts, now, decay, column)
        features[:, source] = column
    return features.reshape(len(ids), -1)


@njit()
def _fill(
    ids: NDArray[np.int32],
    recorded: NDArray[np.bool_],
    starts: NDArray[np.bool_],
    now: bool,
    decay: float,
    column: NDArray[np.float32],
) -> None:
    """Averages f32 ``[tokens, experts]`` that forget ``decay`` of themselves a token; 1 keeps the newest alone."""
    tokens, top_k = ids.shape
    average = np.zeros(column.shape[1], np.float64)
    newest = np.full(top_k, -1, np.int32)
    for token in range(tokens):
        if starts[token]:
            average[:] = 0
            newest[:] = -1
        average *= 1 - decay
        if now and recorded[token]:
            newest[:] = ids[token]
        if newest[0] >= 0 and (recorded[token] or not now):
            for i in range(top_k):
                average[newest[i]] += decay
        column[token] = average
        if recorded[token]:
            newest[:] = ids[token]


@njit()
def _count(
    ids: NDArray[np.int32],
    recorded: NDArray[np.bool_],
    matches: NDArray[np.int64],
    first: int,
    last: int,
    log_tokens: int,
    column: NDArray[np.float32],
) -> None:
    """Choices f32 ``[tokens, experts]`` of the tokens ``first … last`` after each one's match that the log has."""
    for token in range(len(ids)):
        if matches[token] < 0:
            continue
        oldest = max(matches[token] + first, token - log_tokens + 1)
        for place in range(oldest, min(matches[token] + last + 1, token)):
            if recorded[place]:
                for i in range(ids.shape[1]):
                    column[token, ids[place, i]] += 1
