"""Time work on a device: by its own events, or by the host's clock."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from catalog.errors import ForestageError
from gpu_reference.records.summary import Summary

Work = Callable[[int], object]
"""Launches the n-th piece of all runs together; it need not wait for it."""

FIRST_SLEEP_CYCLES = 100_000
MOST_SLEEP_CYCLES = 200_000_000
"""About 0.1 s: nothing that is measured takes longer to launch."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long one figure is measured.

    Attributes:
        warm_runs: runs before, not counted.
        least_runs, most_runs: runs that are counted; no more begin once ``most_s`` have passed.
        most_s: see there.
    """

    warm_runs: int
    least_runs: int
    most_runs: int
    most_s: float


class Clock:
    """Times work on one device.

    Attributes:
        device: where the work runs.
        effort: how often.
    """

    def __init__(self, device: str, effort: Effort) -> None:
        self.device = torch.device(device)
        self.effort = effort
        self._pieces = 0

    @property
    def on_cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def synchronise(self) -> None:
        """Wait until the device has done everything."""
        if self.on_cuda:
            torch.cuda.synchronize(self.device)

    def by_host(self, work: Work, queued: int = 1) -> Summary:
        """Time of one of ``queued`` pieces, from the first launch until the device is done, by the host's clock, s."""

        def run() -> float:
            self.synchronise()
            started = time.perf_counter()
            self._launch(work, queued)
            self.synchronise()
            return time.perf_counter() - started

        return self._summary(run, queued)

    def by_device(self, work: Work, queued: int) -> Summary:
        """Time of one of ``queued`` pieces by the device's events, s; what launching takes is not in it.

        The device sleeps first, so that all is queued before the first piece begins; a run in which it woke too early
        is repeated with a longer sleep.

        Raises:
            ForestageError: on a CPU, which has no events; and where the work waits for the device, so that it cannot be
                queued.
        """
        if not self.on_cuda:
            raise ForestageError("clock: a CPU has no events; take the host's clock")
        cycles = FIRST_SLEEP_CYCLES
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

        def run() -> float:
            nonlocal cycles
            while True:
                self.synchronise()
                torch.cuda._sleep(cycles)
                begin.record()
                self._launch(work, queued)
                end.record()
                in_time = not begin.query()
                end.synchronize()
                if in_time:
                    return float(begin.elapsed_time(end)) / 1e3
                cycles *= 2
                if cycles > MOST_SLEEP_CYCLES:
                    raise ForestageError(
                        f"clock: {queued} pieces cannot be queued ahead of the device; take fewer, or the host's clock"
                    )

        return self._summary(run, queued)

    def _launch(self, work: Work, queued: int) -> None:
        for _ in range(queued):
            work(self._pieces)
            self._pieces += 1

    def _summary(self, run: Callable[[], float], queued: int) -> Summary:
        effort = self.effort
        self._pieces = 0
        for _ in range(effort.warm_runs):
            run()
        times: list[float] = []
        started = time.perf_counter()
        while len(times) < effort.least_runs or (
            len(times) < effort.most_runs and time.perf_counter() - started < effort.most_s
        ):
            times.append(run() / queued)
        return Summary.of(times)


def each_time(work: Callable[[], object]) -> Work:
    """Pieces that are all the same."""
    return lambda _: work()
