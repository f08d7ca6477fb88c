"""The event loop against schedules worked out by hand and against scheduling theory."""

import pytest

from perfmodel.event_loop import EventLoop, Resource, Task, TaskState
from perfmodel.units import PS_PER_S

# One byte takes one picosecond, so that times can be read off.
LINK = Resource("link", bandwidth_bytes_per_s=PS_PER_S, chunk_bytes=10)
GPU = Resource("gpu")
HBM = Resource("hbm")

DEMAND, PREFETCH = 0, 1


def spans(event_loop: EventLoop, resource: str) -> list[tuple[str, int, int]]:
    return [(s.task.kind, s.start_ps, s.end_ps) for s in event_loop.segments if s.resource == resource]


def test_tasks_of_a_unit_resource_run_one_after_the_other_in_order() -> None:
    event_loop = EventLoop([GPU], record=True)
    event_loop.submit("late", ("gpu",), 5, order=2)
    event_loop.submit("urgent", ("gpu",), 7, priority=-1, order=9)
    event_loop.submit("early", ("gpu",), 3, order=1)
    event_loop.submit("early too", ("gpu",), 2, order=1)
    assert event_loop.run() == 17
    assert spans(event_loop, "gpu") == [("urgent", 0, 7), ("early", 7, 10), ("early too", 10, 12), ("late", 12, 17)]
    event_loop.check()


def test_a_task_waits_for_its_dependencies_and_then_for_its_delay() -> None:
    event_loop = EventLoop([GPU, HBM])
    first = event_loop.submit("first", ("gpu",), 10)
    second = event_loop.submit("second", ("hbm",), 4)
    third = event_loop.submit("third", ("hbm",), 5, after=(first, second), delay_ps=3)
    event_loop.run_until(third)
    assert (third.ready_ps, third.start_ps, third.end_ps) == (13, 13, 18)
    event_loop.check()


def test_a_task_after_one_that_has_finished_starts_now() -> None:
    event_loop = EventLoop([GPU])
    first = event_loop.submit("first", ("gpu",), 10)
    event_loop.run()
    second = event_loop.submit("second", ("gpu",), 1, after=(first,))
    assert event_loop.run_until(second) == 11


@pytest.mark.parametrize(("stages", "items"), [((3, 5, 2), 4), ((7, 7), 3), ((1,), 6), ((2, 9, 4, 9), 5)])
def test_pipeline_takes_the_first_item_plus_the_slowest_stage_of_the_others(
    stages: tuple[int, ...], items: int
) -> None:
    names = [f"stage {i}" for i in range(len(stages))]
    event_loop = EventLoop([Resource(name) for name in names])
    for item in range(items):
        before: tuple[Task, ...] = ()
        for name, duration_ps in zip(names, stages, strict=True):
            before = (event_loop.submit("work", (name,), duration_ps, order=item, after=before),)
    assert event_loop.run() == sum(stages) + (items - 1) * max(stages)
    event_loop.check()


def test_with_servers_to_spare_the_makespan_is_the_critical_path() -> None:
    # A lattice: each of the 5 x 5 tasks follows its upper and its left neighbour; durations differ.
    durations = [[(3 * row + 5 * column) % 7 + 1 for column in range(5)] for row in range(5)]
    longest = [[0] * 5 for _ in range(5)]
    event_loop = EventLoop([Resource("pool", servers=25)])
    tasks: dict[tuple[int, int], Task] = {}
    for row in range(5):
        for column in range(5):
            near = [(row - 1, column), (row, column - 1)]
            after = [tasks[place] for place in near if place in tasks]
            tasks[row, column] = event_loop.submit("node", ("pool",), durations[row][column], after=after)
            before = max((longest[r][c] for r, c in near if (r, c) in tasks), default=0)
            longest[row][column] = before + durations[row][column]
    assert event_loop.run() == longest[4][4]
    event_loop.check()


def test_n_servers_divide_equal_work() -> None:
    event_loop = EventLoop([Resource("pool", servers=3)])
    for _ in range(7):
        event_loop.submit("work", ("pool",), 10)
    assert event_loop.run() == 30
    assert event_loop.busy_ps("pool") == 70
    event_loop.check()


