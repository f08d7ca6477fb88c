"""Expert weights on the host link: who asked for them, and what became of their bytes."""

from collections.abc import Callable
from dataclasses import dataclass

from perfmodel.event_loop import EventLoop
from perfmodel.tasks import Task

Key = tuple[int, int]
"""(layer, expert)."""

HOST_LINK = "host_link"
PREFETCH_ENGINE = "prefetch_engine"

DEMAND = 0
PREFETCH = 1
"""Priorities on the link: a demand overtakes a prefetch at the next chunk."""


@dataclass(slots=True)
class Prediction:
    """One answer of the prefetch engine.

    Attributes:
        event: the (token, layer) it is for, as ``token · layers + layer``.
        link_idle_ps: time the link stood idle while the prefetch engine computed it, not yet charged to a wait.
    """

    event: int
    link_idle_ps: int = 0


class Fetch:
    """One expert on its way to the device.

    Attributes:
        key: ``(layer, expert)``.
        event: the latest (token, layer) for which it was asked, as ``token · layers + layer``.
        prediction: what asked for it; ``None`` for a demand.
        is_late: a gate asked for this prefetch before it had arrived.
        has_place: room on the device is reserved for it.
        task: its transfer.
    """

    __slots__ = ("event", "has_place", "is_late", "key", "prediction", "task")

    def __init__(self, key: Key, event: int, prediction: Prediction | None) -> None:
        self.key = key
        self.event = event
        self.prediction = prediction
        self.is_late = False
        self.has_place = False
        self.task: Task

    @property
    def is_wanted(self) -> bool:
        """Whether a gate waits for it."""
        return self.prediction is None or self.is_late


@dataclass
class LinkBytes:
    """Bytes over the host link, each of one kind; their sum is what the link moved.

    Attributes:
        demand: of experts that a gate asked for and no prediction had.
        prefetch_useful: arrived before the first gate that used them.
        prefetch_late: asked for by a gate while they were on their way or waiting for the link.
        prefetch_wasted: evicted or left over without having been used, or abandoned on the way.
    """

    demand: int = 0
    prefetch_useful: int = 0
    prefetch_late: int = 0
    prefetch_wasted: int = 0

    @property
    def total(self) -> int:
        """What the link moved."""
        return self.demand + self.prefetch_useful + self.prefetch_late + self.prefetch_wasted


class ExpertLink:
    """Demands and prefetches of experts over the host link.

    Args:
        event_loop: has a resource ``HOST_LINK``.
        expert_bytes: bytes that one fetch moves.
        latency_ps: time from asking until the transfer may start.
        admit: asked when a prefetch without a place would start; ``False`` drops it.
        arrived: called when all of an expert has arrived.
        dropped: called when a prefetch was cancelled or not admitted.
    """

    def __init__(
        self,
        event_loop: EventLoop,
        *,
        expert_bytes: int,
        latency_ps: int,
        admit: Callable[[Fetch], bool],
        arrived: Callable[[Fetch], None],
        dropped: Callable[[Fetch], None],
    ) -> None:
        self.event_loop = event_loop
        self.bytes = LinkBytes()
        self.in_flight: dict[Key, Fetch] = {}
        self._expert_bytes = expert_bytes
        self._latency_ps = latency_ps
        self._admit = admit
        self._arrived = arrived
        self._dropped = dropped

    def demand(self, key: Key, event: int) -> Fetch:
        """Fetch an expert that a gate asked for, neither resident nor on its way, into a reserved place."""
        fetch = Fetch(key, event, None)
        fetch.has_place = True
        self._send("demand", fetch, DEMAND)
        return fetch

    def prefetch(self, key: Key, prediction: Prediction) -> Fetch:
        """Fetch an expert ahead of the gate that may ask for it."""
        fetch = Fetch(key, prediction.event, prediction)
        self._send("prefetch", fetch, PREFETCH)
        return fetch

    def _send(self, kind: str, fetch: Fetch, priority: int) -> None:
        self.in_flight[fetch.key] = fetch
        fetch.task = self.event_loop.transfer(
            kind,
            HOST_LINK,
            self._expert_bytes,
            priority=priority,
            order=fetch.event,
            delay_ps=self._latency_ps,
            tag=fetch,
            admit=self._may_start,
            on_finish=self._on_finish,
            on_cancel=self._on_cancel,
        )

    def promote(self, fetch: Fetch, event: int) -> None:
        """A gate asks for an expert on its way: make it a demand; what has been moved is kept."""
        fetch.event = event
        fetch.is_late = fetch.prediction is not None
        self.event_loop.promote(fetch.task, DEMAND, event)

    def retarget(self, fetch: Fetch, event: int) -> None:
        """An expert on its way is predicted again, for a later (token, layer)."""
        fetch.event = event
        self.event_loop.promote(fetch.task, PREFETCH, event)

    def _may_start(self, task: Task) -> bool:
        fetch: Fetch = task.tag
        return fetch.has_place or self._admit(fetch)

    def _on_finish(self, task: Task) -> None:
        fetch: Fetch = task.tag
        del self.in_flight[fetch.key]
        if fetch.prediction is None:
            self.bytes.demand += task.size_bytes
        elif fetch.is_late:
            self.bytes.prefetch_late += task.size_bytes
        self._arrived(fetch)

    def _on_cancel(self, task: Task) -> None:
        fetch: Fetch = task.tag
        del self.in_flight[fetch.key]
        self.bytes.prefetch_wasted += task.done_bytes
        self._dropped(fetch)
