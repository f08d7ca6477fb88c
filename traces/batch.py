"""Batches made from single requests by continuous batching: which tokens each step of a device processes.

A device has a number of *slots* (sequence slots); each serves one sequence at a time. Requests wait in the order of
their arrival and take the slot that has been free longest; when a sequence ends, the next one takes its slot at the
following step (iteration-level scheduling: Yu et al., "Orca", OSDI 2022). In a step every busy slot processes one
decode token of its sequence, or up to ``prefill_chunk`` tokens of its prompt. Nothing is pre-empted. Every step takes
one tick of the clock; the system model determines how long that is.

The trace stays as it is, sequence after sequence; the schedule is an order over its tokens. Interleaving single
requests is exact for models whose routers choose token by token, because a sequence's routing then does not depend on
its neighbours in a batch. It does not show which requests were really sent together.
"""

import heapq
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from catalog.config import StrictModel
from catalog.errors import ForestageError
from traces.scattered import gather_groups
from traces.schema import PREFILL
from traces.statistics.batches import distinct_experts
from traces.trace import RoutingTrace

MADE_BY = "interleaving single requests"

LEAST_ARRIVALS = 1e-9
"""Fewest requests per step; with fewer the clock would overflow 64 bits."""


class BatchConfig(StrictModel):
    """How requests become batches.

    Attributes:
        slots: number of sequences served at once.
        arrivals_per_step: mean of the Poisson process of arrivals, requests per step; ``None``: all arrive at tick 0.
        prefill_chunk: tokens of a prompt that one step processes; ``None``: the whole prompt.
        order: order of arrival: the ``trace``'s, or ``shuffled``.
        seed: seed of the arrivals and of the shuffle.
    """

    slots: int = Field(ge=1, le=65_535)
    arrivals_per_step: float | None = Field(default=None, ge=LEAST_ARRIVALS, allow_inf_nan=False)
    prefill_chunk: int | None = Field(default=None, ge=1, le=np.iinfo(np.int32).max)
    order: Literal["trace", "shuffled"] = "trace"
    seed: int = Field(default=0, ge=0)


class Step(NamedTuple):
    """The tokens of one step, by slot and in order within a slot; arrays ``[tokens of the step]``."""

    slot: npt.NDArray[np.uint16]
    sequence: npt.NDArray[np.int64]
    token: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, kw_only=True)
