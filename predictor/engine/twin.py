"""The engine, cycle by cycle: what happens when, where no channel waits. The specification of the RTL.

Four parts act, each in its own time:

* the **front end** takes an event when it is offered, at least ``EVENT_INTERVAL`` cycles after the one before, and only
  where its queues have room for all that it may ask;
* the **predictor** takes one event after the other, and none while an answer of it waits; of several PREFETCHes of an
  event it begins each further one when the one before is taken;
* the **stager** takes a command whenever it is free, of those on offer the first by ``Source``; a command that makes n
  slots ready, or fails them, holds the next up by as many cycles, in which they are told;
* the **link** moves one transfer at a time. Before it asks for a chunk other than the first of a service it stops if a
  demand waits and what moves is not demanded, as the stager's last finished command left that; when what is under way
  is there it asks PREEMPT, and goes on, or is idle. Idle, it asks GRANT whenever the stager was told anything since the
  last GRANT that gave nothing.

What each command does is `decisions.Decisions`'s.
"""

from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from predictor.engine.commands import CommandKind, Done, Source, Urgent
from predictor.engine.counters import EngineCounter
from predictor.engine.cycles import (
    EVENT_INTERVAL,
    EXPERT_CYCLES,
    EXPIRE_CYCLES,
    EXPIRE_INTERVAL,
    FIRST_EXPERT_CYCLES,
    KNOWN_CYCLES,
    NOTICE_CYCLES,
    URGENT_CYCLES,
    fifo_depth,
)
from predictor.engine.decisions import Decisions
from predictor.engine.environment import NEVER, Environment
from predictor.engine.events import NO_ERROR, EngineError, EventArrays, Gate, Release, Token
from predictor.engine.front_end import FrontEnd
from predictor.engine.heads import Prefetch, Values
from predictor.engine.limits import PrefetchEngineLimits
from predictor.engine.notices import NoticeKind
from predictor.engine.predictors import EnginePredictor
from predictor.engine.settings import Mode, PrefetchEngineSettings
from predictor.engine.timing import LinkTiming, Service

_TOLD_AFTER = (NoticeKind.READY, NoticeKind.FAILED)


