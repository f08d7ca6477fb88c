"""Issue sets, which policies consume: the experts that a predictor would fetch for every (token, layer)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from predictor.base import Predictor, id_chunks
from predictor.measure.ranking import check_limit, rank_chunk
from traces import RoutingTrace


@dataclass(frozen=True)
class IssueSets:
    """The experts issued for every (token, layer), and what they were issued under.

    Attributes:
        experts: i16 ``[tokens, layers, limit]``, best first, padded with −1.
        lookahead: layers between the gate that was known and the target layer; ``None``: any, as an oracle's.
    """

    experts: NDArray[np.int16]
    lookahead: int | None

    @property
    def limit(self) -> int:
        """The most experts of a set."""
        return self.experts.shape[2]

    def first_tokens(self, tokens: int) -> "IssueSets":
        """Those of the first ``tokens`` tokens."""
        return IssueSets(self.experts[:tokens], self.lookahead)

    def check_use(self, *, lookahead: int, limit: int, origin: str) -> None:
        """Raise ForestageError where they are used ``lookahead`` layers ahead, or up to ``limit``, and cannot be."""
        if self.lookahead not in (None, lookahead):
            raise ForestageError(
                f"{origin}: lookahead: the issue sets were made for {self.lookahead}, they are used at {lookahead}; "
                f"make them for {lookahead}"
            )
        if limit > self.limit:
            raise ForestageError(
                f"{origin}: issue_limit: {limit} asked for, the issue sets hold at most {self.limit}; "
                f"make them with a limit of {limit}"
            )


def issue_sets(predictor: Predictor, trace: RoutingTrace, limit: int) -> IssueSets:
    """The best ``limit`` experts whose score reaches the threshold, with the predictor's lookahead.

    Layers below the lookahead hold what the predictor issues from previous tokens alone (see its documentation); a
    policy that may not issue so early ignores them.

    Raises:
        ForestageError: if ``limit`` is not in 1…experts, or the trace's shape is not the predictor's.
    """
    check_limit(limit, predictor.experts)
    issued = np.empty((trace.tokens, trace.layers, limit), np.int16)
    for first, scores in predictor.score_chunks(trace):
        qualified = np.empty(scores.shape[:2], np.int32)
        rank_chunk(scores, predictor.issue_threshold, issued[first : first + len(scores)], qualified)
    return IssueSets(issued, predictor.lookahead)


def perfect_issue_sets(trace: RoutingTrace, limit: int | None = None) -> IssueSets:
    """The oracle's issue sets: exactly the experts that each (token, layer) will choose, in rank order.

    ``limit`` is the trace's top-k unless given; a smaller one keeps the first ranks. Rows that were not recorded are
    all −1. It holds for any lookahead.

    Raises:
        ForestageError: if ``limit`` is not in 1…experts.
    """
    limit = trace.top_k if limit is None else limit
    check_limit(limit, trace.experts)
    kept = min(limit, trace.top_k)
    issued = np.full((trace.tokens, trace.layers, limit), -1, np.int16)
    for first, ids, recorded, _ in id_chunks(trace):
        issued[first : first + len(ids), :, :kept] = np.where(recorded[:, :, None], ids[:, :, :kept], -1)
    return IssueSets(issued, None)