def test_a_saturated_link_moves_bytes_at_its_bandwidth() -> None:
    event_loop = EventLoop([Resource("link", bandwidth_bytes_per_s=32 * 10**9, chunk_bytes=1 << 20)])
    for size in (13_219_200, 1, 999, 4 << 20):
        event_loop.transfer("fetch", "link", size)
    makespan_ps = event_loop.run()
    total = 13_219_200 + 1 + 999 + (4 << 20)
    assert event_loop.busy_ps("link") == makespan_ps
    assert event_loop.moved_bytes("link") == total
    assert total * PS_PER_S / (32 * 10**9) <= makespan_ps <= total * PS_PER_S / (32 * 10**9) + 4  # one rounding each
    event_loop.check()


def test_demand_overtakes_a_prefetch_at_the_next_chunk() -> None:
    event_loop = EventLoop([LINK], record=True)
    prefetch = event_loop.transfer("prefetch", "link", 35, priority=PREFETCH)
    event_loop.transfer("demand", "link", 12, priority=DEMAND, delay_ps=13)
    event_loop.run()
    assert spans(event_loop, "link") == [("prefetch", 0, 20), ("demand", 20, 32), ("prefetch", 32, 47)]
    assert (prefetch.start_ps, prefetch.end_ps) == (0, 47)
    assert event_loop.moved_bytes("link") == 47
    event_loop.check()


def test_demand_on_a_chunk_boundary_overtakes_there_and_in_the_last_chunk_waits() -> None:
    event_loop = EventLoop([LINK], record=True)
    event_loop.transfer("prefetch", "link", 35, priority=PREFETCH)
    event_loop.transfer("boundary", "link", 4, delay_ps=20)
    event_loop.transfer("last", "link", 4, delay_ps=35)  # the prefetch is then in its last chunk, 34..39
    event_loop.run()
    assert spans(event_loop, "link") == [
        ("prefetch", 0, 20),
        ("boundary", 20, 24),
        ("prefetch", 24, 39),
        ("last", 39, 43),
    ]


def test_a_transfer_never_overtakes_its_own_kind_nor_without_chunks() -> None:
    event_loop = EventLoop([LINK], record=True)
    event_loop.transfer("first", "link", 35, priority=PREFETCH, order=5)
    event_loop.transfer("second", "link", 10, priority=PREFETCH, order=1, delay_ps=3)
    event_loop.run()
    assert spans(event_loop, "link") == [("first", 0, 35), ("second", 35, 45)]
    whole = EventLoop([Resource("link", bandwidth_bytes_per_s=PS_PER_S)], record=True)
    whole.transfer("prefetch", "link", 35, priority=PREFETCH)
    whole.transfer("demand", "link", 10, priority=DEMAND, delay_ps=3)
    whole.run()
    assert spans(whole, "link") == [("prefetch", 0, 35), ("demand", 35, 45)]


def test_a_promoted_prefetch_keeps_what_it_moved_and_is_overtaken_no_more() -> None:
    event_loop = EventLoop([LINK], record=True)
    running = event_loop.transfer("running", "link", 35, priority=PREFETCH)
    waiting = event_loop.transfer("waiting", "link", 15, priority=PREFETCH)
    event_loop.run_until(event_loop.submit("timer", (), 12))
    event_loop.promote(running, DEMAND, 0)
    event_loop.transfer("demand", "link", 10, priority=DEMAND, order=1)
    event_loop.promote(waiting, DEMAND, 0)
    event_loop.run()
    assert spans(event_loop, "link") == [("running", 0, 35), ("waiting", 35, 50), ("demand", 50, 60)]
    event_loop.check()


def test_a_promotion_after_the_stop_was_arranged_undoes_it() -> None:
    event_loop = EventLoop([LINK], record=True)
    running = event_loop.transfer("running", "link", 35, priority=PREFETCH)
    event_loop.transfer("demand", "link", 10, priority=DEMAND, delay_ps=12)
    event_loop.run_until(event_loop.submit("timer", (), 15))
    event_loop.promote(running, DEMAND, 0)
    event_loop.run()
    assert spans(event_loop, "link") == [("running", 0, 35), ("demand", 35, 45)]


