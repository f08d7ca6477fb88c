"""What a device runs one after the other: steps, each some tokens that go through the layers together.

* decode, one request at a time: each decode token is a step; consecutive prompt tokens of a sequence are one, a *pass*;
* a batch (``traces.batch``): the decode tokens of each step of the schedule; its prompt tokens are a step before them
  (or, where nothing is timed, one with them);
* verification of drafts: so many consecutive decode tokens of one sequence, as speculative decoding checks them. All of
  them count as accepted, as the trace holds no others.

A step is *timed* where it decodes. Prompt steps only warm caches.

What each (step, layer) needs is found here for everybody: with the tokens that chose it, for simulations of time
(``step_experts``), or alone, for hit rates (``recorded_experts``, of which ``staging.events`` makes events).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from catalog.errors import ForestageError, SettingError
from traces import DECODE, RoutingTrace
from traces.batch import BatchSchedule
from traces.mapping import new_array
from traces.scattered import gather_groups


@dataclass(frozen=True, eq=False, kw_only=True)
class Steps:
    """The steps over a trace, in order.

    Attributes:
        tokens: i64, the tokens (rows of the trace) of each step, concatenated.
        offsets: i64 ``[steps + 1]`` into ``tokens``.
        timed: bool ``[steps]``, whether a step decodes.
        sequential: whether several tokens of a timed step follow each other in one sequence (verification): later ones
            are then routed before what the step itself routed is known.
    """

    tokens: NDArray[np.int64]
    offsets: NDArray[np.int64]
    timed: NDArray[np.bool_]
    sequential: bool

    def __len__(self) -> int:
        return len(self.timed)


@dataclass(frozen=True, eq=False, kw_only=True)
class StepExperts:
    """The distinct experts that each (step, layer) needs, in the order of first choice.

    Attributes:
        experts: i32 ``[uses]``.
        tokens_of: i32 ``[uses]``, how many of the step's tokens chose it.
        offsets: i64 ``[steps · layers + 1]`` into both; an empty range where nothing was recorded.
    """

    experts: NDArray[np.int32]
    tokens_of: NDArray[np.int32]
    offsets: NDArray[np.int64]


def decode_steps(trace: RoutingTrace, *, prompts_decoded: bool = False) -> Steps:
    """Requests one after the other: a step a decode token, and one a prompt pass.

    Args:
        trace: the routing.
        prompts_decoded: take prompt tokens as decode tokens too, for a trace that holds nothing else.
    """
    return _runs(trace, 1, prompts_decoded)


def verification_steps(trace: RoutingTrace, drafted: int, *, prompts_decoded: bool = False) -> Steps:
    """As ``decode_steps``, but ``drafted`` consecutive decode tokens of a sequence are verified in one step.

    The last group of a run may be shorter.

    Raises:
        SettingError: for fewer than one token.
    """
    if drafted < 1:
        raise SettingError("drafted", "choose 1 token or more", value=drafted)
    return _runs(trace, drafted, prompts_decoded)


def batch_steps(trace: RoutingTrace, schedule: BatchSchedule, *, prompts_apart: bool = True) -> Steps:
    """The steps of ``schedule``, which was made for ``trace``.

    Args:
        trace: the routing.
        schedule: of its tokens.
        prompts_apart: a step's prompt tokens are an untimed step of their own before its decode tokens, so that no
            prompt's work is in what a decode token is said to take. Otherwise they are one step, as the schedule says,
            timed where it holds a decode token.
    """
    decodes = trace.phase[schedule.token] == DECODE
    if not prompts_apart:
        offsets = schedule.step_offsets
        timed = np.logical_or.reduceat(decodes, offsets[:-1])
        return Steps(tokens=schedule.token, offsets=offsets, timed=timed, sequential=False)
    of_step = np.repeat(np.arange(schedule.steps), np.diff(schedule.step_offsets))
    half = 2 * of_step + decodes
    order = np.argsort(half, kind="stable")
    half = half[order]
    begins = np.flatnonzero(np.diff(half, prepend=-1))
    return Steps(
        tokens=schedule.token[order],
        offsets=np.append(begins, len(half)),
        timed=half[begins] % 2 == 1,
        sequential=False,
    )


def step_experts(trace: RoutingTrace, steps: Steps) -> StepExperts:
    """What each (step, layer) needs. Rows that were not recorded are skipped in steps that are not timed.

    Large results lie in a temporary file (``traces.mapping.new_array``).

    Raises:
        ForestageError: if no step is timed, or one needs a row that was not recorded.
    """
    if not steps.timed.any():
        raise ForestageError(
            f"{trace.origin}: no decode token to time; give a trace that decodes, or take its prompts as if decoded"
        )
    tokens_of = new_array((_most_uses(trace, steps),), np.int32)
    experts, offsets = _walk(trace, steps, steps.timed, tokens_of)
    return StepExperts(experts=experts, tokens_of=tokens_of[: len(experts)], offsets=offsets)


def recorded_experts(trace: RoutingTrace, steps: Steps) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """``experts`` and ``offsets`` of ``StepExperts``, of any steps: rows that were not recorded need nothing.

    Large results lie in a temporary file, as ``step_experts``'s.
    """
    return _walk(trace, steps, np.zeros(len(steps), np.bool_), np.empty(0, np.int32))


def _walk(
    trace: RoutingTrace, steps: Steps, whole: NDArray[np.bool_], tokens_of: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Experts ``[uses]`` and offsets ``[steps · layers + 1]``; ``tokens_of`` is filled unless it is empty.

    Raises:
        ForestageError: if a row was not recorded of a step that is to be ``whole`` (bool ``[steps]``).
    """
    experts = new_array((_most_uses(trace, steps),), np.int32)
    offsets = np.zeros(len(steps) * trace.layers + 1, np.int64)
    place = np.full(trace.experts, -1, np.int64)
    for part in gather_groups(trace, steps.tokens, steps.offsets):
        token, layer = _append_steps(
            part.ids, part.offsets, whole[part.first : part.last], trace.unrecorded_id, part.first,
            place, experts, tokens_of, offsets,
        )  # fmt: skip
        if token >= 0:
            missing = steps.tokens[steps.offsets[part.first] + token]
            raise ForestageError(
                f"{trace.origin}: expert_ids[{missing}, {layer}]: not recorded, so its step cannot be timed; "
                "give a trace whose decode tokens are recorded in every layer"
            )
    return experts[: int(offsets[-1])], offsets


