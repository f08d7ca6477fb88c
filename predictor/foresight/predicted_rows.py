"""What every builder of predictions shares: which rows there are, what is refused, and the order of a row."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from catalog.errors import ForestageError, SettingError
from predictor.base import MAX_EXPERTS
from predictor.foresight.arrays import Predictions
from predictor.measure.ranking import best_experts
from staging.steps import Steps
from traces import RoutingTrace
from traces.mapping import new_array


def empty_predictions(trace: RoutingTrace, steps: Steps, distances: Sequence[int], most: int) -> Predictions:
    """Predictions of nothing: arrays to fill.

    Raises:
        SettingError: for distances that do not ascend from 1 on and below the layers, or ``most`` outside 1 … experts.
    """
    check_predicted(distances, most, layers=trace.layers, experts=trace.experts)
    shape = (len(steps), trace.layers, len(distances), most)
    experts = new_array(shape, np.int16)
    experts[:] = -1
    return Predictions(distances=tuple(distances), experts=experts, chances=new_array(shape, np.int32))


def check_predicted(distances: Sequence[int], most: int, *, layers: int, experts: int) -> None:
    """Raise unless so much of a model of this shape can be predicted.

    Raises:
        SettingError: for distances that do not ascend from 1 on and below the layers, or ``most`` outside 1 … experts.
    """
    fits = bool(distances) and distances[0] >= 1 and distances[-1] < layers
    if not fits or any(near >= far for near, far in itertools.pairwise(distances)):
        raise SettingError("distances", f"choose ascending ones in 1…{layers - 1}", value=",".join(map(str, distances)))
    if not 1 <= most <= min(experts, MAX_EXPERTS):
        raise SettingError("most", f"choose 1 to {min(experts, MAX_EXPERTS)} experts", value=most)


def refuse_sequential(steps: Steps) -> None:
    """Raise where a predictor would have to know what its own step routes.

    Raises:
        ForestageError: if the tokens of a timed step follow each other in one sequence.
    """
    if steps.sequential:
        raise ForestageError(
            "predictions: the later tokens of a verification are routed before what its earlier ones chose is known; "
            "verify without predictions, or with perfect ones as a bound"
        )


def first_target(distances: Sequence[int], index: int) -> int:
    """The first target that distance ``index`` predicts.

    Before layer 0 no gate is known: a target below the distance is predicted from the beginning of the step on, and
    only by the smallest such distance.
    """
    return distances[index - 1] if index else 0


@njit()
def rank_steps(
    worth: NDArray[np.int32 | np.uint16],
    timed: NDArray[np.bool_],
    first_target: int,
    experts: NDArray[np.int16],
    chances: NDArray[np.int32],
    certain: int,
) -> None:
    """Fill ``experts [steps, layers, most]`` of timed steps from ``worth [steps, layers, experts]``, largest first.

    Of equals the smaller id comes first, and what is worth 0 is left out. The chance of each is ``certain``, or its
    worth where that is 0.
    """
    row = np.empty(worth.shape[2], np.int32)
    best = np.empty(experts.shape[2], np.int16)
    for step in range(worth.shape[0]):
        if not timed[step]:
            continue
        for target in range(first_target, worth.shape[1]):
            for expert in range(len(row)):
                row[expert] = worth[step, target, expert]
            best_experts(row, 1, best)
            for rank in range(len(best)):
                if best[rank] >= 0:
                    experts[step, target, rank] = best[rank]
                    chances[step, target, rank] = certain if certain else row[best[rank]]
