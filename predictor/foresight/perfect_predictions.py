"""Predictions of one who knows the future: exactly the experts that each step will need."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from catalog.errors import SettingError
from catalog.progress import Progress
from predictor.foresight.arrays import Predictions
from predictor.foresight.parts import step_parts
from predictor.foresight.predicted_rows import empty_predictions, first_target
from predictor.row_network.integers import CERTAIN
from staging.steps import StepExperts, Steps
from traces import RoutingTrace
from traces.mapping import release


def perfect_predictions(
    trace: RoutingTrace,
    steps: Steps,
    needed: StepExperts,
    distances: Sequence[int],
    *,
    progress: Progress = lambda done, total: None,
) -> Predictions:
    """The experts of each (timed step, target) in the order of first choice, each certain, at each distance.

    Raises:
        SettingError: for distances that do not ascend from 1 on and below the layers, or steps that are not timed.
    """
    widths = np.diff(needed.offsets).reshape(len(steps), trace.layers)[steps.timed]
    if not widths.size:
        raise SettingError("steps", "none is timed; give some that are")
    found = empty_predictions(trace, steps, distances, int(widths.max()))
    targets = np.array([first_target(distances, index) for index in range(len(distances))], np.int64)
    for first, last in step_parts(len(steps), found.experts[0].size):
        _fill(
            needed.experts, needed.offsets, steps.timed, targets, first, found.experts[first:last],
            found.chances[first:last],
        )  # fmt: skip
        release(found.experts)
        release(found.chances)
        progress(last, len(steps))
    return found


@njit()
def _fill(
    needed: NDArray[np.int32],
    offsets: NDArray[np.int64],
    timed: NDArray[np.bool_],
    first_targets: NDArray[np.int64],
    first: int,
    experts: NDArray[np.int16],
    chances: NDArray[np.int32],
) -> None:
    layers = experts.shape[1]
    for step in range(experts.shape[0]):
        if not timed[first + step]:
            continue
        for index in range(len(first_targets)):
            for target in range(first_targets[index], layers):
                begin = offsets[(first + step) * layers + target]
                end = offsets[(first + step) * layers + target + 1]
                for rank in range(end - begin):
                    experts[step, target, index, rank] = needed[begin + rank]
                    chances[step, target, index, rank] = CERTAIN
