"""What the event loop works on: resources, tasks, and its own records of them."""

from __future__ import annotations

import sys
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from perfmodel.units import PS_PER_S


class TaskState(IntEnum):
    """The state of a task."""

    WAITING = 0  # for dependencies or for its delay
    READY = 1  # for its resources
    RUNNING = 2
    FINISHED = 3
    CANCELLED = 4


@dataclass(frozen=True)
class Resource:
    """A thing that tasks hold while they run.

    Attributes:
        name: unique in its event loop.
        servers: tasks it can serve at once.
        bandwidth_bytes_per_s: rate of transfers; ``None`` where the resource takes no transfers.
        chunk_bytes: granularity at which a more urgent transfer overtakes; ``None``: none does.
    """

    name: str
    servers: int = 1
    bandwidth_bytes_per_s: int | None = None
    chunk_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.servers < 1:
            raise ValueError(f"resource {self.name}: servers must be at least 1, not {self.servers}")
        if self.bandwidth_bytes_per_s is not None and self.bandwidth_bytes_per_s < 1:
            raise ValueError(f"resource {self.name}: bandwidth must be at least 1 byte/s")
        if self.chunk_bytes is not None and (self.chunk_bytes < 1 or self.servers != 1):
            raise ValueError(f"resource {self.name}: chunks need one server and at least 1 byte each")
        # Otherwise two chunk boundaries could fall into one picosecond, the clock's unit.
        if self.chunk_bytes is not None and self.chunk_bytes * PS_PER_S < (self.bandwidth_bytes_per_s or 0):
            raise ValueError(f"resource {self.name}: a chunk of {self.chunk_bytes} bytes must take 1 ps or more")

    def transfer_ps(self, size_bytes: int) -> int:
        """Time of a transfer that nothing overtakes, ps: ``ceil(bytes · 10¹² / bandwidth)``.

        Raises:
            ValueError: if the resource takes no transfers.
        """
        if self.bandwidth_bytes_per_s is None:
            raise ValueError(f"resource {self.name} has no bandwidth")
        return -(-size_bytes * PS_PER_S // self.bandwidth_bytes_per_s)

    def next_boundary_bytes(self, passed_ps: int) -> int:
        """Smallest multiple of the chunk that takes ``passed_ps`` or longer to transfer; infinite without chunks."""
        if self.chunk_bytes is None or self.bandwidth_bytes_per_s is None:
            return sys.maxsize
        # The smallest k with ceil(k · chunk · 10¹² / bandwidth) ≥ passed_ps.
        chunks = (passed_ps - 1) * self.bandwidth_bytes_per_s // (self.chunk_bytes * PS_PER_S) + 1
        return chunks * self.chunk_bytes


@dataclass(frozen=True, slots=True)
class Segment:
    """One uninterrupted service of a task on a resource, kept if the event loop records."""

    resource: str
    task: Task
    start_ps: int
    end_ps: int


class Task:
    """A unit of work, which :meth:`EventLoop.submit` or :meth:`EventLoop.transfer` makes and others only read.

    Attributes:
        kind: a label for reports.
        priority, order: smaller is sooner.
        state: see :class:`TaskState`.
        size_bytes, done_bytes: of a transfer; until its end ``done_bytes`` counts whole chunks only.
        ready_ps, start_ps, end_ps: when it first became ready and started, and when it ended; −1 before.
        tag: anything the submitter wants to find again.
        admit, on_finish, on_cancel: see the event loop's methods.

    The other attributes are the event loop's own.
    """

    __slots__ = (
        "admit",
        "busy_ps",
        "cancel_requested",
        "delay_ps",
        "dependants",
        "done_bytes",
        "duration_ps",
        "end_ps",
        "kind",
        "missing",
        "number",
        "on_cancel",
        "on_finish",
        "order",
        "priority",
        "queue",
        "ready_ps",
        "since_ps",
        "size_bytes",
        "stamp",
        "start_ps",
        "state",
        "tag",
    )

    def __init__(self, kind: str, queue: Queue, number: int, priority: int, order: int) -> None:
        self.kind = kind
        self.priority = priority
        self.order = order
        self.state = TaskState.WAITING
        self.size_bytes = 0
        self.done_bytes = 0
        self.ready_ps = -1
        self.start_ps = -1
        self.end_ps = -1
        self.tag: Any = None
        self.admit: Callable[[Task], bool] | None = None
        self.on_finish: Callable[[Task], None] | None = None
        self.on_cancel: Callable[[Task], None] | None = None
        self.queue = queue
        self.number = number
        self.duration_ps = 0
        self.busy_ps: tuple[int, ...] = ()
        self.delay_ps = 0
        self.missing = 0
        self.dependants: list[Task] = []
        self.since_ps = -1
        self.stamp = 0  # the event loop ignores events with an earlier stamp
        self.cancel_requested = False

    def __repr__(self) -> str:
        return f"<Task {self.number} {self.kind} {self.state.name} {self.start_ps}..{self.end_ps} ps>"

    @property
    def is_over(self) -> bool:
        """Finished or cancelled."""
        return self.state >= TaskState.FINISHED


class Station:
    """A resource at work."""

    __slots__ = ("busy_ps", "free", "moved_bytes", "reserved_in", "resource", "running")

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.free = resource.servers
        self.running: list[Task] = []
        self.busy_ps = 0
        self.moved_bytes = 0
        self.reserved_in = -1  # dispatch round in which a waiting task reserves it against less urgent ones


class Queue:
    """Ready tasks that need the same resources, most urgent first."""

    __slots__ = ("blocked_in", "ready", "stations")

    def __init__(self, stations: tuple[Station, ...]) -> None:
        self.stations = stations
        self.ready: list[tuple[int, int, int, Task]] = []
        self.blocked_in = -1

    def add(self, task: Task) -> None:
        """Put a task in its place."""
        insort(self.ready, (task.priority, task.order, task.number, task))

    def remove(self, task: Task) -> None:
        """Take out a task that waits here; its priority and order must be those it was added with."""
        place = bisect_left(self.ready, (task.priority, task.order, task.number, task))
        assert self.ready[place][3] is task
        del self.ready[place]
