"""The prefetch engine: it works on one event at a time, in the order in which they were asked."""

from collections import deque

from perfmodel.engine.clock import NEVER, Clock

BEGIN = -1
"""In the place of a layer: the beginning of a step."""


class PrefetchEngine:
    """Events are (step, layer); what their answers say is the simulation's to tell."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_ps = 0  # of all answers so far asked for
        self._answers: deque[tuple[int, int, int]] = deque()

    @property
    def due_ps(self) -> int:
        """When the next answer comes."""
        return self._answers[0][0] if self._answers else NEVER

    def ask(self, step: int, layer: int, takes_ps: int) -> None:
        """It works on (step, layer) as soon as it is done with what was asked before, for ``takes_ps``."""
        self._last_ps = max(self._clock.now_ps, self._last_ps) + takes_ps
        self._answers.append((self._last_ps, step, layer))

    def answer(self) -> tuple[int, int]:
        """The event (step, layer) whose answer is due now."""
        due_ps, step, layer = self._answers.popleft()
        assert due_ps == self._clock.now_ps, "an answer came at another time than it was due"
        return step, layer
