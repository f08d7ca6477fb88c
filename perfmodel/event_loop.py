"""A discrete-event loop: tasks with dependencies and priorities on named resources.

Time is an integer number of picoseconds, so that every sum of intervals is exact and every run is reproducible.

A task holds all of its resources from its start to its end. *Transfers* hold one resource with a bandwidth and are
divisible: a more urgent transfer overtakes a running one at the next multiple of ``chunk_bytes``, and the overtaken one
resumes there later. Everything else runs to completion.

Rules that make a schedule unique:

* All events of an instant are handled before anything starts at that instant.
* Ready tasks start in the order (priority, order, submission). A task that must wait reserves its resources against
  less urgent tasks, so a task that needs two resources cannot be starved by tasks that need one.
* Only a smaller ``priority`` overtakes; among equal priorities, ``order`` decides which starts first and stops none.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import Any

from perfmodel.accounts import Accounts
from perfmodel.tasks import Queue, Resource, Segment, Task, TaskState

__all__ = ["EventLoop", "Resource", "Segment", "Task", "TaskState"]


class EventLoop(Accounts):
    """The clock and the scheduler; the module's docstring states the rules.

    Args:
        resources: the resources, named uniquely.
        record: keep every service interval in :attr:`segments` (for tests and pictures; memory grows with the run).
    """

    def __init__(self, resources: Iterable[Resource], *, record: bool = False) -> None:
        super().__init__(resources)
        self.segments: list[Segment] = []
        self._record = record
        self._queues: dict[tuple[str, ...], Queue] = {}
        self._events: list[tuple[int, int, Task, int]] = []
        self._event_numbers = 0
        self._round = 0
        self._dirty = False
        self._at_boundary: list[Task] = []  # running transfers that have reached a chunk boundary

    # --- submitting ---

    def submit(
        self,
        kind: str,
        resources: tuple[str, ...],
        duration_ps: int,
        *,
        busy_ps: tuple[int, ...] | None = None,
        priority: int = 0,
        order: int = 0,
        after: Iterable[Task] = (),
        delay_ps: int = 0,
        tag: Any = None,
        on_finish: Callable[[Task], None] | None = None,
    ) -> Task:
        """Submit work of a fixed duration that holds ``resources`` together.

        Args:
            kind, tag: kept on the task.
            resources: names; none for a pure delay or a join of other tasks.
            duration_ps: how long they are held.
            busy_ps: for how much of it each resource really works (for the accounts only); by default all of it.
            priority, order: smaller is sooner.
            after: tasks that must finish first.
            delay_ps: time from then (or from now) until the task may queue.
            on_finish: called when the task has ended and its dependants are released.

        Raises:
            ValueError: for a negative time, an unknown resource, or a dependency that was cancelled.
        """
        if duration_ps < 0 or delay_ps < 0:
            raise ValueError(f"task {kind}: negative duration or delay")
        task = Task(kind, self._queue(resources), self._numbers, priority, order)
        task.duration_ps = duration_ps
        task.busy_ps = (duration_ps,) * len(resources) if busy_ps is None else busy_ps
        if len(task.busy_ps) != len(resources) or not all(0 <= b <= duration_ps for b in task.busy_ps):
            raise ValueError(f"task {kind}: busy times {busy_ps} do not fit {resources} and {duration_ps} ps")
        task.tag = tag
        task.on_finish = on_finish
        self._enter(task, after, delay_ps)
        return task

    def transfer(
        self,
        kind: str,
        resource: str,
        size_bytes: int,
        *,
        priority: int = 0,
        order: int = 0,
        after: Iterable[Task] = (),
        delay_ps: int = 0,
        tag: Any = None,
        admit: Callable[[Task], bool] | None = None,
        on_finish: Callable[[Task], None] | None = None,
        on_cancel: Callable[[Task], None] | None = None,
    ) -> Task:
        """Submit a transfer of ``size_bytes`` ≥ 1 over one resource with a bandwidth; other arguments as in `submit`.

        Args:
            admit: asked once, when the transfer would first start; ``False`` cancels it; may not use the event loop.
            on_cancel: called when the transfer is cancelled, for whatever reason.
        Raises:
            ValueError: as `submit`, or for a size below 1 or a resource that takes no transfers.
        """
        if size_bytes < 1:
            raise ValueError(f"task {kind}: a transfer needs at least 1 byte, not {size_bytes}")
        queue = self._queue((resource,))
        task = Task(kind, queue, self._numbers, priority, order)
        task.size_bytes = size_bytes
        task.duration_ps = queue.stations[0].resource.transfer_ps(size_bytes)
        task.tag = tag
        task.admit = admit
        task.on_finish = on_finish
        task.on_cancel = on_cancel
        self._enter(task, after, delay_ps)
        return task

    def _queue(self, resources: tuple[str, ...]) -> Queue:
        queue = self._queues.get(resources)
        if queue is None:
            unknown = [name for name in resources if name not in self._stations]
            if unknown or len(set(resources)) != len(resources):
                raise ValueError(f"resources {resources}: unknown or repeated; there are {sorted(self._stations)}")
            stations = tuple(self._stations[name] for name in resources)
            if len(stations) > 1 and any(s.resource.chunk_bytes is not None for s in stations):
                raise ValueError(f"resources {resources}: one that is overtaken in chunks is held alone")
            queue = self._queues[resources] = Queue(stations)
        return queue

    def _enter(self, task: Task, after: Iterable[Task], delay_ps: int) -> None:
        self._numbers += 1
        task.delay_ps = delay_ps
        for other in after:
            if other.state == TaskState.CANCELLED:
                raise ValueError(f"task {task.kind} depends on a cancelled task {other!r}")
            if other.state != TaskState.FINISHED:
                other.dependants.append(task)
                task.missing += 1
        if task.missing == 0:
            self._release(task)

    # --- promoting and cancelling ---

    def promote(self, task: Task, priority: int, order: int) -> None:
        """Make a task that has not ended more urgent; it keeps what it has already moved.

        A transfer that :meth:`cancel` would stop at its next chunk is revived.

        Raises:
            ValueError: if it has ended.
        """
        if task.is_over:
            raise ValueError(f"{task!r} has ended and cannot be promoted")
        task.cancel_requested = False
        if task.state == TaskState.READY:
            task.queue.remove(task)
            task.priority, task.order = priority, order
            self._enqueue(task)
        else:
            task.priority, task.order = priority, order

    def cancel(self, task: Task) -> None:
        """Drop a task: at once if it waits, at its next chunk boundary if it is a running transfer.

        A running transfer that is in its last chunk, or has no chunks, still runs to its end.

        Raises:
            ValueError: if other tasks depend on it, or if it is running and is not a transfer.
        """
        if task.is_over:
            return
        if task.dependants:
            raise ValueError(f"{task!r} cannot be cancelled: {len(task.dependants)} tasks depend on it")
        if task.state == TaskState.RUNNING:
            if not task.size_bytes:
                raise ValueError(f"{task!r} cannot be cancelled: it runs")
            task.cancel_requested = True
            self._schedule_stop(task)
            return
        if task.state == TaskState.READY:
            task.queue.remove(task)
        self._drop(task)

    def _drop(self, task: Task) -> None:
        task.stamp += 1
        task.state = TaskState.CANCELLED
        task.end_ps = self.now_ps
        self._cancelled += 1
        self._abandoned_bytes += task.done_bytes
        if task.on_cancel is not None:
            task.on_cancel(task)

    # --- running ---

    def run_until(self, task: Task) -> int:
        """Advance until ``task`` has ended; returns the time, ps.

        Returns before anything new starts at that instant, so that what the caller submits competes with it.

        Raises:
            RuntimeError: if nothing is left to happen and the task has not ended (a dependency that never ends).
        """
        while task.state < TaskState.FINISHED:
            if not self._step():
                raise RuntimeError(f"{task!r} can never end: nothing is left to happen")
        return self.now_ps

    def run(self) -> int:
        """Advance until nothing is left to happen; returns the time, ps."""
        while self._step():
            pass
        return self.now_ps

    def _step(self) -> bool:
        """Start what can start, then handle every event of the next instant; False when there is none."""
        if self._dirty:
            self._dispatch()
        events = self._events
        while events and events[0][2].stamp != events[0][3]:
            heapq.heappop(events)
        if not events:
            return self._dirty  # a refused transfer's callback may have made something ready
        now = self.now_ps = events[0][0]
        while events and events[0][0] == now:
            _, _, task, stamp = heapq.heappop(events)
            if task.stamp == stamp:
                if task.state != TaskState.RUNNING:
                    self._enqueue(task)
                elif task.since_ps + task.duration_ps == now:
                    self._complete(task)
                else:
                    self._at_boundary.append(task)
                    self._dirty = True
        return True

    def _dispatch(self) -> None:
        """Start every ready task that can start, most urgent first."""
        self._dirty = False
        while self._at_boundary:
            self._look_up(self._at_boundary.pop())
        self._round += 1
        this = self._round
        queues = self._queues.values()
        while True:
            best: Queue | None = None
            for queue in queues:
                if queue.ready and queue.blocked_in != this and (best is None or queue.ready[0] < best.ready[0]):
                    best = queue
            if best is None:
                return
            if all(s.free and s.reserved_in != this for s in best.stations):
                task = best.ready.pop(0)[3]
                if task.start_ps < 0 and task.admit is not None and not task.admit(task):
                    self._drop(task)
                else:
                    self._start(task)
                continue
            best.blocked_in = this
            priority = best.ready[0][0]
            for station in best.stations:
                station.reserved_in = this
                if station.resource.chunk_bytes is not None and station.running:
                    running = station.running[0]
                    if running.priority > priority:
                        self._schedule_stop(running)

    def _start(self, task: Task) -> None:
        now = self.now_ps
        if task.start_ps < 0:
            task.start_ps = now
        task.state = TaskState.RUNNING
        task.since_ps = now
        for station in task.queue.stations:
            station.free -= 1
            station.running.append(task)
        self._schedule(task, now + task.duration_ps)

    def _schedule(self, task: Task, time_ps: int) -> None:
        task.stamp += 1
        self._event_numbers += 1
        heapq.heappush(self._events, (time_ps, self._event_numbers, task, task.stamp))

    def _schedule_stop(self, task: Task) -> None:
        """Schedule a decision at the next chunk boundary of a running transfer, unless that is its end."""
        at_bytes = self._next_boundary_bytes(task)
        if at_bytes < task.size_bytes:
            resource = task.queue.stations[0].resource
            passed_ps = resource.transfer_ps(at_bytes) - resource.transfer_ps(task.done_bytes)
            self._schedule(task, task.since_ps + passed_ps)

    def _next_boundary_bytes(self, task: Task) -> int:
        """Bytes that a running transfer will have moved at its first chunk boundary from now on, or its end."""
        resource = task.queue.stations[0].resource
        passed_ps = self.now_ps - task.since_ps + resource.transfer_ps(task.done_bytes)
        return min(max(resource.next_boundary_bytes(passed_ps), task.done_bytes), task.size_bytes)

    def _look_up(self, task: Task) -> None:
        """At a chunk boundary, stop a running transfer for good, let it be overtaken, or let it go on."""
        ready = task.queue.ready
        if not task.cancel_requested and not (ready and ready[0][0] < task.priority):
            self._schedule(task, task.since_ps + task.duration_ps)
            return
        task.stamp += 1
        self._account(task, self._next_boundary_bytes(task) - task.done_bytes)
        self._leave(task)
        if task.cancel_requested:
            self._drop(task)
        else:
            self._enqueue(task)

    def _complete(self, task: Task) -> None:
        """A running task has received all its service."""
        if task.size_bytes:
            self._account(task, task.size_bytes - task.done_bytes)
            self._finished_bytes += task.size_bytes
        else:
            for station, busy_ps in zip(task.queue.stations, task.busy_ps, strict=True):
                station.busy_ps += busy_ps
        self._leave(task)
        self._finish(task)

    def _account(self, task: Task, moved_bytes: int) -> None:
        """Account for a transfer's service, which ends now."""
        served_ps = self.now_ps - task.since_ps
        station = task.queue.stations[0]
        station.busy_ps += served_ps
        station.moved_bytes += moved_bytes
        task.done_bytes += moved_bytes
        task.duration_ps -= served_ps

    def _leave(self, task: Task) -> None:
        self._dirty = True
        for station in task.queue.stations:
            station.free += 1
            station.running.remove(task)
            if self._record:
                self.segments.append(Segment(station.resource.name, task, task.since_ps, self.now_ps))

    def _finish(self, task: Task) -> None:
        task.state = TaskState.FINISHED
        task.end_ps = self.now_ps
        self._finished += 1
        for other in task.dependants:
            other.missing -= 1
            if other.missing == 0:
                self._release(other)
        task.dependants = []
        if task.on_finish is not None:
            task.on_finish(task)

    def _release(self, task: Task) -> None:
        """The dependencies have ended: queue the task now, or when its delay is over."""
        if task.state != TaskState.WAITING:
            return
        if task.delay_ps:
            self._schedule(task, self.now_ps + task.delay_ps)
        else:
            self._enqueue(task)

    def _enqueue(self, task: Task) -> None:
        task.state = TaskState.READY
        if task.ready_ps < 0:
            task.ready_ps = self.now_ps
        task.queue.add(task)
        self._dirty = True
