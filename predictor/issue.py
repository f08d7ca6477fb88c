"""Issue sets, which policies consume: the experts that a predictor would fetch for every (token, layer)."""

import numpy as np
from numpy.typing import NDArray

from predictor.base import Predictor, id_chunks
from predictor.measure.ranking import check_limit, rank_chunk
from traces import RoutingTrace

IssueSets = NDArray[np.int16]


def issue_sets(predictor: Predictor, trace: RoutingTrace, limit: int) -> IssueSets:
    """The best ``limit`` experts whose score reaches the threshold: i16 ``[tokens, layers, limit]``.

    Best first, padded with −1. In layers below the lookahead the predictor uses only previous tokens (see its
    documentation); a policy that may not issue so early ignores them.

    Raises:
        ForestageError: if ``limit`` is not in 1…experts, or the trace's shape is not the predictor's.
    """
    check_limit(limit, predictor.experts)
    issued = np.empty((trace.tokens, trace.layers, limit), np.int16)
    for first, scores in predictor.score_chunks(trace):
        qualified = np.empty(scores.shape[:2], np.int32)
        rank_chunk(scores, predictor.issue_threshold, issued[first : first + len(scores)], qualified)
    return issued


def perfect_issue_sets(trace: RoutingTrace, limit: int | None = None) -> IssueSets:
    """The oracle's issue sets: exactly the experts that each (token, layer) will choose, in rank order.

    i16 ``[tokens, layers, limit]``; ``limit`` is the trace's top-k by default, a smaller one keeps the first ranks.
    Unrecorded rows are all −1.

    Raises:
        ForestageError: if ``limit`` is not in 1…experts.
    """
    limit = trace.top_k if limit is None else limit
    check_limit(limit, trace.experts)
    kept = min(limit, trace.top_k)
    issued = np.full((trace.tokens, trace.layers, limit), -1, np.int16)
    for first, ids, recorded, _ in id_chunks(trace):
        issued[first : first + len(ids), :, :kept] = np.where(recorded[:, :, None], ids[:, :, :kept], -1)
    return issued