def _most_uses(trace: RoutingTrace, steps: Steps) -> int:
    """What all (step, layer) can need at the most."""
    return int((np.minimum(np.diff(steps.offsets) * trace.top_k, trace.experts) * trace.layers).sum())


def _runs(trace: RoutingTrace, group: int, prompts_decoded: bool) -> Steps:
    """Runs of one phase of a sequence; those that decode are cut into groups."""
    index = np.arange(trace.tokens)
    timed = np.ones(trace.tokens, np.bool_) if prompts_decoded else trace.phase == DECODE
    begins = np.zeros(trace.tokens, np.bool_)
    begins[trace.sequence_offsets[:-1]] = True
    begins[1:] |= timed[1:] != timed[:-1]
    begin_of = np.maximum.accumulate(np.where(begins, index, 0))
    begins |= timed & ((index - begin_of) % group == 0)
    starts = np.flatnonzero(begins)
    return Steps(tokens=index, offsets=np.append(starts, trace.tokens), timed=timed[starts], sequential=group > 1)


@njit()
def _append_steps(
    ids: NDArray[np.uint8 | np.uint16],
    within: NDArray[np.int64],
    whole: NDArray[np.bool_],
    unrecorded: int,
    first_step: int,
    place: NDArray[np.int64],
    experts: NDArray[np.int32],
    tokens_of: NDArray[np.int32],
    offsets: NDArray[np.int64],
) -> tuple[int, int]:
    """Append some steps from ``first_step`` on.

    ``within [steps + 1]`` are their first tokens in ``ids``, ``place [experts]`` where an expert was written last;
    ``tokens_of`` may be empty.

    Returns:
        (token of ``ids``, layer) of the first row that a ``whole`` step lacks, or (−1, −1).
    """
    layers, top_k = ids.shape[1:]
    counts = len(tokens_of) > 0
    for step in range(len(within) - 1):
        for layer in range(layers):
            event = (first_step + step) * layers + layer
            begin = uses = offsets[event]
            for token in range(within[step], within[step + 1]):
                if ids[token, layer, 0] == unrecorded:
                    if whole[step]:
                        return token, layer
                    continue
                for i in range(top_k):
                    expert = ids[token, layer, i]
                    if place[expert] < begin:
                        place[expert] = uses
                        experts[uses] = expert
                        uses += 1
                    if counts:
                        tokens_of[place[expert]] += 1
            offsets[event + 1] = uses
    return -1, -1