def test_cancelling_drops_a_waiting_transfer_at_once_and_a_running_one_at_its_next_chunk() -> None:
    event_loop = EventLoop([LINK], record=True)
    cancelled: list[Task] = []
    running = event_loop.transfer("running", "link", 35, on_cancel=cancelled.append)
    waiting = event_loop.transfer("waiting", "link", 15, on_cancel=cancelled.append)
    delayed = event_loop.transfer("delayed", "link", 15, delay_ps=90, on_cancel=cancelled.append)
    event_loop.run_until(event_loop.submit("timer", (), 12))
    for task in (running, waiting, delayed):
        event_loop.cancel(task)
    assert cancelled == [waiting, delayed]
    assert event_loop.run() == 20
    assert cancelled == [waiting, delayed, running]
    assert [t.done_bytes for t in cancelled] == [0, 0, 20]
    assert event_loop.moved_bytes("link") == 20
    event_loop.check()


def test_a_transfer_cancelled_and_revived_at_its_boundary_is_overtaken_there_once() -> None:
    event_loop = EventLoop([LINK], record=True)
    prefetch = event_loop.transfer("prefetch", "link", 35, priority=PREFETCH)
    event_loop.transfer("demand", "link", 10, priority=DEMAND, delay_ps=13)
    event_loop.run_until(event_loop.submit("timer", (), 20))
    event_loop.cancel(prefetch)
    event_loop.promote(prefetch, PREFETCH, 0)
    event_loop.run()
    assert spans(event_loop, "link") == [("prefetch", 0, 20), ("demand", 20, 30), ("prefetch", 30, 45)]
    event_loop.check()


def test_a_promotion_at_the_boundary_itself_still_counts() -> None:
    event_loop = EventLoop([LINK], record=True)
    prefetch = event_loop.transfer("prefetch", "link", 35, priority=PREFETCH)
    event_loop.transfer("demand", "link", 10, priority=DEMAND, delay_ps=13)
    event_loop.run_until(event_loop.submit("timer", (), 20))
    event_loop.promote(prefetch, DEMAND, 0)
    event_loop.run()
    assert spans(event_loop, "link") == [("prefetch", 0, 35), ("demand", 35, 45)]


def test_a_cancelled_transfer_in_its_last_chunk_ends_and_a_promoted_one_lives_on() -> None:
    event_loop = EventLoop([LINK])
    revived = event_loop.transfer("revived", "link", 35)
    event_loop.run_until(event_loop.submit("timer", (), 12))
    event_loop.cancel(revived)
    event_loop.promote(revived, DEMAND, 0)
    event_loop.run_until(event_loop.submit("timer", (), 20))
    event_loop.cancel(revived)
    event_loop.run()
    assert revived.state == TaskState.FINISHED
    assert revived.end_ps == 35
    event_loop.check()


def test_a_refused_transfer_is_cancelled_and_the_next_one_takes_its_place() -> None:
    event_loop = EventLoop([LINK], record=True)
    refused = event_loop.transfer("refused", "link", 20, admit=lambda task: False)
    event_loop.transfer("next", "link", 20, order=1)
    event_loop.run()
    assert refused.state == TaskState.CANCELLED
    assert spans(event_loop, "link") == [("next", 0, 20)]
    event_loop.check()


def test_admission_is_asked_once_however_often_a_transfer_resumes() -> None:
    event_loop = EventLoop([LINK])
    asked: list[int] = []

    def admit(task: Task) -> bool:
        asked.append(event_loop.now_ps)
        return True

    event_loop.transfer("prefetch", "link", 35, priority=PREFETCH, admit=admit, delay_ps=2)
    event_loop.transfer("demand", "link", 10, delay_ps=5)
    event_loop.run()
    assert asked == [2]


def test_a_kernel_holds_its_resources_together_and_is_not_starved() -> None:
    event_loop = EventLoop([GPU, HBM], record=True)
    event_loop.submit("hbm only", ("hbm",), 10)
    event_loop.submit("kernel", ("gpu", "hbm"), 8, busy_ps=(2, 8), order=1)
    event_loop.submit("gpu only", ("gpu",), 20, order=2)  # the GPU is free at once, but kept for the kernel
    event_loop.run()
    assert spans(event_loop, "gpu") == [("kernel", 10, 18), ("gpu only", 18, 38)]
    assert spans(event_loop, "hbm") == [("hbm only", 0, 10), ("kernel", 10, 18)]
    assert (event_loop.busy_ps("gpu"), event_loop.busy_ps("hbm")) == (22, 18)
    event_loop.check()