class BatchSchedule:
    """An order over the tokens of a trace, in steps; a tick without work is not a step.

    Attributes:
        config: the configuration it was made with.
        step_offsets: i64 ``[steps + 1]``, first entry of each step in ``token`` and ``slot``.
        clock: i64 ``[steps]``, the tick of each step, ascending.
        token: i64 ``[tokens]``, index into the trace; every token once.
        slot: u16 ``[tokens]``, the slot that processes the token; ascending within a step.
        arrival: i64 ``[sequences]``, the first tick at which the request waits or is served.
        sequence_offsets: the trace's.
    """

    config: BatchConfig
    step_offsets: npt.NDArray[np.int64]
    clock: npt.NDArray[np.int64]
    token: npt.NDArray[np.int64]
    slot: npt.NDArray[np.uint16]
    arrival: npt.NDArray[np.int64]
    sequence_offsets: npt.NDArray[np.int64]

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.clock)

    def step(self, index: int) -> Step:
        """The tokens that step ``index`` processes.

        Raises:
            ForestageError: if there is no such step.
        """
        if not 0 <= index < self.steps:
            raise ForestageError(f"step {index}: the schedule has steps 0 to {self.steps - 1}")
        part = slice(int(self.step_offsets[index]), int(self.step_offsets[index + 1]))
        return Step(self.slot[part], self.sequence_of(self.token[part]), self.token[part])

    def sequence_of(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The sequence of each of ``tokens``."""
        return np.searchsorted(self.sequence_offsets, tokens, side="right") - 1

    def step_of_token(self) -> npt.NDArray[np.int64]:
        """The step that processes each token of the trace: i64 ``[tokens]``."""
        steps = np.empty(len(self.token), np.int64)
        steps[self.token] = np.repeat(np.arange(self.steps), np.diff(self.step_offsets))
        return steps

    def waiting(self) -> npt.NDArray[np.int64]:
        """Ticks from each request's arrival to its first step: i64 ``[sequences]``."""
        return self.clock[self.step_of_token()[self.sequence_offsets[:-1]]] - self.arrival

    def busy_slots(self) -> npt.NDArray[np.int64]:
        """Number of slots that process a token in each step: i64 ``[steps]``."""
        begins = np.ones(len(self.slot), np.int64)
        begins[1:] = self.slot[1:] != self.slot[:-1]
        begins[self.step_offsets[:-1]] = 1
        return np.add.reduceat(begins, self.step_offsets[:-1])

    def prefill_tokens(self, trace: RoutingTrace) -> npt.NDArray[np.int64]:
        """Number of prefill tokens in each step: i64 ``[steps]``; the others are decode tokens."""
        prefill = (trace.phase[self.token] == PREFILL).astype(np.int64)
        return np.add.reduceat(prefill, self.step_offsets[:-1])


def make_schedule(trace: RoutingTrace, config: BatchConfig) -> BatchSchedule:
    """Serve the sequences of ``trace`` by continuous batching; needs about 60 bytes per token while it works."""
    progress = _step_within_sequence(trace, config.prefill_chunk)
    steps_needed = progress[trace.sequence_offsets[1:] - 1] + 1
    arrival, order = _arrivals(trace.sequences, config)
    begin, slot = _serve(steps_needed, arrival, order, config.slots)
    lengths = np.diff(trace.sequence_offsets)
    tick = progress + np.repeat(begin, lengths)
    slot_of_token = np.repeat(slot, lengths)
    token = np.lexsort((slot_of_token, tick))  # stable: tokens of a slot stay in order
    tick = tick[token]
    starts = np.flatnonzero(np.concatenate([[True], tick[1:] != tick[:-1]]))
    return BatchSchedule(
        config=config,
        step_offsets=np.append(starts, trace.tokens),
        clock=tick[starts],
        token=token,
        slot=slot_of_token[token].astype(np.uint16),
        arrival=arrival,
        sequence_offsets=trace.sequence_offsets,
    )


def distinct_experts_by_step(trace: RoutingTrace, schedule: BatchSchedule) -> npt.NDArray[np.int32]:
    """Number of distinct experts that each step uses in each layer: i32 ``[steps, layers]``."""
    counts = np.empty((schedule.steps, trace.layers), np.int32)
    for part in gather_groups(trace, schedule.token, schedule.step_offsets):
        counts[part.first : part.last] = distinct_experts(part.ids, part.offsets, trace.experts)
    return counts


def check_schedule(schedule: BatchSchedule, origin: str) -> None:
    """Check a schedule that was read from a file.

    Raises:
        ForestageError: naming ``origin`` and the field, if a token does not occur exactly once, a sequence is out of
            order or changes its slot, or a slot serves two sequences in a step.
    """
    tokens = int(schedule.sequence_offsets[-1])
    _check_ascending(schedule.step_offsets, tokens, f"{origin}: batch_step_offsets")
    if len(schedule.clock) != len(schedule.step_offsets) - 1 or (np.diff(schedule.clock) <= 0).any():
        raise ForestageError(f"{origin}: batch_clock: must ascend, one tick a step")
    if schedule.token.shape != (tokens,) or schedule.slot.shape != (tokens,):
        raise ForestageError(f"{origin}: batch_token, batch_slot: must name {tokens} tokens, as the trace has")
    seen = np.zeros(tokens, np.bool_)
    inside = (schedule.token >= 0) & (schedule.token < tokens)
    seen[schedule.token[inside]] = True
    if not seen.all():
        raise ForestageError(f"{origin}: batch_token: token {int(np.argmin(seen))} is not in it")
    if (schedule.slot >= schedule.config.slots).any():
        raise ForestageError(f"{origin}: batch_slot: must be below {schedule.config.slots}")
    if len(schedule.arrival) != len(schedule.sequence_offsets) - 1 or (schedule.waiting() < 0).any():
        raise ForestageError(f"{origin}: batch_arrival: must be one tick a sequence, none after its first step")
    _check_slots(schedule, origin)


def _check_ascending(offsets: npt.NDArray[np.int64], end: int, field: str) -> None:
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != end or (np.diff(offsets) <= 0).any():
        raise ForestageError(f"{field}: must ascend from 0 to {end}, the tokens of the trace")


def _check_slots(schedule: BatchSchedule, origin: str) -> None:
    """Check that a sequence's tokens run in order through one slot, and that a slot serves one sequence per step."""
    place = np.empty(len(schedule.token), np.int64)
    place[schedule.token] = np.arange(len(place))
    slot = schedule.slot[place]
    same = np.ones(len(place) - 1, np.bool_)
    same[schedule.sequence_offsets[1:-1] - 1] = False
    wrong = np.flatnonzero(same & ((np.diff(place) <= 0) | (slot[1:] != slot[:-1])))
    if len(wrong):
        raise ForestageError(f"{origin}: batch_token: token {wrong[0] + 1} is out of order or changes its slot")
    step = np.repeat(np.arange(schedule.steps), np.diff(schedule.step_offsets))
    sequence = schedule.sequence_of(schedule.token)
    falls = (step[1:] == step[:-1]) & (schedule.slot[1:] < schedule.slot[:-1])
    shared = (step[1:] == step[:-1]) & (schedule.slot[1:] == schedule.slot[:-1]) & (sequence[1:] != sequence[:-1])
    wrong = np.flatnonzero(falls | shared)
    if len(wrong):
        raise ForestageError(
            f"{origin}: batch_slot[{wrong[0] + 1}]: slots must ascend within a step and serve one sequence each"
        )


def _step_within_sequence(trace: RoutingTrace, chunk: int | None) -> npt.NDArray[np.int64]:
    """For each token, how many steps of its sequence precede the one that processes it: i64 ``[tokens]``."""
    first = np.zeros(trace.tokens, np.bool_)
    first[trace.sequence_offsets[:-1]] = True
    prefill = trace.phase == PREFILL
    follows = prefill & ~first
    follows[1:] &= prefill[:-1]
    index = np.arange(trace.tokens)
    run_start = np.maximum.accumulate(np.where(follows, 0, index))
    begins = ~follows if chunk is None else ~follows | ((index - run_start) % chunk == 0)
    steps = np.cumsum(begins)
    return steps - np.repeat(steps[trace.sequence_offsets[:-1]], np.diff(trace.sequence_offsets))


def _arrivals(sequences: int, config: BatchConfig) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The tick of each request's arrival, and the requests in the order of arrival; both i64 ``[sequences]``."""
    generator = np.random.default_rng([config.seed, 0])
    order = generator.permutation(sequences) if config.order == "shuffled" else np.arange(sequences)
    arrival = np.zeros(sequences, np.int64)
    if config.arrivals_per_step is not None:
        gaps = np.random.default_rng([config.seed, 1]).standard_exponential(sequences) / config.arrivals_per_step
        arrival[order] = np.ceil(np.cumsum(gaps)).astype(np.int64)
    return arrival, order


def _serve(
    steps_needed: npt.NDArray[np.int64], arrival: npt.NDArray[np.int64], order: npt.NDArray[np.int64], slots: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First come, first served: the tick at which each sequence begins, and its slot; both i64 ``[sequences]``."""
    begin, slot = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    free = [(0, index) for index in range(slots)]  # (tick from which a slot is free, slot); already a heap
    for sequence in order.tolist():
        since, taken = heapq.heappop(free)
        begin[sequence], slot[sequence] = max(since, arrival[sequence]), taken
        heapq.heappush(free, (int(begin[sequence] + steps_needed[sequence]), taken))
    return begin, slot
