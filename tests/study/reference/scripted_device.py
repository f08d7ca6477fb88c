"""A device, its link and a host's processor whose times are scripted: the runtime on them has a model's own durations.

The clock stands still while the host works, and goes on when the host sleeps: to the next end of a kernel, of a copy or
of what the host's processor computes.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch


class ScriptedMark:
    """A point in one of the queues."""

    def __init__(self, device: "ScriptedDevice") -> None:
        self.passed = False
        self._device = device

    def is_reached(self) -> bool:
        self._device.go_on()
        return self.passed

    def may_be_awaited(self) -> bool:
        return self.passed or not self._device.is_immediate


class Queue:
    """Operations in order, one at a time; each takes what it says while it runs."""

    def __init__(self) -> None:
        self.operations: deque[tuple[str, Any]] = deque()
        self.busy_until_ps = 0


class ScriptedDevice:
    """A ``ComputeQueue``, a ``Copier`` and a ``HostWorker`` in one, and the clock in place of ``time``.

    Args:
        byte_ps: of a copy.
        host_ps: from leaving some experts to the host until its result is there, by their number.
        immediate: what is launched runs at once, and the host with it, as on a CPU; copies go on meanwhile.
    """

    def __init__(
        self, byte_ps: int, host_ps: Callable[[int], int] = lambda experts: 0, *, immediate: bool = False
    ) -> None:
        self.device = torch.device("cpu")
        self.is_immediate = immediate
        self.now_ps = 0
        self._byte_ps = byte_ps
        self._host_ps = host_ps
        self._compute, self._copies = Queue(), Queue()
        self._results_ps: list[int] = []
        self._takes_ps = 0

    # --- computing and copying ---

    def launch(self, work: Callable[[], None]) -> None:
        if self.is_immediate:
            self._takes_ps = 0
            work()
            self.host_works(self._takes_ps)
        else:
            self._compute.operations.append(("run", work))

    def busy(self, takes_ps: int) -> None:
        """What runs now takes so long."""
        self._takes_ps += takes_ps

    def mark(self) -> ScriptedMark:
        return self._marked(self._compute)

    def wait_for(self, mark: ScriptedMark) -> None:
        assert mark.passed or not self.is_immediate, "nothing that is launched waits"
        self._compute.operations.append(("wait", mark))

    def copy(self, destination: torch.Tensor, source: torch.Tensor, after: ScriptedMark | None) -> ScriptedMark:
        if after is not None:
            self._copies.operations.append(("wait", after))
        self._copies.operations.append(("run", lambda: self.busy(self._byte_ps * source.nbytes)))
        return self._marked(self._copies)

    def stamp(self) -> list[int]:
        stamped: list[int] = []
        self._compute.operations.append(("run", lambda: stamped.append(self.now_ps)))
        return stamped

    def seconds(self, begin: list[int], end: list[int]) -> float:
        return (end[0] - begin[0]) / 1e12

    # --- the host's processor ---

    def compute(self, experts: Sequence[Any]) -> "ScriptedResult":
        due_ps = self.now_ps + self._host_ps(len(experts))
        self._results_ps.append(due_ps)
        return ScriptedResult(self, due_ps)

    # --- the clock ---

    def perf_counter(self) -> float:
        return self.now_ps / 1e12

    def host_works(self, takes_ps: int) -> None:
        """For so long; it launches and looks at nothing meanwhile."""
        self.go_on()
        then_ps = self.now_ps + takes_ps
        while self.now_ps < then_ps:
            ends_ps = [queue.busy_until_ps for queue in (self._compute, self._copies)]
            self.now_ps = min([then_ps, *(end_ps for end_ps in ends_ps if end_ps > self.now_ps)])
            self.go_on()

    def sleep(self, seconds: float) -> None:
        """Until something ends."""
        self.go_on()
        ends_ps = [queue.busy_until_ps for queue in (self._compute, self._copies)]
        later_ps = [end_ps for end_ps in (*ends_ps, *self._results_ps) if end_ps > self.now_ps]
        assert later_ps, "the host waits, and nothing is left to end"
        self.now_ps = min(later_ps)
        self.go_on()

    def go_on(self) -> None:
        """Whatever can start now starts."""
        started = True
        while started:
            started = self._start(self._compute)
            started |= self._start(self._copies)

    def _start(self, queue: Queue) -> bool:
        started = False
        while queue.operations and queue.busy_until_ps <= self.now_ps:
            kind, what = queue.operations[0]
            if kind == "wait" and not what.passed:
                break
            queue.operations.popleft()
            started = True
            if kind == "run":
                self._takes_ps = 0
                what()
                queue.busy_until_ps = self.now_ps + self._takes_ps
            elif kind == "mark":
                what.passed = True
        return started

    def _marked(self, queue: Queue) -> ScriptedMark:
        mark = ScriptedMark(self)
        queue.operations.append(("mark", mark))
        return mark


class ScriptedResult:
    """Of the host's processor."""

    def __init__(self, device: ScriptedDevice, due_ps: int) -> None:
        self._device = device
        self._due_ps = due_ps

    def is_done(self) -> bool:
        return self._device.now_ps >= self._due_ps
