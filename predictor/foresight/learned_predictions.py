"""A next-layer predictor's calibrated chances as predictions.

Of several tokens in a step the chance that any of them chooses an expert is ``1 − Π(1 − p)``, as if they chose
independently. In integers: from ``c = 0`` on, for each token in the order of the trace,
``c ← C − ⌊((C − c)(C − p) + ⌊C/2⌋) / C⌋`` with ``C = CERTAIN``; of one token that is its ``p`` exactly.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from catalog.progress import Progress
from predictor.foresight.arrays import Predictions
from predictor.foresight.parts import step_of_token, step_parts
from predictor.foresight.predicted_rows import empty_predictions, first_target, rank_steps, refuse_sequential
from predictor.next_layer.predictor import NextLayerPredictor
from predictor.row_network.integers import CERTAIN, CHANCE_SHIFT
from predictor.row_network.kernels import distance_of
from staging.steps import Steps
from traces import RoutingTrace
from traces.mapping import new_array, release


def learned_predictions(
    predictors: Sequence[NextLayerPredictor],
    trace: RoutingTrace,
    steps: Steps,
    most: int,
    *,
    progress: Progress = lambda done, total: None,
) -> Predictions:
    """The ``most`` likeliest experts of each (step, target), by chance; of equals the smaller id.

    Args:
        predictors: of one lookahead each, ascending: the distances; of an any-distance one, ``predictor.at(d)`` each.
        trace: the routing.
        steps: of the trace; those that are not timed are predicted nothing.
        most: experts of a row; an expert of chance 0 is none.
        progress: called with (tokens done, in all).

    Raises:
        ForestageError: for steps of several tokens of one sequence, predictors that do not fit the trace, lookaheads
            that do not ascend, ``most`` out of range, or steps that are not the trace's.
    """
    refuse_sequential(steps)
    distances = [predictor.lookahead for predictor in predictors]
    found = empty_predictions(trace, steps, distances, most)
    for predictor in predictors:
        predictor.check_trace(trace)
    step_of = step_of_token(trace, steps)
    for index, predictor in enumerate(predictors):
        target = first_target(distances, index)
        chances = new_array((len(steps), trace.layers, trace.experts), np.uint16)
        network = predictor.network
        for first, scores in predictor.score_chunks(trace):
            last = first + len(scores)
            _merge(
                scores, network.tables.chances, predictor.lookahead, network.config.nearest, step_of[first:last],
                steps.timed, target, chances,
            )  # fmt: skip
            release(chances)
            progress(index * trace.tokens + last, len(predictors) * trace.tokens)
        for first, last in step_parts(len(steps), trace.layers * trace.experts):
            part = slice(first, last)
            rank_steps(
                chances[part],
                steps.timed[part],
                target,
                found.experts[part, :, index],
                found.chances[part, :, index],
                0,
            )
            for array in (chances, found.experts, found.chances):
                release(array)
    return found


@njit()
def _merge(
    scores: NDArray[np.int32],
    tables: NDArray[np.uint16],
    lookahead: int,
    nearest: int,
    step_of: NDArray[np.int64],
    timed: NDArray[np.bool_],
    first_target: int,
    chances: NDArray[np.uint16],
) -> None:
    for token in range(scores.shape[0]):
        step = step_of[token]
        if not timed[step]:
            continue
        for target in range(first_target, scores.shape[1]):
            table = tables[target, distance_of(target, lookahead, nearest), 0]
            for expert in range(scores.shape[2]):
                chance = np.int64(table[scores[token, target, expert] >> CHANCE_SHIFT])
                missed = (CERTAIN - np.int64(chances[step, target, expert])) * (CERTAIN - chance)
                chances[step, target, expert] = CERTAIN - (missed + CERTAIN // 2) // CERTAIN
