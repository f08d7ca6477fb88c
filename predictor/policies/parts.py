"""A part of a trace, ready to be simulated: its steps, what they need, and what is known ahead of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from catalog.progress import Progress
from predictor.activation.profile import ActivationProfile
from predictor.base import Predictor
from predictor.foresight.activation_arrays import activation_predictions, activation_values
from predictor.foresight.arrays import Predictions, Values
from predictor.foresight.frequency_values import decayed_frequency
from predictor.foresight.issued_predictions import issued_predictions
from predictor.foresight.learned_predictions import learned_predictions
from predictor.foresight.learned_values import learned_values
from predictor.foresight.oracle_values import belady_values, oracle_next_use, oracle_uses
from predictor.foresight.perfect_predictions import perfect_predictions
from predictor.next_layer.predictor import NextLayerPredictor
from predictor.next_use.predictor import NextUsePredictor
from predictor.policies.policy import Eviction, Policy, Prefetch
from staging.steps import StepExperts, Steps, step_experts
from traces import RoutingTrace

ORACLE_HORIZONS = (2, 4, 8, 16)
"""Steps: those that the next-use predictor is asked for."""

USES_HORIZON = 16
"""Steps in which an oracle counts uses."""


@dataclass(frozen=True, kw_only=True)
class Predictors:
    """What is trained or profiled on the training part; what is ``None`` is left out.

    Attributes:
        next_use: for eviction and background loads.
        next_layer: for prefetch, at ``distances``.
        st_moe: ST-MoE's tables, or another predictor of the registry, for prefetch.
        activation: MoE-Infinity's collection of activation matrices, for eviction, and for prefetch at
            ``activation_distances``.
        distances: layers between a known gate and the target of a learned prefetch, ascending.
        activation_distances: as ``distances``, of an activation-aware prefetch.
        prefetched: experts of a learned or activation-aware prediction, at most.
        issue_limit: experts of ST-MoE's issue sets, at most.
    """

    next_use: NextUsePredictor | None = None
    next_layer: NextLayerPredictor | None = None
    st_moe: Predictor | None = None
    activation: ActivationProfile | None = None
    distances: tuple[int, ...] = (1,)
    activation_distances: tuple[int, ...] = (1, 2, 3, 4)
    prefetched: int = 8
    issue_limit: int = 6


@dataclass(frozen=True, eq=False, kw_only=True)
class Part:
    """See the module's description.

    Attributes:
        trace, steps, needed: the routing, and what each step needs.
        sequence_of_step: i64 ``[steps]``, of the step's first token.
        values, predictions: what is known ahead, by kind.
    """

    trace: RoutingTrace
    steps: Steps
    needed: StepExperts
    sequence_of_step: NDArray[np.int64]
    values: dict[Eviction, Values]
    predictions: dict[Prefetch, Predictions]

    @property
    def most_needed(self) -> int:
        """Experts that a layer needs at once, at most."""
        return int(np.diff(self.needed.offsets).max())

    @property
    def most_tokens(self) -> int:
        """Tokens of one step that choose one expert, at most."""
        return int(self.needed.tokens_of.max())

    @property
    def timed_tokens(self) -> int:
        """Tokens of all timed steps."""
        return int(np.diff(self.steps.offsets)[self.steps.timed].sum())

    @property
    def mixes_sequences(self) -> bool:
        """Whether some step has tokens of several sequences, so that its time is no one sequence's."""
        sequence = np.searchsorted(self.trace.sequence_offsets, self.steps.tokens, side="right")
        return bool((sequence != np.repeat(self.sequence_of_step + 1, np.diff(self.steps.offsets))).any())

    @property
    def largest_step(self) -> int:
        """Tokens of the largest timed step."""
        return int(np.diff(self.steps.offsets)[self.steps.timed].max())


