"""A model of whoever runs the layers: when it tells the engine each event.

Events are told strictly in order, each as soon as it may and the engine takes it:

* the first TOKEN of a step, ``token_cycles`` after the last RELEASE was taken;
* the first GATE of a layer, ``before_gate_cycles`` after the last TOKEN or RELEASE was taken;
* the first RELEASE of a layer, ``layer_cycles`` after every gate is READY and each expert has run for
  ``expert_cycles``, one after the other in the order in which they were there (HERE, and ARRIVED where wanted);
* further events of the same group, when the one before was taken.

Every wait is a cycle at least; the very first TOKEN is offered at once.
"""

from pydantic import Field

from catalog.config import StrictModel
from predictor.engine.events import EventArrays, EventKind
from predictor.engine.notices import Notice, NoticeKind

NEVER = 1 << 62


class LayerTimes(StrictModel):
    """How long whoever runs the layers takes; see the module's description."""

    token_cycles: int = Field(default=1, ge=1)
    before_gate_cycles: int = Field(default=1, ge=1)
    expert_cycles: int = Field(default=0, ge=0)
    layer_cycles: int = Field(default=0, ge=0)


class Environment:
    """See the module's description.

    Args:
        events: to be told.
        times: how long things take.

    Attributes:
        index: of the next event.
        offered: the cycle from which on it is offered; ``NEVER``: not before something is noticed, or there is none.
    """

    def __init__(self, events: EventArrays, times: LayerTimes) -> None:
        self._kinds: list[int] = events.kind.tolist()
        self._firsts: list[bool] = events.first.tolist()
        self._times = times
        self._last = -1  # the cycle in which the event before was taken
        self._gates = 0  # that are not READY
        self._ready = -1
        self._work_until = -1
        self._awaited: set[tuple[int, int]] = set()
        self.index = 0
        self.offered = self._offer()

    @property
    def is_over(self) -> bool:
        """Whether every event was taken."""
        return self.index == len(self._kinds)

    def _offer(self) -> int:
        """``offered``, by what is known."""
        if self.index == len(self._kinds):
            return NEVER
        times, kind = self._times, self._kinds[self.index]
        if not self._firsts[self.index]:
            return self._last + 1
        if kind == EventKind.TOKEN:
            return self._last + times.token_cycles if self.index else 0
        if kind == EventKind.GATE:
            return self._last + times.before_gate_cycles
        if self._gates:
            return NEVER
        run = max(self._ready, self._work_until) + times.layer_cycles
        return max(self._last + 1, self._ready + 1, run)

    def taken(self, cycle: int, *, rejected: bool) -> None:
        """The engine took the next event; a rejected gate is not waited for."""
        if self._kinds[self.index] == EventKind.GATE and not rejected:
            self._gates += 1
        self._last = cycle
        self.index += 1
        self.offered = self._offer()

    def notice(self, cycle: int, told: Notice) -> None:
        """A notice is taken in ``cycle``."""
        if told.kind is NoticeKind.READY:
            self._gates -= 1
            self._ready = cycle
            self.offered = self._offer()
        elif told.kind is NoticeKind.HERE or told.wanted:
            self._work_until = max(cycle, self._work_until) + self._times.expert_cycles
            self.offered = self._offer()
