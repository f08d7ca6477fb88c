"""The device: one kernel at a time, none is stopped; its time is charged to the parts of a step."""

from dataclasses import dataclass

from perfmodel.engine.clock import NEVER, Clock
from perfmodel.run import Parts


@dataclass(frozen=True)
class Kernel:
    """How long it takes, and for how much of that its operations alone would."""

    takes_ps: int
    compute_ps: int


class Device:
    """Charges all time: a kernel's when it starts, idle time when it ends.

    Attributes:
        due_ps: when the kernel that runs ends; ``NEVER`` while idle.
    """

    def __init__(self, clock: Clock, parts: Parts) -> None:
        self._clock = clock
        self._parts = parts
        self._idle_since_ps = 0
        self.due_ps = NEVER

    @property
    def is_idle(self) -> bool:
        """Whether no kernel runs."""
        return self.due_ps == NEVER

    def start(self, kernel: Kernel) -> None:
        """Run a kernel, in the instant in which the device became idle or the idle time was charged."""
        assert self.is_idle, "one kernel at a time"
        assert self._idle_since_ps == self._clock.now_ps, "idle time was not charged"
        assert 0 <= kernel.compute_ps <= kernel.takes_ps, "a kernel takes at least as long as its operations"
        self._parts.compute += kernel.compute_ps
        self._parts.hbm += kernel.takes_ps - kernel.compute_ps
        self.due_ps = self._clock.now_ps + kernel.takes_ps

    def end(self) -> None:
        """The kernel has ended."""
        assert self.due_ps == self._clock.now_ps, "a kernel ends when it is due"
        self._idle_since_ps = self._clock.now_ps
        self.due_ps = NEVER

    def charge_arrival(self, *, late: bool) -> None:
        """The idle time until now was for an expert that has arrived (``late``: queued or moving at its gate)."""
        if late:
            self._parts.late_wait += self._idle_ps()
        else:
            self._parts.demand_wait += self._idle_ps()

    def charge_host(self) -> None:
        """The idle time until now was for the host's result."""
        self._parts.host_wait += self._idle_ps()

    def _idle_ps(self) -> int:
        """Time idle so far, which counts from now on anew."""
        assert self.is_idle, "nothing is charged while a kernel runs"
        idle_ps = self._clock.now_ps - self._idle_since_ps
        self._idle_since_ps = self._clock.now_ps
        return idle_ps