def test_what_is_submitted_at_an_instant_competes_with_what_waits_at_it() -> None:
    event_loop = EventLoop([LINK], record=True)
    first = event_loop.transfer("first", "link", 20, priority=PREFETCH)
    event_loop.transfer("queued", "link", 20, priority=PREFETCH)
    event_loop.run_until(first)
    event_loop.transfer("demand", "link", 5, priority=DEMAND)
    event_loop.run()
    assert spans(event_loop, "link") == [("first", 0, 20), ("demand", 20, 25), ("queued", 25, 45)]


def test_busy_time_includes_the_service_in_progress() -> None:
    event_loop = EventLoop([LINK, GPU])
    event_loop.transfer("fetch", "link", 30)
    event_loop.submit("kernel", ("gpu",), 20, busy_ps=(5,))
    event_loop.run_until(event_loop.submit("timer", (), 12))
    assert (event_loop.busy_ps("link"), event_loop.busy_ps("gpu")) == (12, 5)


def test_a_dependency_that_never_ends_is_an_error_not_a_hang() -> None:
    event_loop = EventLoop([GPU])
    stuck = Task("outsider", event_loop._queue(("gpu",)), 0, 0, 0)
    with pytest.raises(RuntimeError, match="can never end"):
        event_loop.run_until(event_loop.submit("work", ("gpu",), 1, after=(stuck,)))


def test_the_check_finds_unfinished_work() -> None:
    event_loop = EventLoop([GPU])
    event_loop.submit("work", ("gpu",), 5)
    with pytest.raises(AssertionError, match="1 tasks submitted, 0 finished"):
        event_loop.check()
    event_loop.run()
    event_loop.check()
    event_loop._stations["gpu"].busy_ps += 1
    with pytest.raises(AssertionError, match="busy longer than the makespan"):
        event_loop.check()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda e: e.submit("x", ("gpu",), -1), "negative"),
        (lambda e: e.submit("x", ("cpu",), 1), "unknown or repeated"),
        (lambda e: e.submit("x", ("gpu", "gpu"), 1), "unknown or repeated"),
        (lambda e: e.submit("x", ("gpu", "link"), 1), "held alone"),
        (lambda e: e.submit("x", ("gpu",), 3, busy_ps=(4,)), "do not fit"),
        (lambda e: e.transfer("x", "gpu", 1), "no bandwidth"),
        (lambda e: e.transfer("x", "link", 0), "at least 1 byte"),
        (lambda e: Resource("x", servers=0), "at least 1"),
        (lambda e: Resource("x", bandwidth_bytes_per_s=0), "at least 1"),
        (lambda e: Resource("x", bandwidth_bytes_per_s=1, chunk_bytes=1, servers=2), "one server"),
        (lambda e: Resource("x", bandwidth_bytes_per_s=1, chunk_bytes=0), "at least 1 byte each"),
        (lambda e: Resource("x", bandwidth_bytes_per_s=2 * PS_PER_S, chunk_bytes=1), "1 ps or more"),
        (lambda e: EventLoop([GPU, GPU]), "named twice"),
    ],
)
def test_impossible_requests_are_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make(EventLoop([GPU, LINK]))


def test_tasks_that_others_wait_for_or_that_run_are_not_cancelled() -> None:
    event_loop = EventLoop([GPU, LINK])
    needed = event_loop.transfer("needed", "link", 10)
    event_loop.submit("user", ("gpu",), 1, after=(needed,))
    with pytest.raises(ValueError, match="depend on it"):
        event_loop.cancel(needed)
    kernel = event_loop.submit("kernel", ("gpu",), 50, order=-1)
    event_loop.run_until(event_loop.submit("timer", (), 2))
    with pytest.raises(ValueError, match="it runs"):
        event_loop.cancel(kernel)
    event_loop.run()
    event_loop.cancel(kernel)  # over: nothing to do
    with pytest.raises(ValueError, match="has ended"):
        event_loop.promote(kernel, 0, 0)
    gone = event_loop.transfer("gone", "link", 10)
    event_loop.cancel(gone)
    with pytest.raises(ValueError, match="cancelled task"):
        event_loop.submit("user", ("gpu",), 1, after=(gone,))


def test_the_slowest_link_and_the_finest_chunk_are_possible() -> None:
    slow = Resource("x", bandwidth_bytes_per_s=1, chunk_bytes=1)
    assert slow.transfer_ps(3) == 3 * PS_PER_S
    # A chunk of exactly 1 ps, the clock's unit.
    assert Resource("x", bandwidth_bytes_per_s=PS_PER_S, chunk_bytes=1).next_boundary_bytes(7) == 7
