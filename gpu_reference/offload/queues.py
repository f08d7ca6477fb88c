"""The device's queue of computing: work is launched in order, runs later, and marks say how far it has come.

On a GPU this is a CUDA stream. On a CPU work runs when it is launched. What the host knows of the device it knows by
marks alone, so a queue that runs its work at any legal time (as the tests' does) shows whether a wait is missing.
"""

import os
import select
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch


def let_others_run() -> None:
    """Let other Python threads go on, and come back at once: for loops that look again and again.

    ``time.sleep(0)`` comes back after 50 µs and more on Linux, from Python 3.11 on (python/cpython, issue 125997).
    """
    if os.name == "posix":
        select.select((), (), (), 0)
    else:
        time.sleep(0)


def bring(destination: torch.Tensor, source: torch.Tensor) -> None:
    """Copy between a device and (on a GPU, pinned) host memory as work of a queue: the host does not wait."""
    destination.copy_(source, non_blocking=True)


class Mark(Protocol):
    """A point in a queue, of computing or of copies."""

    def is_reached(self) -> bool:
        """Whether everything before it is done."""

    def may_be_awaited(self) -> bool:
        """Whether device work that waits for it may be launched now, without the host waiting."""


class ComputeQueue(Protocol):
    """See the module's description.

    Attributes:
        device: where its work runs.
    """

    device: torch.device

    def launch(self, work: Callable[[], None]) -> None:
        """Append ``work``, which computes with the device's tensors."""

    def mark(self) -> Mark:
        """The point after all that was launched."""

    def wait_for(self, mark: Mark) -> None:
        """What is launched from now on runs once ``mark``, of the other queue, is reached."""

    def stamp(self) -> Any:
        """The time at which the queue gets here; see ``seconds``."""

    def seconds(self, begin: Any, end: Any) -> float:
        """Between two stamps that are reached."""


class Reached:
    """A mark of work that is done."""

    def is_reached(self) -> bool:
        """Always."""
        return True

    def may_be_awaited(self) -> bool:
        """Always."""
        return True


REACHED = Reached()


class ImmediateQueue:
    """A CPU's: work runs when it is launched."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def launch(self, work: Callable[[], None]) -> None:
        """Run ``work``."""
        work()

    def mark(self) -> Mark:
        """Reached."""
        return REACHED

    def wait_for(self, mark: Mark) -> None:
        """Wait on the host."""
        while not mark.is_reached():
            let_others_run()

    def stamp(self) -> float:
        """The host's clock."""
        return time.perf_counter()

    def seconds(self, begin: Any, end: Any) -> float:
        """Of the host's clock."""
        return float(end - begin)


class CudaMark:
    """A CUDA event."""

    def __init__(self, event: torch.cuda.Event) -> None:
        self.event = event

    def is_reached(self) -> bool:
        """Ask the driver; does not wait."""
        return bool(self.event.query())

    def may_be_awaited(self) -> bool:
        """A stream waits for an event without the host."""
        return True


class CudaQueue:
    """The stream that is current when this is made; all work must be launched while it is the current one."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.current_stream(device)

    def launch(self, work: Callable[[], None]) -> None:
        """Launch the kernels of ``work``."""
        work()

    def mark(self) -> Mark:
        """An event without timing."""
        event = torch.cuda.Event()
        event.record(self._stream)
        return CudaMark(event)

    def wait_for(self, mark: Mark) -> None:
        """The stream waits, the host does not."""
        self._stream.wait_event(event_of(mark))

    def stamp(self) -> torch.cuda.Event:
        """An event with timing."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(self._stream)
        return event

    def seconds(self, begin: Any, end: Any) -> float:
        """By the device's clock."""
        return float(begin.elapsed_time(end)) / 1e3


def event_of(mark: Mark) -> torch.cuda.Event:
    """The CUDA event of a mark.

    Raises:
        TypeError: if it is not of a CUDA stream.
    """
    inner = getattr(mark, "inner", mark)
    if not isinstance(inner, CudaMark):
        raise TypeError(f"a CUDA stream cannot wait for a {type(mark).__name__}")
    return inner.event


def compute_queue(device: torch.device) -> ComputeQueue:
    """The queue of ``device``."""
    return CudaQueue(device) if device.type == "cuda" else ImmediateQueue()