def part_of(
    trace: RoutingTrace,
    steps: Steps,
    predictors: Predictors,
    *,
    oracles: bool = True,
    only: Policy | None = None,
    progress: Progress | None = None,
) -> Part:
    """What is known ahead of ``steps`` of ``trace``.

    Args:
        trace, steps: which.
        predictors: what is asked.
        oracles: also what only an oracle knows.
        only: no more than this policy needs (of what is there: `policy.plan_of` refuses a policy without it).
        progress: called with (kinds done, kinds).

    Raises:
        ForestageError: where a predictor does not fit the trace.
    """
    needed = step_experts(trace, steps)
    values_of = _makers_of_values(trace, steps, needed, predictors, oracles=oracles)
    predictions_of = _makers_of_predictions(trace, steps, needed, predictors, oracles=oracles)
    if only is not None:
        values_of = {kind: make for kind, make in values_of.items() if kind is only.eviction}
        predictions_of = {kind: make for kind, make in predictions_of.items() if kind is only.prefetch}
    kinds = len(values_of) + len(predictions_of)
    values: dict[Eviction, Values] = {}
    predictions: dict[Prefetch, Predictions] = {}
    for eviction, make_values in values_of.items():
        values[eviction] = make_values()
        if progress is not None:
            progress(len(values), kinds)
    for prefetch, make_predictions in predictions_of.items():
        predictions[prefetch] = make_predictions()
        if progress is not None:
            progress(len(values) + len(predictions), kinds)
    firsts = steps.tokens[steps.offsets[:-1]]
    sequence_of = np.searchsorted(trace.sequence_offsets, firsts, side="right") - 1
    return Part(
        trace=trace, steps=steps, needed=needed, sequence_of_step=sequence_of, values=values, predictions=predictions
    )


def _makers_of_values(
    trace: RoutingTrace, steps: Steps, needed: StepExperts, predictors: Predictors, *, oracles: bool
) -> dict[Eviction, Callable[[], Values]]:
    found: dict[Eviction, Callable[[], Values]] = {Eviction.FREQUENCY: lambda: decayed_frequency(trace, needed)}
    next_use, activation = predictors.next_use, predictors.activation
    if activation is not None:
        found[Eviction.ACTIVATION] = lambda: activation_values(activation, trace, steps)
    if next_use is not None:
        found[Eviction.LEARNED] = lambda: learned_values(next_use, trace, steps)
    if oracles:
        found[Eviction.ORACLE] = lambda: oracle_next_use(trace, steps, needed, ORACLE_HORIZONS)
        found[Eviction.USES] = lambda: oracle_uses(trace, steps, needed, USES_HORIZON)
        found[Eviction.BELADY] = lambda: belady_values(trace, steps, needed)
    return found


def _makers_of_predictions(
    trace: RoutingTrace, steps: Steps, needed: StepExperts, predictors: Predictors, *, oracles: bool
) -> dict[Prefetch, Callable[[], Predictions]]:
    found: dict[Prefetch, Callable[[], Predictions]] = {}
    next_layer, st_moe, profile = predictors.next_layer, predictors.st_moe, predictors.activation

    def learned() -> Predictions:
        assert next_layer is not None
        banks = [next_layer.at(distance) for distance in within(predictors.distances, trace.layers)]
        return learned_predictions(banks, trace, steps, predictors.prefetched)

    def issued() -> Predictions:
        assert st_moe is not None
        return issued_predictions(st_moe, trace, steps, min(predictors.issue_limit, trace.experts))

    def activation() -> Predictions:
        assert profile is not None
        distances = within(predictors.activation_distances, trace.layers)
        return activation_predictions(profile, trace, steps, distances, min(predictors.prefetched, trace.experts))

    # Several tokens of one sequence at once: what comes next is not known before the step's own routing.
    if not steps.sequential and next_layer is not None:
        found[Prefetch.LEARNED] = learned
    if not steps.sequential and st_moe is not None:
        found[Prefetch.ST_MOE] = issued
    if profile is not None and trace.layers > 1:
        found[Prefetch.ACTIVATION] = activation
    if oracles and trace.layers > 1:
        found[Prefetch.PERFECT] = lambda: perfect_predictions(
            trace, steps, needed, within(predictors.distances, trace.layers)
        )
    return found


def within(distances: Sequence[int], layers: int) -> tuple[int, ...]:
    """Those of ``distances`` that a model of ``layers`` layers has.

    Raises:
        ForestageError: if it has none.
    """
    found = tuple(distance for distance in distances if distance < layers)
    if not found:
        raise ForestageError(f"distances: {list(distances)}, the trace has {layers} layers; give one below that")
    return found
