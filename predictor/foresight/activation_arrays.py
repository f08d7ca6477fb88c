"""Activation-aware values and predictions (`predictor.activation`) of a trace.

What is known at a gate is what the gates before it, and its own, chose. So several tokens of one sequence at once
(verification) are no obstacle, and within a prompt's pass all is as while a model runs.
"""

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from catalog.progress import Progress
from predictor.activation import kernels
from predictor.activation.kernels import Activation
from predictor.activation.profile import ActivationProfile
from predictor.foresight.arrays import Predictions, Values
from predictor.foresight.parts import step_of_token
from predictor.foresight.predicted_rows import empty_predictions, first_target
from predictor.row_network.integers import CERTAIN
from staging.steps import Steps
from traces import RoutingTrace
from traces.mapping import new_array, release
from traces.scattered import gather_groups


def most_of(profile: ActivationProfile) -> int:
    """The largest value: of an expert that every token chose."""
    return int((1 + profile.settings.epsilon) * CERTAIN + 0.5)


def activation_values(
    profile: ActivationProfile,
    trace: RoutingTrace,
    steps: Steps,
    *,
    progress: Progress = lambda done, total: None,
) -> Values:
    """What each expert is worth at its layer's gate, ``CERTAIN`` where every token of a sequence is to choose it.

    A running sequence that takes no part in a step counts with what it has used so far; one that has ended does not.

    Raises:
        ForestageError: for a profile that does not fit the trace, or steps that are not the trace's.
    """
    rows = new_array((len(steps), trace.layers, trace.experts), np.int32)
    nothing = np.empty((0, 0, 0, 0), np.int16), np.empty((0, 0, 0, 0), np.int32)
    _walk(profile, trace, steps, (), rows, nothing, progress)
    return Values(rows=rows, at_step_end=False, most=most_of(profile))


def activation_predictions(
    profile: ActivationProfile,
    trace: RoutingTrace,
    steps: Steps,
    distances: Sequence[int],
    most: int,
    *,
    progress: Progress = lambda done, total: None,
) -> Predictions:
    """The ``most`` first experts of each (timed step, target) by priority; of equals the smaller id.

    Of several tokens of a step the ratio is the chance that any of them chooses an expert, as if independently.

    Raises:
        ForestageError: as `activation_values`, and for distances or ``most`` out of range.
    """
    found = empty_predictions(trace, steps, distances, most)
    rows = np.empty((0, 0, 0), np.int32)
    _walk(profile, trace, steps, distances, rows, (found.experts, found.chances), progress)
    return found


def _walk(
    profile: ActivationProfile,
    trace: RoutingTrace,
    steps: Steps,
    distances: Sequence[int],
    rows: NDArray[np.int32],
    predicted: tuple[NDArray[np.int16], NDArray[np.int32]],
    progress: Progress,
) -> None:
    """Fill ``rows`` and ``predicted``; an empty one is not asked for."""
    profile.check_trace(trace)
    step_of = step_of_token(trace, steps)
    firsts, lasts = trace.sequence_offsets[:-1], trace.sequence_offsets[1:] - 1
    slot_of, slots = _slots(step_of[firsts], step_of[lasts])
    activation = Activation(profile.collection, profile.running(slots))
    sequence = trace.sequence_index()
    asked = np.array(distances, np.int64)
    nearest = np.array([first_target(distances, index) for index in range(len(distances))], np.int64)
    for part in gather_groups(trace, steps.tokens, steps.offsets):
        tokens = steps.tokens[steps.offsets[part.first] : steps.offsets[part.last]]
        span = slice(part.first, part.last)
        _fill(
            activation, part.ids.astype(np.int16), part.ids[:, :, 0] != trace.unrecorded_id, part.offsets,
            slot_of[sequence[tokens]], tokens == firsts[sequence[tokens]], tokens == lasts[sequence[tokens]],
            steps.timed[span], asked, nearest, rows[span], predicted[0][span], predicted[1][span],
        )  # fmt: skip
        for array in (rows, *predicted):
            release(array)
        progress(part.last, len(steps))


def _slots(firsts: NDArray[np.int64], lasts: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """A slot for each sequence from its first to its last step, and how many slots there are."""
    slot_of = np.zeros(len(firsts), np.int64)
    free: list[int] = []
    busy: list[tuple[int, int]] = []
    slots = 0
    for sequence in np.argsort(firsts, kind="stable").tolist():
        while busy and busy[0][0] < firsts[sequence]:
            heapq.heappush(free, heapq.heappop(busy)[1])
        slot = heapq.heappop(free) if free else slots
        slots = max(slots, slot + 1)
        slot_of[sequence] = slot
        heapq.heappush(busy, (int(lasts[sequence]), slot))
    return slot_of, slots


@njit()
def _fill(
    activation: Activation,
    ids: NDArray[np.int16],
    recorded: NDArray[np.bool_],
    offsets: NDArray[np.int64],
    slot_of: NDArray[np.int64],
    starts: NDArray[np.bool_],
    ends: NDArray[np.bool_],
    timed: NDArray[np.bool_],
    distances: NDArray[np.int64],
    nearest: NDArray[np.int64],
    values: NDArray[np.int32],
    experts: NDArray[np.int16],
    chances: NDArray[np.int32],
) -> None:
    """Some steps; what is said of their tokens is ``[tokens]``, ``nearest`` the first target of each distance."""
    running = activation.running
    layers = running.counts.shape[1]
    chose = np.zeros(len(running.live), np.bool_)
    for step in range(len(timed)):
        tokens = range(offsets[step], offsets[step + 1])
        running.now[:] = 0
        for token in tokens:
            if starts[token]:
                kernels.start(running, slot_of[token])
            running.now[slot_of[token]] += 1
        for index in range(len(distances) if timed[step] else 0):
            for target in range(nearest[index], min(distances[index], layers)):
                kernels.predict(activation, -1, target, experts[step, target, index], chances[step, target, index])
        for layer in range(layers):
            chose[:] = False
            for token in tokens:
                if recorded[token, layer]:
                    kernels.note(activation, slot_of[token], layer, ids[token, layer])
                    chose[slot_of[token]] = True
            for slot in range(len(chose)):
                if chose[slot]:
                    kernels.match(activation, slot, layer)
            if len(values):
                kernels.value(activation, layer, values[step, layer])
            for index in range(len(distances) if timed[step] else 0):
                target = layer + distances[index]
                if target < layers:
                    kernels.predict(
                        activation, layer, target, experts[step, target, index], chances[step, target, index]
                    )
        for token in tokens:
            if ends[token]:
                running.live[slot_of[token]] = False
