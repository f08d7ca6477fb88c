"""Copies to the device that go on without a pause while something else is timed."""

import threading
import time
from itertools import pairwise
from types import TracebackType
from typing import Self

import numpy as np
import torch

from gpu_reference.measuring.bench import Bench
from gpu_reference.measuring.copies import MIB, POOL_BYTES, random_bytes

COPY_BYTES = 16 * MIB
IN_FLIGHT = 3
"""Copies that are queued at once on a GPU, so that the link never waits for the host."""


class BackgroundCopies:
    """A context in which a thread keeps the link busy: on a GPU from pinned memory on a stream of its own, on a CPU
    within memory.

    Attributes:
        times_s: how long each copy of `COPY_BYTES` took that ended in the context; on a GPU by its events.
    """

    def __init__(self, bench: Bench) -> None:
        self.times_s: list[float] = []
        self._bench = bench
        self._source = random_bytes(bench, POOL_BYTES[bench.suite], "cpu", pinned=bench.on_cuda)
        self._there = torch.zeros(COPY_BYTES, dtype=torch.uint8, device=bench.device)
        self._stop = threading.Event()
        self._running = threading.Event()
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self.times_s.clear()
        self._stop.clear()
        self._running.clear()
        self._thread = threading.Thread(target=self._work, name="background copies", daemon=True)
        self._thread.start()
        self._running.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is not None and error is None:
            raise RuntimeError("the copies in the background failed") from self._failure

    def _work(self) -> None:
        try:
            if self._bench.on_cuda:
                self._on_stream()
            else:
                self._in_memory()
        except Exception as error:
            self._failure = error
        finally:
            self._running.set()

    def _piece(self, number: int) -> torch.Tensor:
        at = number % (len(self._source) // COPY_BYTES) * COPY_BYTES
        return self._source[at : at + COPY_BYTES]

    def _on_stream(self) -> None:
        torch.cuda.set_device(self._there.device)
        stream = torch.cuda.Stream()
        ends: list[torch.cuda.Event] = []
        while not self._stop.is_set():
            event = torch.cuda.Event(enable_timing=True)
            with torch.cuda.stream(stream):
                self._there.copy_(self._piece(len(ends)), non_blocking=True)
                event.record()
            ends.append(event)
            if len(ends) > IN_FLIGHT:
                ends[-1 - IN_FLIGHT].synchronize()
                self._running.set()
        stream.synchronize()
        self.times_s += [before.elapsed_time(after) / 1e3 for before, after in pairwise(ends)]

    def _in_memory(self) -> None:
        there = self._there.numpy()
        number = 0
        while not self._stop.is_set():
            started = time.perf_counter()
            np.copyto(there, self._piece(number).numpy())  # one thread, and it lets other Python threads run
            self.times_s.append(time.perf_counter() - started)
            number += 1
            self._running.set()
