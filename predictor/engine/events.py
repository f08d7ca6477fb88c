"""What enters the prefetch engine: events, one by one or as arrays, and those of a trace.

In each slot (a sequence of the running batch) the order is: TOKEN; then for every layer, ascending, GATE and RELEASE.
The tokens that slots process together are a *step*: the TOKENs of all its slots, then layer by layer the GATEs of all
and the RELEASEs of all. ``first`` and ``last`` mark the first and the last event of a kind in its group: of a lone
sequence every event is both.

The TOKEN that is ``first`` begins step 1, 2, … The *deadline* of (step, layer) is ``step · layers + layer``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from predictor.engine.described import DescribedEnum, DescribedFlag
from traces import RoutingTrace
from traces.batch import BatchConfig, BatchSchedule, make_schedule

ROW_BITS = 24
NO_ROW = (1 << ROW_BITS) - 1
"""In the place of a row of token identity: the token has none."""
DOMAIN_BITS = 3


class EventKind(DescribedEnum):
    """What has happened."""

    TOKEN = 0, "a token of the slot is about to be processed"
    GATE = 1, "the gate of a layer has chosen, and its layer runs once all it chose is there"
    RELEASE = 2, "the layer has run"


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the slot is about to be processed.

    Attributes:
        slot: of the running batch.
        first, last: of the step's TOKENs.
        starts_sequence: the slot's past is forgotten.
        identity: u32, ``None``: not recorded.
        row: of token identity (``RowNetwork.identity_index``); ``None``: none.
        domain: bank of ST-MoE's tables.
    """

    slot: int
    first: bool = True
    last: bool = True
    starts_sequence: bool = False
    identity: int | None = None
    row: int | None = None
    domain: int = 0


@dataclass(frozen=True, slots=True)
class Gate:
    """The gate of a layer has chosen.

    Attributes:
        slot: of the running batch.
        layer: MoE layer.
        experts: in rank order where the model ranks them; ``None``: not recorded (the layer demands nothing).
        first, last: of the slots that run the layer together.
    """

    slot: int
    layer: int
    experts: tuple[int, ...] | None
    first: bool = True
    last: bool = True


@dataclass(frozen=True, slots=True)
class Release:
    """The layer whose gate the slot told last has run.

    Attributes:
        slot: of the running batch.
        layer: MoE layer.
        first, last: of the slots that run the layer together.
    """

    slot: int
    layer: int
    first: bool = True
    last: bool = True


Event = Token | Gate | Release


class EventArrays(NamedTuple):
    """Events as arrays, ``n`` of them; what a kind does not have is 0.

    Attributes:
        kind: u8 ``[n]``, of ``EventKind``.
        slot: u8 ``[n]``.
        layer: u16 ``[n]``.
        first, last: bool ``[n]``.
        starts_sequence: bool ``[n]``.
        known: bool ``[n]``: of a TOKEN whether its identity, of a GATE whether its routing was recorded.
        identity: u32 ``[n]``.
        row: u32 ``[n]``, ``NO_ROW`` for none.
        domain: u8 ``[n]``.
        experts: u16 ``[n, top_k]``.
    """

    kind: NDArray[np.uint8]
    slot: NDArray[np.uint8]
    layer: NDArray[np.uint16]
    first: NDArray[np.bool_]
    last: NDArray[np.bool_]
    starts_sequence: NDArray[np.bool_]
    known: NDArray[np.bool_]
    identity: NDArray[np.uint32]
    row: NDArray[np.uint32]
    domain: NDArray[np.uint8]
    experts: NDArray[np.uint16]

    @property
    def size(self) -> int:
        """How many events."""
        return len(self.kind)

    def part(self, first: int, end: int) -> "EventArrays":
        """Events ``first … end − 1``, without copying."""
        return EventArrays._make(array[first:end] for array in self)

    def at(self, index: int) -> Event:
        """Event ``index``."""
        slot, first, last = int(self.slot[index]), bool(self.first[index]), bool(self.last[index])
        layer, known = int(self.layer[index]), bool(self.known[index])
        kind = int(self.kind[index])
        if kind == EventKind.TOKEN:
            row = int(self.row[index])
            return Token(
                slot,
                first,
                last,
                bool(self.starts_sequence[index]),
                int(self.identity[index]) if known else None,
                None if row == NO_ROW else row,
                int(self.domain[index]),
            )
        if kind == EventKind.GATE:
            return Gate(slot, layer, tuple(self.experts[index].tolist()) if known else None, first, last)
        return Release(slot, layer, first, last)

    def events(self) -> Iterator[Event]:
        """The events one by one."""
        return (self.at(index) for index in range(self.size))


