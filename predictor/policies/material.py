"""What policies are measured on where time is short: some test and training sequences, and what training gave.

A measurement and the simulation beside it take the same: `material_of` chooses, `part_of_steps` cuts.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from predictor import registry
from predictor.activation.profile import ActivationProfile
from predictor.policies.parts import Predictors
from predictor.st_moe import file as st_moe_file
from predictor.st_moe.predictor import StMoePredictor
from staging.static import uses_of
from staging.steps import Steps, batch_steps, decode_steps, step_experts
from traces import DECODE, RoutingTrace, split
from traces.batch import BatchConfig, make_schedule
from traces.selection import select_sequences

TEST_TOKENS = 6000
TUNING_TOKENS = 4096
LEAST_SEQUENCES = 24
"""Of a slice, so that a batch of 16 has sequences to follow those that end."""

SPLIT_SEED = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class Material:
    """See the module's description.

    Attributes:
        test, tuning: whole sequences, of the test part and of the training part.
        test_sequences, tuning_sequences: which of the recorded trace's they are.
        training_sequences: of the whole training part.
        uses: i64 ``[layers, experts]``, of the whole training part: the device holds the most used at the start.
        predictors: trained, or profiled on the whole training part.
        digests: SHA-256 (hex) by name: ``uses``, ``st-moe``, ``activation``, and of each trained predictor's file
            (``next-use``, ``next-layer``).
    """

    test: RoutingTrace
    tuning: RoutingTrace
    test_sequences: tuple[int, ...]
    tuning_sequences: tuple[int, ...]
    training_sequences: int
    uses: NDArray[np.int64]
    predictors: Predictors
    digests: Mapping[str, str]


def has_decode(trace: RoutingTrace) -> bool:
    """Whether a token of it is decoded."""
    return bool((np.asarray(trace.phase) == DECODE).any())


def material_of(
    recorded: RoutingTrace,
    predictors: Predictors,
    digests: Mapping[str, str],
    *,
    test_tokens: int = TEST_TOKENS,
    tuning_tokens: int = TUNING_TOKENS,
) -> Material:
    """Slices of ``recorded``, and what its training sequences give.

    The sequences of a part are permuted by the split's seed, and the first are taken until there are enough tokens and
    at least `LEAST_SEQUENCES` sequences (or all); within a slice they keep their order.

    Args:
        recorded: the whole trace.
        predictors: trained on its training sequences; ST-MoE's tables (of a trace of several layers) and the
            activation-aware policy's profile are made here unless given.
        digests: of the trained predictors' files, by name.
        test_tokens, tuning_tokens: of the slices, about.

    Raises:
        ForestageError: where the trace has no test sequences.
    """
    train, test = split(recorded, SPLIT_SEED)
    if not len(test):
        raise ForestageError(f"{recorded.origin}: no test sequences: a fifth of a dataset's; give a trace of more")
    training = select_sequences(recorded, train)
    whole = decode_steps(training, prompts_decoded=not has_decode(recorded))
    uses = uses_of(whole, step_experts(training, whole), recorded.layers, recorded.experts)
    if predictors.st_moe is None and recorded.layers > 1:
        predictors = replace(predictors, st_moe=registry.fit("st-moe", training))
    if predictors.activation is None:
        predictors = replace(predictors, activation=ActivationProfile.fit(training))
    chosen = [_slice(recorded, part, tokens) for part, tokens in ((test, test_tokens), (train, tuning_tokens))]
    return Material(
        test=select_sequences(recorded, chosen[0]),
        tuning=select_sequences(recorded, chosen[1]),
        test_sequences=chosen[0],
        tuning_sequences=chosen[1],
        training_sequences=len(train),
        uses=uses,
        predictors=predictors,
        digests={**digests, **digests_of(uses, predictors)},
    )


def digests_of(uses: NDArray[np.int64], predictors: Predictors) -> dict[str, str]:
    """SHA-256 (hex) of what is profiled, by name."""
    shaped = str(uses.shape).encode() + np.ascontiguousarray(uses, "<i8").tobytes()
    found = {"uses": hashlib.sha256(shaped).hexdigest()}
    if isinstance(predictors.st_moe, StMoePredictor):
        found["st-moe"] = st_moe_file.digest(predictors.st_moe)
    if predictors.activation is not None:
        found["activation"] = _activation_digest(predictors.activation)
    return found


def _activation_digest(profile: ActivationProfile) -> str:
    state = hashlib.sha256(f"{profile.top_k} {profile.settings.model_dump_json()} {profile.counts.shape}".encode())
    for array in (profile.counts, profile.tokens):
        state.update(np.ascontiguousarray(array, "<i4").tobytes())
    return state.hexdigest()


def part_of_steps(trace: RoutingTrace, *, batch: int, steps: int) -> tuple[RoutingTrace, Steps]:
    """The first ``steps`` timed steps of ``trace``, ``batch`` sequences at once, and the trace of their tokens alone.

    All sequences wait at the beginning; the next begins where one has ended (`traces.batch`). A trace without decode
    tokens runs as if its prompts were decoded, one sequence at a time.

    Raises:
        ForestageError: if it has fewer steps, or a batch is asked of a trace without decode tokens.
    """
    if steps < 1 or batch < 1:
        raise ValueError(f"steps ({steps}) and batch ({batch}) are at least 1")
    everything = _steps_of(trace, batch)
    timed = np.flatnonzero(everything.timed)
    if len(timed) < steps:
        raise ForestageError(
            f"{trace.origin}: {len(timed)} decode steps of {batch} sequences at once, {steps} are needed; give a trace "
            "of more tokens"
        )
    last = int(timed[steps - 1]) + 1
    kept = np.sort(everything.tokens[: everything.offsets[last]])
    counts = np.bincount(trace.sequence_index()[kept], minlength=trace.sequences)
    begun = np.flatnonzero(counts)
    trace.prepare([(0, trace.tokens)])
    cut = trace.of_tokens(
        kept,
        np.concatenate([[0], np.cumsum(counts[begun])]),
        tuple(trace.domains[index] for index in begun),
        tuple(trace.datasets[index] for index in begun),
    )
    found = _steps_of(cut, batch)
    assert int(found.timed.sum()) == steps, "a schedule's beginning does not depend on its end"
    return cut, found


def _steps_of(trace: RoutingTrace, batch: int) -> Steps:
    prompts_decoded = not has_decode(trace)
    if batch == 1:
        return decode_steps(trace, prompts_decoded=prompts_decoded)
    if prompts_decoded:
        raise ForestageError(f"{trace.origin}: has prompts alone, which a batch does not decode; choose a batch of 1")
    return batch_steps(trace, make_schedule(trace, BatchConfig(slots=batch)))


def _slice(trace: RoutingTrace, indices: NDArray[np.int64], tokens: int) -> tuple[int, ...]:
    """Some of the sequences ``indices``, ascending; see `material_of`."""
    permuted = np.random.default_rng(SPLIT_SEED).permutation(indices)
    reached = np.cumsum(np.diff(trace.sequence_offsets)[permuted]) >= tokens
    enough = int(np.argmax(reached)) + 1 if reached.any() else len(permuted)
    return tuple(np.sort(permuted[: max(enough, LEAST_SEQUENCES)]).tolist())
