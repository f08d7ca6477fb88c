"""What a comparison of policies is made on: tuning tokens of the training sequences, and the test sequences."""

from dataclasses import replace
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from catalog.progress import Progress
from perfmodel.parts import Part, Predictors, part_of
from perfmodel.policy import Policy, Prefetch
from predictor import registry
from staging.static import uses_of
from staging.steps import Steps, batch_steps, decode_steps, step_experts, verification_steps
from traces import DECODE, RoutingTrace, split
from traces.batch import BatchConfig, make_schedule
from traces.selection import select_sequences

TUNING_TOKENS = 4096
"""Tokens, about, on which a policy's free settings are chosen."""


def has_decode(trace: RoutingTrace) -> bool:
    """Whether a token of it is decoded; otherwise its prompts are simulated as if they were."""
    return bool((np.asarray(trace.phase) == DECODE).any())


def steps_of(trace: RoutingTrace, *, batch: int = 1, drafted: int = 1, prompts_decoded: bool = False) -> Steps:
    """The steps of ``trace``: ``batch`` sequences at once, or ``drafted`` tokens of one sequence verified together.

    Raises:
        ForestageError: for both, or a batch of a trace without decode tokens.
    """
    _check_kind(batch, drafted, prompts_decoded)
    if batch > 1:
        return batch_steps(trace, make_schedule(trace, BatchConfig(slots=batch)))
    if drafted > 1:
        return verification_steps(trace, drafted, prompts_decoded=prompts_decoded)
    return decode_steps(trace, prompts_decoded=prompts_decoded)


def _check_kind(batch: int, drafted: int, prompts_decoded: bool) -> None:
    if batch > 1 and drafted > 1:
        raise ForestageError("--batch and --drafted: drafts are verified one sequence at a time; give one of the two")
    if batch > 1 and prompts_decoded:
        raise ForestageError("--batch: the trace has prompts alone, which a batch does not decode; leave it out")


def system_parts(
    recorded: RoutingTrace,
    predictors: Predictors,
    *,
    batch: int = 1,
    drafted: int = 1,
    tokens: int | None = None,
    bounds: bool = True,
    progress: Progress | None = None,
) -> tuple[Part, Part, NDArray[np.int64]]:
    """Tuning part, test part, and the uses of each expert in the training sequences i64 ``[layers, experts]``.

    Args:
        recorded: the whole trace.
        predictors: trained on its training sequences; ST-MoE's tables are profiled here.
        batch, drafted: see `steps_of`.
        tokens: of the first test sequences, about, and no more to tune on; ``None``: all.
        bounds: also what only an oracle knows.
        progress: called with (parts done, parts).

    Raises:
        ForestageError: where trace, steps and predictors do not fit each other.
    """
    prompts_decoded = not has_decode(recorded)
    _check_kind(batch, drafted, prompts_decoded)
    training, uses = _training(recorded, prompts_decoded=prompts_decoded)
    if predictors.st_moe is None and recorded.layers > 1:
        predictors = replace(predictors, st_moe=registry.fit("st-moe", training, lookahead=1))
    chosen = chosen_sequences(recorded, batch=batch, tokens=tokens)
    found = []
    for number, indices in enumerate(chosen):
        part = select_sequences(recorded, indices)
        steps = steps_of(part, batch=batch, drafted=drafted, prompts_decoded=prompts_decoded)
        found.append(part_of(part, steps, predictors, bounds=bounds))
        if progress is not None:
            progress(number + 1, len(chosen))
    return found[0], found[1], uses


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
    """The test part with what ``policy`` needs to know ahead, and the uses in training, as `system_parts`.

    ST-MoE's tables predict the one of ``predictors.distances``.

    Raises:
        ForestageError: as `system_parts`.
    """
    prompts_decoded = not has_decode(recorded)
    _check_kind(batch, drafted, prompts_decoded)
    training, uses = _training(recorded, prompts_decoded=prompts_decoded)
    if policy.prefetch is Prefetch.ST_MOE:
        (distance,) = predictors.distances
        predictors = replace(predictors, st_moe=registry.fit("st-moe", training, lookahead=distance))
    _, chosen = chosen_sequences(recorded, batch=batch, tokens=tokens)
    part = select_sequences(recorded, chosen)
    steps = steps_of(part, batch=batch, drafted=drafted, prompts_decoded=prompts_decoded)
    return part_of(part, steps, predictors, only=policy, progress=progress), uses


def _training(recorded: RoutingTrace, *, prompts_decoded: bool) -> tuple[RoutingTrace, NDArray[np.int64]]:
    """The training sequences, and the uses of each expert in them."""
    train, _ = split(recorded)
    training = select_sequences(recorded, train)
    whole = decode_steps(training, prompts_decoded=prompts_decoded)
    return training, uses_of(whole, step_experts(training, whole), recorded.layers, recorded.experts)


def chosen_sequences(
    trace: RoutingTrace, *, batch: int = 1, tokens: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(sequences to tune on, of the training part; sequences to test on); arguments as `system_parts`."""
    train, test = split(trace)
    tuning = TUNING_TOKENS if tokens is None else min(TUNING_TOKENS, tokens)
    return (
        first_sequences(trace, train[::-1], max(tuning, 64 * batch), least=batch),
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
