"""What a comparison of policies is made on: tuning tokens of the training sequences, and the test sequences."""

from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from catalog.progress import Progress
from predictor import registry
from predictor.activation.profile import ActivationProfile
from predictor.policies.material import has_decode
from predictor.policies.parts import Part, Predictors, part_of
from predictor.policies.policy import Eviction, Policy, Prefetch
from staging.static import uses_of
from staging.steps import Steps, batch_steps, decode_steps, step_experts, verification_steps
from traces import RoutingTrace, split
from traces.batch import BatchConfig, make_schedule
from traces.selection import select_sequences

TUNING_TOKENS = 4096
"""Training tokens, about, on which a policy's free settings are chosen."""

LEAST_TUNING_STEPS = 64
"""Steps of a batch to choose them on, at least, about."""


@dataclass(frozen=True, eq=False)
class Training:
    """What the training sequences give to every part of a trace.

    Attributes:
        recorded: the whole trace.
        predictors: trained or profiled on its training sequences.
        uses: i64 ``[layers, experts]``, of each expert in them.
        prompts_decoded: whether prompts are simulated as if they were decoded, as the trace has no other tokens.
    """

    recorded: RoutingTrace
    predictors: Predictors
    uses: NDArray[np.int64]
    prompts_decoded: bool


def steps_of(trace: RoutingTrace, *, batch: int = 1, drafted: int = 1, prompts_decoded: bool = False) -> Steps:
    """The steps of ``trace``: ``batch`` sequences at once, or ``drafted`` tokens of one sequence verified together.

    Raises:
        ForestageError: for both, or a batch of a trace without decode tokens.
    """
    check_kind(batch, drafted, prompts_decoded=prompts_decoded)
    if batch > 1:
        return batch_steps(trace, make_schedule(trace, BatchConfig(slots=batch)))
    if drafted > 1:
        return verification_steps(trace, drafted, prompts_decoded=prompts_decoded)
    return decode_steps(trace, prompts_decoded=prompts_decoded)


def check_kind(batch: int, drafted: int, *, prompts_decoded: bool) -> None:
    """Refuse kinds of steps that contradict each other or the trace.

    Raises:
        ForestageError: for both a batch and drafts, or a batch of a trace without decode tokens.
    """
    if batch > 1 and drafted > 1:
        raise ForestageError("--batch and --drafted: drafts are verified one sequence at a time; give one of the two")
    if batch > 1 and prompts_decoded:
        raise ForestageError("--batch: the trace has prompts alone, which a batch does not decode; leave it out")


def training_of(
    recorded: RoutingTrace, predictors: Predictors, *, tables_ahead: int | None = 1, activation: bool = True
) -> Training:
    """What the training sequences of ``recorded`` give.

    Args:
        recorded: the whole trace.
        predictors: trained on its training sequences.
        tables_ahead: layers that ST-MoE's tables look ahead, which are profiled here unless ``predictors`` has them or
            the trace has one layer; ``None``: without tables.
        activation: also fit the activation-aware policy's profile, unless ``predictors`` has it.
    """
    train, _ = split(recorded)
    training = select_sequences(recorded, train)
    prompts_decoded = not has_decode(recorded)
    whole = decode_steps(training, prompts_decoded=prompts_decoded)
    uses = uses_of(whole, step_experts(training, whole), recorded.layers, recorded.experts)
    if tables_ahead is not None and predictors.st_moe is None and recorded.layers > 1:
        predictors = replace(predictors, st_moe=registry.fit("st-moe", training, lookahead=tables_ahead))
    if activation and predictors.activation is None:
        predictors = replace(predictors, activation=ActivationProfile.fit(training))
    return Training(recorded, predictors, uses, prompts_decoded)


def system_parts(
    training: Training,
    *,
    batch: int = 1,
    drafted: int = 1,
    tokens: int | None = None,
    tuning_tokens: int = TUNING_TOKENS,
    oracles: bool = True,
    progress: Progress | None = None,
) -> tuple[Part, Part]:
    """Tuning part and test part.

    Args:
        training: of the trace.
        batch, drafted: see `steps_of`.
        tokens: of the first test sequences, about; ``None``: all.
        tuning_tokens: of the last training sequences, about; more if a batch needs them.
        oracles: also what only an oracle knows.
        progress: called with (parts done, parts).

    Raises:
        ForestageError: where trace, steps and predictors do not fit each other.
    """
    chosen = chosen_sequences(training.recorded, batch=batch, tokens=tokens, tuning_tokens=tuning_tokens)
    found = []
    for number, indices in enumerate(chosen):
        part = select_sequences(training.recorded, indices)
        steps = steps_of(part, batch=batch, drafted=drafted, prompts_decoded=training.prompts_decoded)
        found.append(part_of(part, steps, training.predictors, oracles=oracles))
        if progress is not None:
            progress(number + 1, len(chosen))
    return found[0], found[1]


def one_policys_part(
    recorded: RoutingTrace,
    policy: Policy,
    predictors: Predictors,
    *,
    batch: int = 1,
    drafted: int = 1,
    tokens: int | None = None,
    progress: Progress | None = None,
) -> tuple[Part, NDArray[np.int64]]:
    """The test part with what ``policy`` needs to know ahead, and the uses in training (see `Training`).

    Arguments as `system_parts`; ST-MoE's tables predict the one of ``predictors.distances``.

    Raises:
        ForestageError: as `system_parts`.
    """
    check_kind(batch, drafted, prompts_decoded=not has_decode(recorded))
    ahead = None
    if policy.prefetch is Prefetch.ST_MOE:
        (ahead,) = predictors.distances
    activation = policy.eviction is Eviction.ACTIVATION or policy.prefetch is Prefetch.ACTIVATION
    training = training_of(recorded, predictors, tables_ahead=ahead, activation=activation)
    _, chosen = chosen_sequences(recorded, batch=batch, tokens=tokens)
    part = select_sequences(recorded, chosen)
    steps = steps_of(part, batch=batch, drafted=drafted, prompts_decoded=training.prompts_decoded)
    return part_of(part, steps, training.predictors, only=policy, progress=progress), training.uses


def chosen_sequences(
    trace: RoutingTrace, *, batch: int = 1, tokens: int | None = None, tuning_tokens: int = TUNING_TOKENS
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(sequences to tune on, of the training part; sequences to test on); arguments as `system_parts`."""
    train, test = split(trace)
    least = LEAST_TUNING_STEPS * batch if batch > 1 else 1
    return (
        first_sequences(trace, train[::-1], max(tuning_tokens, least), least=batch),
        first_sequences(trace, test, tokens, least=batch),
    )


def first_sequences(
    trace: RoutingTrace, indices: NDArray[np.int64], tokens: int | None, *, least: int
) -> NDArray[np.int64]:
    """The first of ``indices``, ``least`` or more, that have ``tokens`` tokens or more together; all for ``None``."""
    if tokens is None:
        return indices
    sizes = np.diff(trace.sequence_offsets)[indices].tolist()
    needed = next((n for n, sum_ in enumerate(accumulate(sizes), 1) if sum_ >= tokens), len(sizes))
    return np.sort(indices[: max(needed, least)])
