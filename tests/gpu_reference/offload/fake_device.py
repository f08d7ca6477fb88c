"""A device whose two queues run at any legal time: what a missing wait spoils becomes wrong bytes here.

Work in a queue runs in order, and a wait in it holds the queue up until the other queue has reached the mark; nothing
else orders the two. The host learns of progress by marks alone, and each time it asks, some more may have run.
"""

import random
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import torch

Mode = Literal["random", "compute first", "copies first"]
MODES: tuple[Mode, ...] = ("random", "compute first", "copies first")


class FakeMark:
    """A point in one of the queues."""

    def __init__(self, device: "FakeDevice") -> None:
        self.reached = False
        self._device = device

    def is_reached(self) -> bool:
        self._device.advance()
        return self.reached

    def may_be_awaited(self) -> bool:
        return True


Operation = tuple[str, Any]


class FakeDevice:
    """Both queues, as the runtime sees them: a ``ComputeQueue`` and a ``Copier`` in one.

    ``mode`` says which of two legal operations runs first; "compute first" shows kernels that do not wait for a copy,
    "copies first" copies that do not wait for kernels.
    """

    def __init__(self, seed: int, mode: Mode) -> None:
        self.device = torch.device("cpu")
        self._random = random.Random(seed)
        self._mode = mode
        self._compute: deque[Operation] = deque()
        self._copies: deque[Operation] = deque()
        self._time_s = 0.0

    # --- what is launched ---

    def launch(self, work: Callable[[], None]) -> None:
        self._compute.append(("run", work))

    def mark(self) -> FakeMark:
        return self._append_mark(self._compute)

    def wait_for(self, mark: FakeMark) -> None:
        self._compute.append(("wait", mark))

    def copy(self, destination: torch.Tensor, source: torch.Tensor, after: FakeMark | None) -> FakeMark:
        if after is not None:
            self._copies.append(("wait", after))
        self._copies.append(("run", lambda: destination.copy_(source)))
        return self._append_mark(self._copies)

    def stamp(self) -> list[float]:
        stamped: list[float] = []
        self._compute.append(("run", lambda: stamped.append(self._time_s)))
        return stamped

    def seconds(self, begin: list[float], end: list[float]) -> float:
        return end[0] - begin[0]

    def close(self) -> None:
        self.drain()

    # --- what runs ---

    def drain(self) -> None:
        """Run everything."""
        while self._step():
            pass
        assert not self._compute, "the queues wait for each other"
        assert not self._copies, "the queues wait for each other"

    def advance(self) -> None:
        """Some more runs: at least one operation, so that who asks again and again is answered at last."""
        for _ in range(self._random.choice((1, 1, 2, 5)) if self._mode == "random" else 1):
            self._step()

    def _step(self) -> bool:
        """Run one operation, if one can run."""
        order = [self._compute, self._copies]
        if self._mode == "random":
            self._random.shuffle(order)
        elif self._mode == "copies first":
            order.reverse()
        for queue in order:
            if queue and not (queue[0][0] == "wait" and not queue[0][1].reached):
                kind, what = queue.popleft()
                self._time_s += 1e-6
                if kind == "run":
                    what()
                elif kind == "mark":
                    what.reached = True
                return True
        return False

    def _append_mark(self, queue: deque[Operation]) -> FakeMark:
        mark = FakeMark(self)
        queue.append(("mark", mark))
        return mark
