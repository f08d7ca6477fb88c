"""What a device runs one after the other: steps, each some tokens that go through the layers together.

* decode, one request at a time: each decode token is a step; consecutive prompt tokens of a sequence are one, a *pass*;
* a batch (``traces.batch``): the decode tokens of each step of the schedule; its prompt tokens are a step before them;
* verification of drafts: so many consecutive decode tokens of one sequence, as speculative decoding checks them. All of
  them count as accepted, as the trace holds no others.

A step is *timed* where it decodes. Prompt steps only warm caches.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError, SettingError
from traces import DECODE, RoutingTrace
from traces.batch import BatchSchedule
from traces.compiled import njit
from traces.mapping import new_array
from traces.statistics.batches import gather_ids
from traces.trace import CHUNK_TOKENS


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


def batch_steps(trace: RoutingTrace, schedule: BatchSchedule) -> Steps:
    """The steps of ``schedule``, which was made for ``trace``: prompt tokens untimed, then decode tokens timed."""
    of_step = np.repeat(np.arange(schedule.steps), np.diff(schedule.step_offsets))
    half = 2 * of_step + (trace.phase[schedule.token] == DECODE)
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
    sizes = np.diff(steps.offsets)
    most = int((np.minimum(sizes * trace.top_k, trace.experts) * trace.layers).sum())
    experts, tokens_of = new_array((most,), np.int32), new_array((most,), np.int32)
    offsets = np.zeros(len(steps) * trace.layers + 1, np.int64)
    place = np.full(trace.experts, -1, np.int64)
    first = 0
    while first < len(steps):
        last = int(np.searchsorted(steps.offsets, steps.offsets[first] + CHUNK_TOKENS, side="right")) - 1
        last = min(max(last, first + 1), len(steps))
        tokens = steps.tokens[steps.offsets[first] : steps.offsets[last]]
        within = steps.offsets[first : last + 1] - steps.offsets[first]
        ids = gather_ids(trace, tokens)
        token, layer = _append_steps(
            ids, within, steps.timed[first:last], trace.unrecorded_id, first, place, experts, tokens_of, offsets
        )
        if token >= 0:
            raise ForestageError(
                f"{trace.origin}: expert_ids[{tokens[token]}, {layer}]: not recorded, so its step cannot be timed; "
                "give a trace whose decode tokens are recorded in every layer"
            )
        first = last
    used = int(offsets[-1])
    return StepExperts(experts=experts[:used], tokens_of=tokens_of[:used], offsets=offsets)


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
    timed: NDArray[np.bool_],
    unrecorded: int,
    first_step: int,
    place: NDArray[np.int64],
    experts: NDArray[np.int32],
    tokens_of: NDArray[np.int32],
    offsets: NDArray[np.int64],
) -> tuple[int, int]:
    """Append some steps from ``first_step`` on.

    ``within [steps + 1]`` are their first tokens in ``ids``, ``place [experts]`` where an expert was written last.

    Returns:
        (token of ``ids``, layer) of the first row that a timed step lacks, or (−1, −1).
    """
    layers, top_k = ids.shape[1:]
    for step in range(len(within) - 1):
        for layer in range(layers):
            event = (first_step + step) * layers + layer
            begin = uses = offsets[event]
            for token in range(within[step], within[step + 1]):
                if ids[token, layer, 0] == unrecorded:
                    if timed[step]:
                        return token, layer
                    continue
                for i in range(top_k):
                    expert = ids[token, layer, i]
                    if place[expert] < begin:
                        place[expert] = uses
                        experts[uses] = expert
                        tokens_of[uses] = 0
                        uses += 1
                    tokens_of[place[expert]] += 1
            offsets[event + 1] = uses
    return -1, -1
