"""What enters the prefetch engine, what leaves it, and what it counts."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Self

import numpy as np

from predictor.base import id_chunks
from traces import RoutingTrace

_CHUNK_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class RoutingEvent:
    """The gate of one layer has chosen.

    Attributes:
        layer: MoE layer.
        experts: the ids chosen, in rank order where the model ranks them.
        starts_token: first event of a token.
        starts_sequence: first event of a sequence; it also starts a token.
        slot: of the sequence; sequences that run at once have different ones.
        domain: of the sequence, whose table bank it uses from ``starts_sequence`` on; else it is not looked at.
    """

    layer: int
    experts: tuple[int, ...]
    starts_token: bool = False
    starts_sequence: bool = False
    slot: int = 0
    domain: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """Stage ``expert`` of ``layer``; ``last`` marks the last request of an event."""

    layer: int
    expert: int
    score: int
    last: bool


@dataclass(frozen=True, slots=True)
class RowUpdate:
    """A row of the correlation table was written: its address and all of its bits (see ``RowFormat``)."""

    address: int
    row: int


class EventError(IntFlag):
    """Why an event is rejected: it changes no table, and only its start flags take effect (of no slot, none).

    Attributes:
        meaning: of a single error, a line for the register table.
    """

    meaning: str

    def __new__(cls, value: int, meaning: str = "") -> Self:
        """A member is its value and its meaning; several together, or none, have no meaning of their own."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    LAYER = 1, "an event's layer is not below LAYERS"
    EXPERT = 2, "an event's expert is not below EXPERTS"
    DUPLICATE = 4, "an event names an expert twice"
    SLOT = 8, "an event's slot is not one of the engine's"
    DOMAIN = 16, "the domain of an event's sequence is not below DOMAINS"


NO_ERROR = EventError(0)


class EngineCounter(IntEnum):
    """What the engine counts, in the order of its counter registers.

    Attributes:
        meaning: a line for the register table.
    """

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Self:
        """A member is its value and its meaning."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    EVENTS = 0, "events accepted while on, rejected ones included"
    REJECTED = 1, "of these, events rejected for an error"
    DISCARDED = 2, "events accepted while off"
    PREDICTIONS = 3, "events that predicted a target layer"
    REQUESTS = 4, "requests handed over"
    CANDIDATE_HITS = 5, "verified candidates that were needed"
    CANDIDATE_MISSES = 6, "verified candidates that were not needed"
    UPDATES = 7, "table rows written back"
    REPLACEMENTS = 8, "candidates replaced"
    BUSY_CYCLES = 9, "cycles in which no event could be accepted"
    STALL_CYCLES = 10, "cycles in which a request waited for its consumer"


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one event causes.

    Attributes:
        requests: in the order of issue: score descending, then expert ascending.
        updates: in the order of writing.
        cycles: from the cycle that accepts the event to the first that can accept another, requests never waiting.
        error: why the event was rejected; zero where it was not.
    """

    requests: tuple[Request, ...]
    updates: tuple[RowUpdate, ...]
    cycles: int
    error: EventError = NO_ERROR


def routing_events(trace: RoutingTrace) -> Iterator[RoutingEvent]:
    """The events of a trace in order; a row that was not recorded causes none."""
    sequence_pending = False  # a sequence has begun, and no event has said so
    for _, ids, recorded, starts in id_chunks(trace, _CHUNK_TOKENS):
        for row in range(len(ids)):
            sequence_pending |= bool(starts[row])
            for nth, layer in enumerate(np.flatnonzero(recorded[row]).tolist()):
                experts = tuple(ids[row, layer].tolist())
                yield RoutingEvent(layer, experts, starts_token=nth == 0, starts_sequence=sequence_pending)
                sequence_pending = False
