"""The issue sets of a predictor without calibrated chances as predictions: each expert of a set counts as certain.

Of several tokens in a step, an expert's place in the row is by its ranks: the best expert of a token's set of at most
``n`` gives it ``n`` points, the next ``n − 1``, and so on (Borda's count); of one token that is the set's own order.

A predictor's tables adapt from sequence to sequence. Where steps interleave sequences, each sequence is predicted from
the state just after ``fit``: tables that had seen the whole of earlier sequences would know what has not happened yet.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from catalog.progress import Progress
from predictor.base import Predictor, Scores
from predictor.foresight.arrays import Predictions
from predictor.foresight.parts import step_of_token, step_parts
from predictor.foresight.predicted_rows import empty_predictions, first_target, rank_steps, refuse_sequential
from predictor.measure.ranking import check_limit, rank_chunk
from predictor.row_network.integers import CERTAIN
from staging.steps import Steps
from traces import RoutingTrace
from traces.mapping import new_array, release


def issued_predictions(
    predictor: Predictor,
    trace: RoutingTrace,
    steps: Steps,
    issue_limit: int,
    *,
    most: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Predictions:
    """The best experts of each token whose score reaches the threshold, by step; one distance, the lookahead.

    Args:
        predictor: any of the registry.
        trace: the routing.
        steps: of the trace; those that are not timed are predicted nothing.
        issue_limit: the most experts of a token's set.
        most: the most of a step's row; ``None``: ``issue_limit``.
        progress: called with (tokens done, in all).

    Raises:
        ForestageError: for steps of several tokens of one sequence, a predictor that does not fit the trace, limits out
            of range, or steps that are not the trace's.
    """
    refuse_sequential(steps)
    check_limit(issue_limit, trace.experts)
    found = empty_predictions(trace, steps, (predictor.lookahead,), issue_limit if most is None else most)
    predictor.check_trace(trace)
    step_of = step_of_token(trace, steps)
    points = new_array((len(steps), trace.layers, trace.experts), np.int32)
    in_turn = bool((np.diff(step_of) >= 0).all())
    for first, scores in _score_chunks(predictor, trace, in_turn=in_turn):
        last = first + len(scores)
        issued = np.empty((*scores.shape[:2], issue_limit), np.int16)
        rank_chunk(scores, predictor.issue_threshold, issued, np.empty(scores.shape[:2], np.int32))
        _count(issued, step_of[first:last], steps.timed, points)
        release(points)
        progress(last, trace.tokens)
    for first, last in step_parts(len(steps), trace.layers * trace.experts):
        part = slice(first, last)
        target = first_target(found.distances, 0)
        rank_steps(
            points[part], steps.timed[part], target, found.experts[part, :, 0], found.chances[part, :, 0], CERTAIN
        )
        for array in (points, found.experts, found.chances):
            release(array)
    return found


def _score_chunks(predictor: Predictor, trace: RoutingTrace, *, in_turn: bool) -> Iterator[tuple[int, Scores]]:
    """The scores of the trace, ``in_turn`` as one run, else each sequence from the state just after ``fit``."""
    if in_turn:
        yield from predictor.score_chunks(trace)
        return
    for index in range(trace.sequences):
        begin = int(trace.sequence_offsets[index])
        for first, scores in predictor.score_chunks(trace.sequence(index)):
            yield begin + first, scores


@njit()
def _count(
    issued: NDArray[np.int16], step_of: NDArray[np.int64], timed: NDArray[np.bool_], points: NDArray[np.int32]
) -> None:
    limit = issued.shape[2]
    for token in range(issued.shape[0]):
        step = step_of[token]
        if not timed[step]:
            continue
        for target in range(issued.shape[1]):
            for rank in range(limit):
                if issued[token, target, rank] >= 0:
                    points[step, target, issued[token, target, rank]] += limit - rank
