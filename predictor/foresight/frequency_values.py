"""The decayed use counters of `staging.frequency` as values: what hardware without a predictor would know."""

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from catalog.progress import Progress
from predictor.foresight.arrays import Values
from predictor.foresight.parts import step_parts
from staging.frequency import COUNTER_BITS, DEFAULT_SHIFT, count_event, increment
from staging.steps import StepExperts
from traces import RoutingTrace
from traces.mapping import new_array, release


def decayed_frequency(
    trace: RoutingTrace,
    needed: StepExperts,
    shift: int = DEFAULT_SHIFT,
    *,
    progress: Progress = lambda done, total: None,
) -> Values:
    """The counters after each (step, layer), whose distinct experts are one event.

    They are at their place at the gate also where a step holds several tokens of one sequence: an event needs what the
    gate chose, no more.

    Raises:
        SettingError: for a shift outside the counters' range.
    """
    step = increment(shift)
    steps = (len(needed.offsets) - 1) // trace.layers
    rows = new_array((steps, trace.layers, trace.experts), np.int32)
    counters = np.zeros((trace.layers, trace.experts), np.int32)
    for first, last in step_parts(steps, trace.layers * trace.experts):
        _fill(needed.experts, needed.offsets, shift, step, first, counters, rows[first:last])
        release(rows)
        progress(last, steps)
    return Values(rows=rows, at_step_end=False, most=(1 << COUNTER_BITS) - 1)


@njit()
def _fill(
    experts: NDArray[np.int32],
    offsets: NDArray[np.int64],
    shift: int,
    step: int,
    first: int,
    counters: NDArray[np.int32],
    rows: NDArray[np.int32],
) -> None:
    layers = rows.shape[1]
    for row in range(rows.shape[0]):
        for layer in range(layers):
            counter = counters[layer]
            event = (first + row) * layers + layer
            if offsets[event] < offsets[event + 1]:
                count_event(counter, experts[offsets[event] : offsets[event + 1]], 0, shift, step)
            rows[row, layer] = counter
