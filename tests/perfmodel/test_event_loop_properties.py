"""Properties of every schedule, and transfers against a chunk-by-chunk simulation."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.event_loop import EventLoop, Resource, Task, TaskState
from perfmodel.units import PS_PER_S

CHUNK = 10
LINK = Resource("link", bandwidth_bytes_per_s=PS_PER_S, chunk_bytes=CHUNK)  # a byte takes a picosecond


@dataclass
class Job:
    """A transfer that arrives, and may then be promoted or cancelled."""

    arrival: int
    size: int
    priority: int
    order: int
    change_at: int | None
    change: str
    done: int = 0
    started: bool = False
    cancelled: bool = False
    end: int = -1
    segments: list[tuple[int, int]] = field(default_factory=list)


jobs = st.builds(
    Job,
    arrival=st.integers(0, 60),
    size=st.integers(1, 45),
    priority=st.integers(0, 2),
    order=st.integers(0, 3),
    change_at=st.none() | st.integers(0, 120),
    change=st.sampled_from(["promote", "cancel"]),
)


def simulate_by_chunks(batch: list[Job]) -> None:
    """At every instant, decide anew what the link does: the plain meaning of chunked overtaking, ps by ps."""
    running: Job | None = None
    chunk_left = 0
    for now in range(10_000):
        if running is not None:
            chunk_left -= 1
            running.done += 1
        ended = running is not None and running.done == running.size
        if ended:
            assert running is not None
            running.end = now
        for job in batch:  # changes come before anything starts at this instant
            if job.change_at == now and job.end < 0 and not (job.cancelled and job is not running):
                if job.change == "promote":
                    job.priority, job.order, job.cancelled = 0, 0, False
                else:
                    job.cancelled = True
                    if job is not running:
                        job.end = now
        if running is not None and (ended or chunk_left == 0):
            waiting = [j for j in batch if j.arrival <= now and j.end < 0 and j is not running]
            if not ended and running.cancelled:
                running.end = now
            overtaken = any(j.priority < running.priority for j in waiting)
            if ended or running.cancelled or overtaken:
                running.segments[-1] = (running.segments[-1][0], now)
                running = None
            else:
                chunk_left = min(CHUNK, running.size - running.done)
        if running is None:
            waiting = [j for j in batch if j.arrival <= now and j.end < 0]
            if waiting:
                running = min(waiting, key=lambda j: (j.priority, j.order, batch.index(j)))
                running.segments.append((now, -1))
                chunk_left = min(CHUNK, running.size - running.done)
            elif all(j.end >= 0 for j in batch):
                return
    raise AssertionError("the link never became idle")


@settings(max_examples=300, deadline=None)
@given(st.lists(jobs, min_size=1, max_size=6))
def test_lazy_chunking_equals_chunk_by_chunk(batch: list[Job]) -> None:
    event_loop = EventLoop([LINK], record=True)
    tasks = [
        event_loop.transfer("job", "link", job.size, priority=job.priority, order=job.order, delay_ps=job.arrival)
        for job in batch
    ]
    changes = sorted((job.change_at, i) for i, job in enumerate(batch) if job.change_at is not None)
    for at, i in changes:
        if at > event_loop.now_ps:
            event_loop.run_until(event_loop.submit("timer", (), at - event_loop.now_ps))
        if not tasks[i].is_over:
            if batch[i].change == "promote":
                event_loop.promote(tasks[i], 0, 0)
            else:
                event_loop.cancel(tasks[i])
    event_loop.run()
    event_loop.check()
    simulate_by_chunks(batch)
    for task, job in zip(tasks, batch, strict=True):
        assert (task.state == TaskState.CANCELLED) == (job.cancelled and job.done < job.size)
        assert (task.end_ps, task.done_bytes) == (job.end, job.done)
        served = [(s.start_ps, s.end_ps) for s in event_loop.segments if s.task is task]
        assert merged(served) == merged(job.segments)


def merged(segments: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Adjacent services of one task as one; empty ones dropped."""
    result: list[tuple[int, int]] = []
    for start, end in segments:
        if start == end:
            continue
        if result and result[-1][1] == start:
            result[-1] = (result[-1][0], end)
        else:
            result.append((start, end))
    return result


