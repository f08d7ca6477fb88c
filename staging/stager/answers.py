"""What a stager answers: what happened to which expert, what moves where, and the work that it took."""

from dataclasses import dataclass, field
from enum import Enum


class Kind(Enum):
    """What happened to an expert."""

    HIT = "hit"
    """It is demanded and was resident."""
    WAIT = "wait"
    """It is demanded and was absent: queued."""
    PROMOTE = "promote"
    """It is demanded and was queued or moving."""
    HOLD = "hold"
    """It is predicted and was resident, queued or moving: what is known of its chance is renewed."""
    QUEUE = "queue"
    """It is predicted and was absent: queued."""
    REFUSE = "refuse"
    """It is predicted and was not queued: its deadline is past or beyond the horizon, or the queue is full."""
    DROP = "drop"
    """It was queued or moving, and is given up."""
    PAUSE = "pause"
    """It was moving, and waits for the link again: for a demand, or because its transfer failed."""
    EVICT = "evict"
    """It was resident, and gives way."""
    ELSEWHERE = "elsewhere"
    """It was to be demanded only if it were resident, and it is not."""


class Why(Enum):
    """The reason where there are several."""

    LATE = "late"
    FAR = "far"
    FULL = "queue full"
    USELESS = "useless"
    WORTH = "not worth its place"
    PLACE = "its place was needed"
    SHARE = "beyond the share"
    RELEASED = "nobody waits any more"
    FAILED = "its transfer failed"


@dataclass(frozen=True, slots=True)
class Action:
    """What happened to one expert; ``key`` is ``layer · experts + expert``."""

    kind: Kind
    key: int
    why: Why | None = None


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transfer that starts, or goes on after a pause.

    Attributes:
        channel: that it takes.
        key: what moves.
        place: where to; ``NO_PLACE``: the layer that waits takes the bytes as they come.
        victim: the key that lost the place now; ``NONE`` where none did.
        demanded: whether a gate waits for it.
    """

    channel: int
    key: int
    place: int
    victim: int
    demanded: bool


@dataclass
class Step:
    """What a command did.

    Attributes:
        actions: in order.
        transfer: of ``grant``.
        entries: entries of the directory that were looked at in scans, and of ``set_values`` those written.
        cycles: that the hardware takes (``staging.stager.cycles``).
    """

    actions: list[Action] = field(default_factory=list)
    transfer: Transfer | None = None
    entries: int = 0
    cycles: int = 0


@dataclass
class StagerCounters:
    """Experts, since the start.

    Attributes:
        hits, waits, promoted: demanded: resident; absent; queued or moving.
        moved_demands, moved_prefetches: arrived while a gate waited for them; others.
        useful, wasted: prefetched, arrived, and then demanded; evicted before.
        dropped: given up before they arrived, for whatever reason.
        refused: predicted and not queued.
        evicted: residents that gave way.
        passed: transfers without a place.
        failed: transfers that failed.
        lost: demands given up after too many of those.
    """

    hits: int = 0
    waits: int = 0
    promoted: int = 0
    moved_demands: int = 0
    moved_prefetches: int = 0
    useful: int = 0
    wasted: int = 0
    dropped: int = 0
    refused: int = 0
    evicted: int = 0
    passed: int = 0
    failed: int = 0
    lost: int = 0
