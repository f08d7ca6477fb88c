"""Copies from host memory to the device, one after the other, beside the computing."""

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

import torch

from catalog.errors import SettingError
from gpu_reference.offload.queues import CudaMark, Mark, event_of


class Copier(Protocol):
    """A queue of copies; they run in the order in which they were asked for."""

    def copy(self, destination: torch.Tensor, source: torch.Tensor, after: Mark | None) -> Mark:
        """Append a copy of ``source`` (host) into ``destination`` (device), bytes of one length.

        Args:
            destination, source: contiguous.
            after: of the computing queue; the copy begins once it is reached. ``None``: at once.

        Returns:
            the point after this copy.
        """

    def close(self) -> None:
        """Finish what was asked for, and end."""


class CudaCopier:
    """A side stream of high priority; sources are pinned, so that the host does not wait."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device, priority=-1)

    def copy(self, destination: torch.Tensor, source: torch.Tensor, after: Mark | None) -> Mark:
        """See `Copier`."""
        if after is not None:
            self._stream.wait_event(event_of(after))
        with torch.cuda.stream(self._stream):
            destination.copy_(source, non_blocking=True)
        event = torch.cuda.Event()
        event.record(self._stream)
        return CudaMark(event)

    def close(self) -> None:
        """Wait for the stream."""
        self._stream.synchronize()


class ThreadMark:
    """Set by the thread that copies."""

    __slots__ = ("done", "failure")

    def __init__(self) -> None:
        self.done = False
        self.failure: BaseException | None = None

    def is_reached(self) -> bool:
        """Whether the copy is complete.

        Raises:
            RuntimeError: if it failed.
        """
        if self.failure is not None:
            raise RuntimeError("a copy from host memory failed") from self.failure
        return self.done

    def may_be_awaited(self) -> bool:
        """A CPU runs what is launched at once, so only when complete."""
        return self.is_reached()


class ThreadCopier:
    """A CPU's: one thread copies.

    ``after`` is not looked at: a CPU's computing is done when it is launched.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[torch.Tensor, torch.Tensor, ThreadMark] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="expert copies", daemon=True)
        self._thread.start()

    def copy(self, destination: torch.Tensor, source: torch.Tensor, after: Mark | None) -> Mark:
        """See `Copier`."""
        mark = ThreadMark()
        self._jobs.put((destination, source, mark))
        return mark

    def close(self) -> None:
        """See `Copier`."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            destination, source, mark = job
            try:
                self._one(destination, source)
            except Exception as error:  # raised where somebody waits for it
                mark.failure = error
            mark.done = True

    def _one(self, destination: torch.Tensor, source: torch.Tensor) -> None:
        destination.copy_(source)


class ThrottledMark:
    """Reached no earlier than a rate allows."""

    __slots__ = ("_clock", "_due_s", "inner")

    def __init__(self, inner: Mark, due_s: float, clock: Callable[[], float]) -> None:
        self.inner = inner
        self._due_s = due_s
        self._clock = clock

    def is_reached(self) -> bool:
        """The copy is complete, and its time has passed."""
        return self._clock() >= self._due_s and self.inner.is_reached()

    def may_be_awaited(self) -> bool:
        """The host waits for the time, the device at most for the copy."""
        return self._clock() >= self._due_s and self.inner.may_be_awaited()


class ThrottledCopier:
    """A slower link: bytes pass one after the other, no faster than ``gb_per_s`` · 10⁹ a second.

    Args:
        copier: that copies.
        gb_per_s: of the slower link.
        clock: in seconds.

    Raises:
        SettingError: for a rate that is not positive.
    """

    def __init__(self, copier: Copier, gb_per_s: float, *, clock: Callable[[], float] = time.perf_counter) -> None:
        if not 0 < gb_per_s < float("inf"):
            raise SettingError("link_gb_per_s", "give a rate above 0", value=gb_per_s)
        self._copier = copier
        self._bytes_per_s = gb_per_s * 1e9
        self._clock = clock
        self._free_s = 0.0

    def copy(self, destination: torch.Tensor, source: torch.Tensor, after: Mark | None) -> Mark:
        """See `Copier`."""
        self._free_s = max(self._free_s, self._clock()) + source.nbytes / self._bytes_per_s
        return ThrottledMark(self._copier.copy(destination, source, after), self._free_s, self._clock)

    def close(self) -> None:
        """See `Copier`."""
        self._copier.close()


def copier_of(device: torch.device, *, throttle_gb_per_s: float | None = None) -> Copier:
    """The copier of ``device``, on a link that is no faster than ``throttle_gb_per_s``.

    Raises:
        SettingError: for a rate that is not positive.
    """
    copier: Copier = CudaCopier(device) if device.type == "cuda" else ThreadCopier()
    return copier if throttle_gb_per_s is None else ThrottledCopier(copier, throttle_gb_per_s)