@st.composite
def graphs(draw: st.DrawFn) -> list[tuple[tuple[str, ...], int, int, list[int]]]:
    """Tasks ``(resources, duration, priority, dependencies)``; dependencies point backwards."""
    count = draw(st.integers(1, 12))
    names = st.sampled_from([("gpu",), ("hbm",), ("gpu", "hbm"), ("pool",), ("hbm", "pool"), ()])
    return [
        (
            draw(names),
            draw(st.integers(0, 20)),
            draw(st.integers(0, 2)),
            draw(st.lists(st.integers(0, i - 1), max_size=3, unique=True)) if i else [],
        )
        for i in range(count)
    ]


@settings(max_examples=200, deadline=None)
@given(graphs())
def test_schedules_are_causal_exclusive_and_idle_only_for_a_reason(
    graph: list[tuple[tuple[str, ...], int, int, list[int]]],
) -> None:
    servers = {"gpu": 1, "hbm": 1, "pool": 2}
    event_loop = EventLoop([Resource(name, servers=n) for name, n in servers.items()], record=True)
    tasks: list[Task] = []
    for resources, duration_ps, priority, after in graph:
        tasks.append(
            event_loop.submit("node", resources, duration_ps, priority=priority, after=[tasks[i] for i in after])
        )
    makespan_ps = event_loop.run()
    event_loop.check()
    longest: list[int] = []
    for task, (_, duration_ps, _, after) in zip(tasks, graph, strict=True):
        assert task.end_ps == task.start_ps + duration_ps
        assert all(tasks[i].end_ps <= task.start_ps for i in after)
        longest.append(max((longest[i] for i in after), default=0) + duration_ps)
    assert max(longest) <= makespan_ps <= sum(duration_ps for _, duration_ps, _, _ in graph)
    for name, n in servers.items():
        spans = [(s.start_ps, s.end_ps) for s in event_loop.segments if s.resource == name]
        assert sum(end - start for start, end in spans) == event_loop.busy_ps(name)
        assert all(sum(a <= start < b for a, b in spans) <= n for start, end in spans if start < end)
    for task, (resources, _, _, _) in zip(tasks, graph, strict=True):
        # Work conservation: while a ready task waits, something it needs is in use, or kept for a more urgent one.
        assert task.ready_ps <= task.start_ps
        for instant in range(task.ready_ps, task.start_ps):
            full = [
                name
                for name in resources
                if sum(s.start_ps <= instant < s.end_ps for s in event_loop.segments if s.resource == name)
                == servers[name]
            ]
            rivals = [
                other
                for other, (theirs, _, _, _) in zip(tasks, graph, strict=True)
                if other is not task and set(theirs) & set(resources) and other.ready_ps <= instant < other.start_ps
            ]
            assert full or rivals


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 10**8), st.integers(0, 1)), min_size=1, max_size=20))
def test_a_link_is_never_idle_while_transfers_wait(arrivals: list[tuple[int, int, int]]) -> None:
    """Work conservation: the link's busy time up to the end is what one queue without priorities would give."""
    link = Resource("link", bandwidth_bytes_per_s=32 * 10**9, chunk_bytes=1 << 20)
    event_loop = EventLoop([link])
    for delay_us, size, priority in arrivals:
        event_loop.transfer("fetch", "link", size, priority=priority, delay_ps=delay_us * 10**6)
    makespan_ps = event_loop.run()
    event_loop.check()
    free_ps = 0
    for delay_us, size, _ in sorted(arrivals):
        free_ps = max(free_ps, delay_us * 10**6) + link.transfer_ps(size)
    assert makespan_ps == free_ps
    assert event_loop.moved_bytes("link") == sum(size for _, size, _ in arrivals)