class EngineTwin:
    """One run of an engine; see the module's description.

    Args:
        limits, settings: of the engine.
        events: what it is told.
        environment: when.
        predictor: who predicts; ``None`` in mode ``OFF``.
        link_timing: of transfers.

    Attributes:
        decisions: the stager, what moves, who waits.
        errors: since the start.
        step_starts: the cycle in which each step's first TOKEN was taken.

    Raises:
        ForestageError: if the settings do not fit the limits.
    """

    def __init__(
        self,
        limits: PrefetchEngineLimits,
        settings: PrefetchEngineSettings,
        events: EventArrays,
        environment: Environment,
        *,
        predictor: EnginePredictor | None,
        link_timing: LinkTiming,
    ) -> None:
        self.decisions = Decisions(limits, settings)
        self.errors: EngineError = NO_ERROR
        self.step_starts: list[int] = []
        self._events = events
        self._environment = environment
        if (predictor is None) != (settings.mode is Mode.OFF):
            raise ValueError(f"mode {settings.mode.name}: a predictor is given where one predicts, and nowhere else")
        self._predictor = predictor
        self._link_timing = link_timing
        self._front_end = FrontEnd(limits, settings)
        self._depth = fifo_depth(limits.slots_max)
        # Each waiting entry with the cycle from which on it is offered.
        self._urgent: deque[tuple[int, Urgent]] = deque()
        self._known: deque[tuple[int, Token | Gate, int]] = deque()
        self._prefetches: deque[tuple[int, Prefetch]] = deque()
        self._values: deque[tuple[int, Values]] = deque()
        self._front_end_free = 0
        self._predictor_free = 0
        self._head_free = 0  # from when on the first of the known events is offered
        self._stager_free = 0
        self._link_request: tuple[int, Source] | None = None
        self._stop_check = NEVER  # the cycle in which the next chunk is asked for or not
        self._next_chunk = 0
        self._service = Service(0, (), ())
        self._told = False
        self._levels = self._levels_before = (False, False)
        self._levels_from = 0
        self._may_stop = self.decisions.chunks > 1
        self.counts: NDArray[np.int64] = self.decisions.counts

    # --- the host ---

    def preload(self, keys: NDArray[np.int64], experts: int, *, fixed: bool, asks: bool = False) -> None:
        """Before anything runs: these are resident, in this order.

        Args:
            keys: ``layer · experts + expert``.
            experts: of a layer.
            fixed: they never give way.
            asks: the link asks GRANT before any event; otherwise it has, and the stager had nothing to give then.
        """
        for key in keys.tolist():
            layer, expert = divmod(key, experts)
            self.decisions.stager.preload(layer, (expert,))
            if fixed:
                self.decisions.stager.fix(layer, (expert,), fixed=True)
        self._told = asks

    @property
    def counters(self) -> NDArray[np.int64]:
        """I64 by ``EngineCounter``, but for cycles that depend on how channels wait."""
        return self.decisions.counters()

    # --- the run ---

    def run(self, *, to_rest: bool = False) -> Iterator[Done]:
        """The stager's commands, in order, until the last event was taken and nothing is left to tell.

        With ``to_rest`` until nothing moves or waits either: never, where experts are loaded in the background.
        """
        environment = self._environment
        while True:
            accepts, takes, starts = self._accepts_at(), self._takes_at(), self._starts_at()
            first = min(accepts, takes, starts, self._stop_check)
            is_over = environment.is_over and not to_rest
            if first == NEVER or (is_over and first == starts and not self._is_owed):
                return
            if first == self._stop_check:
                self._ask_or_stop()
            elif first == accepts:
                self._accept(accepts)
            elif first == takes:
                self._predict(takes)
            else:
                yield self._command(starts)

    @property
    def _is_owed(self) -> bool:
        """Whether something is left that an event asked for."""
        return bool(self._urgent or self._known or self._prefetches or self._values)

    # --- the front end ---

    def _accepts_at(self) -> int:
        """When the next event is taken, by what is known."""
        offered = self._environment.offered
        if offered == NEVER or self._is_full:
            return NEVER
        return max(offered, self._front_end_free)

    @property
    def _is_full(self) -> bool:
        """Whether a queue may not hold all that an event asks for."""
        return len(self._urgent) > self._depth - 2 or len(self._known) >= self._depth

    def _leaves(self, now: int) -> None:
        """Something leaves a queue in the cycle ``now``; that there is room is seen in the next."""
        if self._is_full:
            self._front_end_free = max(self._front_end_free, now + 1)

    def _accept(self, now: int) -> None:
        event = self._events.at(self._environment.index)
        error, told = self._front_end.accept(event)
        self._environment.taken(now, rejected=bool(error))
        self.errors |= error
        counts = self.counts
        counts[EngineCounter.EVENTS] += 1
        counts[EngineCounter.REJECTED] += bool(error)
        self._front_end_free = now + EVENT_INTERVAL
        if error:
            return
        if len(told) > 1:
            self._front_end_free = now + EXPIRE_INTERVAL
        for one in told:
            wait = EXPIRE_CYCLES if one.kind is CommandKind.EXPIRE else URGENT_CYCLES
            self._urgent.append((now + wait, one))
        if isinstance(event, Release):
            return
        if isinstance(event, Token):
            counts[EngineCounter.TOKENS] += 1
            counts[EngineCounter.STEPS] += event.first
            if event.first:
                self.step_starts.append(now)
        else:
            counts[EngineCounter.GATES] += 1
        if self._predictor is not None:
            self._known.append((now + KNOWN_CYCLES, event, self._front_end.base))

    # --- the predictor ---

    def _takes_at(self) -> int:
        """When the predictor takes an event."""
        if not self._known or self._prefetches or self._values:
            return NEVER
        return max(self._known[0][0], self._predictor_free)

    def _predict(self, now: int) -> None:
        assert self._predictor is not None, "an event for nobody"
        self._leaves(now)
        since, event, base = self._known.popleft()
        offered, self._head_free = max(since, self._head_free), now + 1
        of = self._predictor
        tell = of.token if isinstance(event, Token) else of.gate
        predicted = tell(event, base, now, offered)  # type: ignore[arg-type]
        for wait, answer in predicted.answers:
            if isinstance(answer, Prefetch):
                self._prefetches.append((now + wait, answer))
            else:
                self._values.append((now + wait, answer))
        self._predictor_free = now + predicted.next

    # --- the stager ---

    def _starts_at(self) -> int:
        """When the stager takes a command, by what is known."""
        free, first = self._stager_free, NEVER
        for queue in (self._urgent, self._prefetches, self._values):
            if queue and queue[0][0] < first:
                first = queue[0][0]
        if self._link_request is not None:
            first = min(first, self._link_request[0])
        elif self.decisions.moving is None and self._told:
            first = free
        return max(free, first) if first < NEVER else NEVER

    def _command(self, now: int) -> Done:
        """The first of what is on offer."""
        decisions = self.decisions
        goes_on = False
        if self._link_request is not None and self._link_request[0] <= now:
            source = self._link_request[1]
            self._link_request = None
            if source is Source.PREEMPT:
                done, goes_on = decisions.preempt(self._next_chunk)
            else:
                done = decisions.arrive() if source is Source.ARRIVE else decisions.fail()
        elif self._urgent and self._urgent[0][0] <= now:
            self._leaves(now)
            done = decisions.urgent(self._urgent.popleft()[1])
        elif self._prefetches and self._prefetches[0][0] <= now:
            offered, answer = self._prefetches.popleft()
            done = decisions.prefetch(answer)
            if self._prefetches:
                self._delay_prefetches(now - offered)
            self._predictor_free = max(self._predictor_free, now + 1)
        elif self._values and self._values[0][0] <= now:
            done = decisions.set_values(self._values.popleft()[1])
            self._predictor_free = max(self._predictor_free, now + done.cycles)
        else:
            done = decisions.grant()
            self._told = done.transfer is not None
        done.start = now
        end = now + done.cycles
        self.counts[EngineCounter.STAGER_CYCLES] += done.cycles
        self._told |= done.kind is not CommandKind.GRANT
        if self._may_stop:
            self._levels_before, self._levels, self._levels_from = self._levels, decisions.stager.levels(), end
        self._stager_free = self._tell(done, end)
        if done.transfer is not None:
            self._serve(end, decisions.first_chunk)
        elif goes_on:
            self._serve(end, self._next_chunk)
        return done

    def _delay_prefetches(self, late: int) -> None:
        """The predictor begins each further PREFETCH of an event when the one before is taken, which was so late."""
        self._prefetches = deque((since + late, answer) for since, answer in self._prefetches)
        self._predictor_free += late

    def _tell(self, done: Done, end: int) -> int:
        """The environment is told the notices; when the stager may take the next command."""
        start = done.start
        for told in done.notices:
            if told.kind in _TOLD_AFTER:
                at = end
                end += 1
            elif told.kind is NoticeKind.ARRIVED:
                at = start
            else:
                at = start + FIRST_EXPERT_CYCLES + EXPERT_CYCLES * done.experts.index(told.expert)
            self._environment.notice(at + NOTICE_CYCLES, told)
        return end

    # --- the link ---

    def _serve(self, now: int, first: int) -> None:
        """A transfer starts or goes on with chunk ``first``, in the first cycle after the command."""
        moving = self.decisions.moving
        assert moving is not None, "nothing moves"
        self._service = self._link_timing.serve(now, moving.key, moving.place, first)
        self._prepare(first + 1)

    def _prepare(self, chunk: int) -> None:
        """What the link does next: ask for ``chunk`` or not; or it has asked for all, and tells that they are there."""
        service = self._service
        self._next_chunk = chunk
        if chunk < self.decisions.chunks:
            self._stop_check = service.asked[chunk - service.first - 1]
            return
        self._end_service(Source.ARRIVE)

    def _ask_or_stop(self) -> None:
        """The next chunk is asked for, or the link stops."""
        demand_waits, moves_demanded = self._levels if self._stop_check >= self._levels_from else self._levels_before
        if demand_waits and not moves_demanded:
            self._end_service(Source.PREEMPT)
        else:
            self._prepare(self._next_chunk + 1)

    def _end_service(self, source: Source) -> None:
        """The link asks for no more chunks, and tells the stager when those are there."""
        service, chunks = self._service, self._next_chunk
        self._stop_check = NEVER
        self._link_request = service.there[chunks - service.first - 1], source
        self._link_timing.end(service, chunks)
