"""A test of alignment that needs no metadata: do rows predict a neighbour better than their own target?

No fair predictor predicts the next token's experts of a layer better than this token's, or another layer's experts
better than its target's (experts of two layers share only their numbers). Rows that do were put one token early, or at
a wrong layer: for instance at the layer whose gate was known, not at the target. Rows one token late look like a
predictor that repeats the previous token; this test does not look for them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predictor.base import read_ids
from predictor.measure.metrics import divide
from predictor.measure.ranking import ranks_of_chosen
from predictor.predictions.scorer import PredictionsScorer
from traces import RoutingTrace

MARGIN = 0.05
"""By how much a neighbour's recall must be higher to be reported; chance differences are far smaller."""


def neighbours(lookahead: int) -> dict[str, tuple[int, int]]:
    """Each neighbour's distance in tokens and layers: the next token, and layers one and ``lookahead`` away."""
    found = {"the next token": (1, 0), "the layer above": (0, 1), "the layer below": (0, -1)}
    if lookahead > 1:
        found |= {f"{lookahead} layers above": (0, lookahead), f"{lookahead} layers below": (0, -lookahead)}
    return found


@dataclass(frozen=True)
class Misplaced:
    """Recall at the limit, for the rows' own targets and for the neighbour that they predict best."""

    limit: int
    recall: float
    neighbour: str
    neighbour_recall: float


def find_misplaced(scorer: PredictionsScorer, trace: RoutingTrace) -> Misplaced | None:
    """The neighbour that ``scorer`` predicts better than its own targets on ``trace`` (its part), or ``None``.

    It compares recalls at top-k (or at as many as a row lists) over rows whose own and whose neighbour's layer is not
    below the lookahead.
    """
    limit = trace.top_k if scorer.listed is None else min(trace.top_k, scorer.listed)
    places = {"": (0, 0), **neighbours(scorer.lookahead)}
    hits = dict.fromkeys(places, 0)
    rows = dict.fromkeys(places, 0)
    offsets = np.asarray(trace.sequence_offsets)
    for first, scores in scorer.score_chunks(trace):
        last = first + len(scores)
        ids, recorded = read_ids(trace, first, last)
        goes_on = np.isin(np.arange(first + 1, last), offsets, invert=True)  # the next token is of the same sequence
        for name, (tokens, layers) in places.items():
            theirs, known = _moved(ids, recorded, tokens, layers)
            known = known & recorded
            if tokens:
                known[:-1] &= goes_on[:, None]
            known[:, : scorer.lookahead + max(0, -layers)] = False
            ranks = np.empty(ids.shape, np.int32)
            qualified = np.empty(recorded.shape, np.int32)
            ranks_of_chosen(scores, scorer.issue_threshold, theirs, known, ranks, qualified)
            hits[name] += int((ranks[known] < limit).sum())
            rows[name] += int(known.sum()) * trace.top_k
    found = dict(zip(places, divide(np.array([*hits.values()]), np.array([*rows.values()])).tolist(), strict=True))
    own = found.pop("")
    best = max((name for name in found if not np.isnan(found[name])), key=lambda name: found[name], default=None)
    if best is None or not found[best] > own + MARGIN:
        return None
    return Misplaced(limit, own, best, found[best])


def _moved(
    ids: NDArray[np.int32], recorded: NDArray[np.bool_], tokens: int, layers: int
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """The ids of the rows ``tokens`` (0 or 1) and ``layers`` away, and whether there is such a row."""
    theirs = np.roll(ids, (-tokens, -layers), axis=(0, 1))
    known = np.roll(recorded, (-tokens, -layers), axis=(0, 1))
    if tokens:
        known[-1] = False
    if layers > 0:
        known[:, -layers:] = False
    elif layers:
        known[:, :-layers] = False
    return np.ascontiguousarray(theirs), known