def event_arrays(events: Sequence[Event], top_k: int) -> EventArrays:
    """Events as arrays.

    Raises:
        ValueError: for a recorded gate without ``top_k`` experts (the hardware would read stale bits).
    """
    found = _empty(len(events), top_k)
    for index, event in enumerate(events):
        found.slot[index], found.first[index], found.last[index] = event.slot, event.first, event.last
        if isinstance(event, Token):
            found.kind[index] = EventKind.TOKEN
            found.starts_sequence[index] = event.starts_sequence
            found.known[index] = event.identity is not None
            found.identity[index] = event.identity or 0
            found.row[index] = NO_ROW if event.row is None else event.row
            found.domain[index] = event.domain
            continue
        found.layer[index] = event.layer
        found.kind[index] = EventKind.RELEASE
        if isinstance(event, Gate):
            found.kind[index] = EventKind.GATE
            found.known[index] = event.experts is not None
            if event.experts is not None:
                if len(event.experts) != top_k:
                    raise ValueError(f"a gate of {len(event.experts)} experts; top_k is {top_k}")
                found.experts[index] = event.experts
    return found


def trace_events(
    trace: RoutingTrace,
    *,
    slots: int = 1,
    rows: NDArray[np.int64] | None = None,
    domains: NDArray[np.integer] | None = None,
) -> EventArrays:
    """The events of a trace, prompt tokens one by one like decoded ones.

    With one slot, one sequence after the other. With several a running batch: a free slot takes the next sequence, and
    a step holds one token of each slot that has one (``traces.batch``).

    Args:
        trace: the routing; a row that was not recorded is a gate that is not known.
        slots: of the running batch.
        rows: i64 ``[tokens]``, the identity row of each token (``RowNetwork.identity_index``), −1: none; ``None``:
            there are no rows.
        domains: ``[sequences]``, the table bank of each; ``None``: bank 0.

    Raises:
        ForestageError: for more slots or banks than the fields hold.
    """
    if not 1 <= slots <= 256:
        raise ForestageError(f"slots: {slots}; give 1 to 256")
    if domains is not None and (np.min(domains) < 0 or np.max(domains) >> DOMAIN_BITS):
        raise ForestageError(f"domains: a table bank outside 0…{(1 << DOMAIN_BITS) - 1}; give each sequence one inside")
    return _schedule_events(trace, make_schedule(trace, BatchConfig(slots=slots, prefill_chunk=1)), rows, domains)


