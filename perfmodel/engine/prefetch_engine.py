"""The prefetch engine: it works on one event at a time, in the order in which they were asked."""

from collections import deque
from enum import Enum

from perfmodel.engine.clock import NEVER, Clock

BEGIN = -1
"""In the place of a layer: the beginning of a step."""


class Answer(Enum):
    """What an event says; of two that are due at once, values come first."""

    VALUES = "values"
    PREDICTIONS = "predictions"


class PrefetchEngine:
    """Events are (step, layer); what their answers say is the simulation's to tell."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_ps = 0  # of all answers so far asked for
        self._answers: deque[tuple[int, int, int, Answer]] = deque()

    @property
    def due_ps(self) -> int:
        """When the next answer comes."""
        return self._answers[0][0] if self._answers else NEVER

    def ask(self, step: int, layer: int, takes_ps: dict[Answer, int]) -> None:
        """It works on (step, layer) as soon as it has answered what was asked before; each answer takes so long."""
        begins_ps = max(self._clock.now_ps, self._last_ps)
        for answer in sorted(takes_ps, key=lambda answer: (takes_ps[answer], answer is not Answer.VALUES)):
            self._last_ps = begins_ps + takes_ps[answer]
            self._answers.append((self._last_ps, step, layer, answer))

    def answer(self) -> tuple[int, int, Answer]:
        """The event (step, layer) whose answer is due now, and which."""
        due_ps, step, layer, answer = self._answers.popleft()
        assert due_ps == self._clock.now_ps, "an answer came at another time than it was due"
        return step, layer, answer
