"""Experts computed by the host's processor where they lie, by a thread beside the one that launches."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from queue import SimpleQueue

import torch

from gpu_reference.experts.compute import Kernel


class HostResult:
    """One layer's; ``done`` is set by the thread."""

    def __init__(self) -> None:
        self.done = False
        self.failure: Exception | None = None

    def is_done(self) -> bool:
        """Whether every output is written.

        Raises:
            RuntimeError: if computing failed.
        """
        if self.failure is not None:
            raise RuntimeError("the host could not compute an expert") from self.failure
        return self.done


class HostWorker:
    """One thread, which computes one layer's experts after the other.

    Args:
        kernel: an expert's, on the CPU.
        threads: that one matrix product uses; ``None``: as PyTorch does.
    """

    def __init__(self, kernel: Kernel, *, threads: int | None = None) -> None:
        self._kernel = kernel
        self._threads = threads
        self._jobs: SimpleQueue[tuple[Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], HostResult] | None]
        self._jobs = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="host experts", daemon=True)
        self._thread.start()

    def compute(self, experts: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> HostResult:
        """Begin with (block, rows, output) of each; the outputs are written in place."""
        result = HostResult()
        self._jobs.put((experts, result))
        return result

    def close(self) -> None:
        """Finish, and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        while (job := self._jobs.get()) is not None:
            experts, result = job
            try:
                with torch.inference_mode():
                    for block, rows, output in experts:
                        output.copy_(self._kernel(block, rows))
            except Exception as error:  # raised where the result is waited for
                result.failure = error
            result.done = True