def _schedule_events(
    trace: RoutingTrace,
    schedule: BatchSchedule,
    rows: NDArray[np.int64] | None,
    domains: NDArray[np.integer] | None,
) -> EventArrays:
    """The events of a schedule whose steps hold at most one token of each slot."""
    layers, top_k, token = trace.layers, trace.top_k, schedule.token
    step = np.repeat(np.arange(schedule.steps), np.diff(schedule.step_offsets))
    in_step = np.arange(len(token)) - schedule.step_offsets[step]
    size = np.diff(schedule.step_offsets)[step]
    per_token = 1 + 2 * layers
    begin = schedule.step_offsets[step] * per_token
    found = _empty(len(token) * per_token, top_k)

    def put(at: NDArray[np.int64], kind: EventKind, layer: int) -> None:
        found.kind[at], found.layer[at] = kind, layer
        found.slot[at] = schedule.slot
        found.first[at], found.last[at] = in_step == 0, in_step == size - 1

    at = begin + in_step
    put(at, EventKind.TOKEN, 0)
    starts = np.zeros(trace.tokens, np.bool_)
    starts[np.asarray(trace.sequence_offsets[:-1])] = True
    found.starts_sequence[at] = starts[token]
    if trace.token_hash is not None:
        found.known[at] = True
        found.identity[at] = np.asarray(trace.token_hash)[token]
    found.row[at] = NO_ROW
    if rows is not None:
        found.row[at] = np.where(rows[token] < 0, NO_ROW, rows[token])
    if domains is not None:
        found.domain[at] = np.asarray(domains)[schedule.sequence_of(token)]
    recorded, ids = trace.recorded(), trace.expert_ids
    for layer in range(layers):
        at = begin + size * (1 + 2 * layer) + in_step
        put(at, EventKind.GATE, layer)
        known = recorded[token, layer]
        found.known[at] = known
        found.experts[at] = np.where(known[:, None], np.asarray(ids[:, layer])[token], 0)
        put(at + size, EventKind.RELEASE, layer)
    return found


def _empty(count: int, top_k: int) -> EventArrays:
    return EventArrays(
        kind=np.zeros(count, np.uint8),
        slot=np.zeros(count, np.uint8),
        layer=np.zeros(count, np.uint16),
        first=np.zeros(count, np.bool_),
        last=np.zeros(count, np.bool_),
        starts_sequence=np.zeros(count, np.bool_),
        known=np.zeros(count, np.bool_),
        identity=np.zeros(count, np.uint32),
        row=np.zeros(count, np.uint32),
        domain=np.zeros(count, np.uint8),
        experts=np.zeros((count, top_k), np.uint16),
    )


class EngineError(DescribedFlag):
    """What went wrong since the errors were cleared: one sticky bit each.

    An event with one of those up to ``DEADLINE`` is rejected whole: it changes nothing but counters, and may be told
    again, corrected.
    """

    KIND = 1 << 0, "an event is of no kind"
    SLOT = 1 << 1, "an event's slot is not one of the generated ones"
    LAYER = 1 << 2, "an event's layer is not below LAYERS"
    EXPERT = 1 << 3, "a GATE's expert is not below EXPERTS"
    DUPLICATE = 1 << 4, "a GATE names an expert twice"
    ROW = 1 << 5, "a TOKEN's identity row is not below the rows that the image has"
    DOMAIN = 1 << 6, "a TOKEN's table bank is not below DOMAINS"
    ORDER = 1 << 7, "an event is not the one that comes next in its slot"
    DEADLINE = 1 << 8, "a step's deadlines do not fit their bits any more; switch off and on"
    CONFIGURATION = 1 << 9, "the write of a setting was refused"
    DESCRIPTOR = 1 << 10, "a transfer of no bytes, or that ends beyond the addresses"
    READ = 1 << 11, "a read of far memory was answered by SLVERR or DECERR"
    LAST = 1 << 12, "a read burst did not end with RLAST, or ended before"
    WRITE = 1 << 13, "a write to the staging buffer was answered by SLVERR or DECERR"
    GAVE_UP = 1 << 14, "a demand was given up: its transfers failed too often"
    TEXT = 1 << 15, "a read or write of the memory of the text was answered by SLVERR or DECERR"
    IMAGE_SHAPE = 1 << 16, "the image is not of the shape that the registers say, or beyond the limits"
    IMAGE_CHECKSUM = 1 << 17, "the image's checksum is not the one that it states"
    IMAGE_READ = 1 << 18, "the image could not be read"
    HOST_COMMAND = 1 << 19, "PRELOAD or FIX named an expert that there is not, that is not absent, or has no place"


NO_ERROR = EngineError(0)
EVENT_ERRORS = EngineError((EngineError.DEADLINE << 1) - 1)
"""Those for which an event is rejected."""
