"""The engine's decisions in an order that somebody else gives: what is compared where channels wait at random.

Random waits decide in which order independent parts come to the stager: whether a transfer arrives before a gate is
known, say. The twin cannot know that. So it is told which kind of command the stager was given next, and where a
transfer stopped, and says everything else itself: what the command named, what the stager did and told, what moves
where, and the counters. It refuses an order that no arbitration could have made. Times are not compared then; with no
waits `twin.EngineTwin` gives them too, and takes no order from anybody.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from predictor.engine.commands import CommandKind, Done, Urgent
from predictor.engine.counters import EngineCounter
from predictor.engine.decisions import Decisions
from predictor.engine.events import NO_ERROR, EngineError, EventArrays, Gate, Release, Token
from predictor.engine.front_end import FrontEnd
from predictor.engine.heads import Prefetch, Values
from predictor.engine.limits import PrefetchEngineLimits
from predictor.engine.predictors import EnginePredictor
from predictor.engine.settings import PrefetchEngineSettings

_URGENT = (CommandKind.DEMAND, CommandKind.EXPIRE, CommandKind.RELEASE)


class OutOfOrder(ValueError):
    """The order told is one that no engine could have."""


class EngineFollower:
    """See the module's description.

    Args:
        limits, settings: of the engine.
        events: what it is told.
        predictor: who predicts; ``None`` in mode ``OFF``.

    Attributes:
        decisions: the stager, what moves, who waits.
        errors: since the start.

    Raises:
        ForestageError: if the settings do not fit the limits.
    """

    def __init__(
        self,
        limits: PrefetchEngineLimits,
        settings: PrefetchEngineSettings,
        events: EventArrays,
        *,
        predictor: EnginePredictor | None,
    ) -> None:
        self.decisions = Decisions(limits, settings)
        self.errors: EngineError = NO_ERROR
        self._events = events
        self._next = 0
        self._predictor = predictor
        self._front_end = FrontEnd(limits, settings)
        self._urgent: deque[Urgent] = deque()
        self._known: deque[tuple[Token | Gate, int]] = deque()
        self._prefetches: deque[Prefetch] = deque()
        self._values: deque[Values] = deque()

    @property
    def counters(self) -> NDArray[np.int64]:
        """I64 by ``EngineCounter``, but for cycles."""
        return self.decisions.counters()

    def preload(self, layer: int, expert: int) -> None:
        """Before anything runs: it is resident."""
        self.decisions.stager.preload(layer, (expert,))

    def fix(self, layer: int, expert: int, *, fixed: bool) -> None:
        """It never gives way, or may again."""
        self.decisions.stager.fix(layer, (expert,), fixed=fixed)

    def follow(self, kind: CommandKind, *, chunk: int = 0) -> Done:
        """The stager was given a command of this kind; of PREEMPT so many chunks of the transfer were there.

        Raises:
            OutOfOrder: if it cannot have been.
        """
        decisions = self.decisions
        if kind in _URGENT:
            return decisions.urgent(self._next_urgent(kind))
        if kind is CommandKind.PREFETCH or kind is CommandKind.SET_VALUES:
            return self._answer(kind)
        if (decisions.moving is None) != (kind is CommandKind.GRANT):
            moves = "nothing moves" if decisions.moving is None else "something moves"
            raise OutOfOrder(f"{kind.value}: {moves}")
        if kind is CommandKind.GRANT:
            return decisions.grant()
        if kind is CommandKind.ARRIVE:
            return decisions.arrive()
        if kind is CommandKind.FAIL:
            return decisions.fail()
        if kind is not CommandKind.PREEMPT:
            raise OutOfOrder(f"{kind.value}: the host's commands are told by 'preload' and 'fix'")
        demand_waits, moves_demanded = decisions.stager.levels()
        if not demand_waits or moves_demanded:
            raise OutOfOrder("preempt: no demand waits, or what moves is one")
        if not decisions.first_chunk < chunk < self._chunks:
            raise OutOfOrder(f"preempt: at chunk {chunk} of {self._chunks}, from {decisions.first_chunk} on")
        return decisions.preempt(chunk)[0]

    def finish(self) -> None:
        """The stager was given nothing more, and all events were taken.

        Raises:
            OutOfOrder: if something is left that it had to be given.
        """
        while self._next < self._events.size:
            self._take()
        while self._known:
            self._predict()
        for left, what in (
            (self._urgent, "urgent commands"),
            (self._prefetches, "predictions"),
            (self._values, "values"),
        ):
            if left:
                raise OutOfOrder(f"finish: {len(left)} {what} were never given to the stager")

    @property
    def _chunks(self) -> int:
        return self.decisions.chunks

    def _next_urgent(self, kind: CommandKind) -> Urgent:
        while not self._urgent:
            if self._next == self._events.size:
                raise OutOfOrder(f"{kind.value}: no event is left that asks for it")
            self._take()
        told = self._urgent.popleft()
        if told.kind is not kind:
            raise OutOfOrder(f"{kind.value}: what comes next in the order of the events is {told.kind.value}")
        return told

    def _answer(self, kind: CommandKind) -> Done:
        queue: deque[Prefetch] | deque[Values] = self._prefetches if kind is CommandKind.PREFETCH else self._values
        while not queue:
            if not self._known and not self._next_is_token():
                raise OutOfOrder(f"{kind.value}: no event that was taken says so")
            if not self._known:
                self._take()
            else:
                self._predict()
        if self._urgent:
            raise OutOfOrder(f"{kind.value}: {self._urgent[0].kind.value} waited, and comes first")
        if kind is CommandKind.PREFETCH:
            return self.decisions.prefetch(self._prefetches.popleft())
        if self._prefetches:
            raise OutOfOrder(f"{kind.value}: the prediction of the same event comes first")
        return self.decisions.set_values(self._values.popleft())

    def _next_is_token(self) -> bool:
        """Whether the next event tells the stager nothing, so that its answer may come first."""
        return self._next < self._events.size and isinstance(self._events.at(self._next), Token)

    def _take(self) -> None:
        event = self._events.at(self._next)
        self._next += 1
        error, told = self._front_end.accept(event)
        self.errors |= error
        self._urgent.extend(told)
        counts = self.decisions.counts
        counts[EngineCounter.EVENTS] += 1
        counts[EngineCounter.REJECTED] += bool(error)
        if error or isinstance(event, Release):
            return
        if isinstance(event, Token):
            counts[EngineCounter.TOKENS] += 1
            counts[EngineCounter.STEPS] += event.first
        else:
            counts[EngineCounter.GATES] += 1
        if self._predictor is not None:
            self._known.append((event, self._front_end.base))

    def _predict(self) -> None:
        assert self._predictor is not None, "an event for nobody"
        event, base = self._known.popleft()
        of = self._predictor
        predicted = of.token(event, base) if isinstance(event, Token) else of.gate(event, base)
        for _, answer in predicted.answers:
            if isinstance(answer, Prefetch):
                self._prefetches.append(answer)
            else:
                self._values.append(answer)
