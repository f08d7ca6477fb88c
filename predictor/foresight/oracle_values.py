"""Values of those who know the future: bounds for what learned values can gain.

* `oracle_uses` is the right one where moving has a price: each use that an expert will serve while it is held saves the
  same time, so what counts is how many there are until the horizon, not when the first one is.
* `oracle_next_use` answers a next-use predictor's own questions without error, in the same unit.
* `belady_values` orders by the next use, which is all that matters where moving has no price and every miss the same.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from catalog.errors import SettingError
from catalog.progress import Progress
from predictor.foresight.arrays import Values
from predictor.foresight.parts import step_parts
from predictor.row_network.integers import CERTAIN
from staging.oracle import MAX_HORIZON
from staging.steps import StepExperts, Steps
from traces import RoutingTrace
from traces.mapping import new_array, release

_MOST_EVENTS = np.iinfo(np.int32).max
_NEVER = 1 << 62


def oracle_uses(
    trace: RoutingTrace,
    steps: Steps,
    needed: StepExperts,
    horizon: int,
    *,
    progress: Progress = lambda done, total: None,
) -> Values:
    """How many of the next ``horizon`` timed steps need each expert, ``CERTAIN`` a use.

    Steps that are not timed cost nothing, so that a use in one saves nothing.

    Raises:
        SettingError: for a horizon outside 1 … ``MAX_HORIZON``.
    """
    _check_horizon(horizon)
    rows = new_array((len(steps), trace.layers, trace.experts), np.int32)
    timed = np.flatnonzero(steps.timed)
    counts = np.zeros((trace.layers, trace.experts), np.int32)
    for index in range(min(horizon, len(timed))):
        _count(needed.experts, needed.offsets, timed[index], 1, counts)
    passed = 0
    for first, last in step_parts(len(steps), trace.layers * trace.experts):
        passed = _fill_uses(needed.experts, needed.offsets, timed, horizon, first, passed, counts, rows[first:last])
        release(rows)
        progress(last, len(steps))
    return Values(rows=rows, at_step_end=False, most=CERTAIN * horizon)


def oracle_next_use(
    trace: RoutingTrace,
    steps: Steps,
    needed: StepExperts,
    horizons: Sequence[int],
    *,
    progress: Progress = lambda done, total: None,
) -> Values:
    """Within how many of ``horizons`` (of timed steps) each expert is needed again, ``CERTAIN`` each.

    Raises:
        SettingError: for a horizon outside 1 … ``MAX_HORIZON``, or none.
    """
    if not horizons:
        raise SettingError("horizons", "give one or more")
    for horizon in horizons:
        _check_horizon(horizon)
    rows = new_array((len(steps), trace.layers, trace.experts), np.int32)
    asked = np.array(horizons, np.int64)
    passed = np.cumsum(steps.timed)
    upcoming = np.full((trace.layers, trace.experts), _NEVER, np.int64)
    done = 0
    for first, last in reversed(list(step_parts(len(steps), trace.layers * trace.experts))):
        _fill_next(
            needed.experts, needed.offsets, steps.timed, passed, asked, first, upcoming, rows[first:last]
        )  # fmt: skip
        release(rows)
        done += last - first
        progress(done, len(steps))
    return Values(rows=rows, at_step_end=False, most=CERTAIN * len(asked))


def belady_values(
    trace: RoutingTrace, steps: Steps, needed: StepExperts, *, progress: Progress = lambda done, total: None
) -> Values:
    """Events from each expert's next use to the end, whatever the step: the nearer the larger, 0 for none.

    An event is a (step, layer), so the values of all layers are comparable, and those told earlier stay true.

    Raises:
        ValueError: for 2^31 events or more.
    """
    events = len(steps) * trace.layers
    if events > _MOST_EVENTS:
        raise ValueError(f"{events} events: Belady's values have 32 bits; run fewer")
    rows = new_array((len(steps), trace.layers, trace.experts), np.int32)
    worth = np.zeros((trace.layers, trace.experts), np.int32)
    done = 0
    for first, last in reversed(list(step_parts(len(steps), trace.layers * trace.experts))):
        _fill_belady(needed.experts, needed.offsets, events, first, worth, rows[first:last])
        release(rows)
        done += last - first
        progress(done, len(steps))
    return Values(rows=rows, at_step_end=False, most=events)


def _check_horizon(horizon: int) -> None:
    if not 1 <= horizon <= MAX_HORIZON:
        raise SettingError("horizon", f"choose 1 to {MAX_HORIZON} steps", value=horizon)


@njit()
def _count(
    experts: NDArray[np.int32], offsets: NDArray[np.int64], step: int, sign: int, counts: NDArray[np.int32]
) -> None:
    """Add ``sign`` to the counts of the experts that ``step`` needs."""
    layers = counts.shape[0]
    for layer in range(layers):
        event = step * layers + layer
        for use in range(offsets[event], offsets[event + 1]):
            counts[layer, experts[use]] += sign


@njit()
def _fill_uses(
    experts: NDArray[np.int32],
    offsets: NDArray[np.int64],
    timed: NDArray[np.int64],
    horizon: int,
    first: int,
    passed: int,
    counts: NDArray[np.int32],
    rows: NDArray[np.int32],
) -> int:
    """``counts`` holds the timed steps from number ``passed`` on; returns how many have passed after the last row."""
    for step in range(rows.shape[0]):
        if passed < len(timed) and timed[passed] == first + step:
            _count(experts, offsets, timed[passed], -1, counts)
            if passed + horizon < len(timed):
                _count(experts, offsets, timed[passed + horizon], 1, counts)
            passed += 1
        for layer in range(rows.shape[1]):
            for expert in range(rows.shape[2]):
                rows[step, layer, expert] = counts[layer, expert] * np.int32(CERTAIN)
    return passed


@njit()
def _fill_next(
    experts: NDArray[np.int32],
    offsets: NDArray[np.int64],
    timed: NDArray[np.bool_],
    passed: NDArray[np.int64],
    horizons: NDArray[np.int64],
    first: int,
    upcoming: NDArray[np.int64],
    rows: NDArray[np.int32],
) -> None:
    """``passed [steps]`` timed steps up to and with each; ``upcoming`` the number of the next that needs an expert."""
    layers = rows.shape[1]
    for step in range(first + rows.shape[0] - 1, first - 1, -1):
        for layer in range(layers):
            for expert in range(rows.shape[2]):
                distance = upcoming[layer, expert] - passed[step] + 1
                within = 0
                for horizon in horizons:
                    within += distance <= horizon
                rows[step - first, layer, expert] = within * CERTAIN
            if timed[step]:
                event = step * layers + layer
                for use in range(offsets[event], offsets[event + 1]):
                    upcoming[layer, experts[use]] = passed[step] - 1


@njit()
def _fill_belady(
    experts: NDArray[np.int32],
    offsets: NDArray[np.int64],
    events: int,
    first: int,
    worth: NDArray[np.int32],
    rows: NDArray[np.int32],
) -> None:
    layers = rows.shape[1]
    for step in range(first + rows.shape[0] - 1, first - 1, -1):
        rows[step - first] = worth
        for layer in range(layers):
            event = step * layers + layer
            for use in range(offsets[event], offsets[event + 1]):
                worth[layer, experts[use]] = events - event
