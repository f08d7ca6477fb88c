"""What the engine decides: the stager's commands in a given order, with all that follows from them but times."""

import numpy as np
from numpy.typing import NDArray

from predictor.engine.commands import CommandKind, Done, Urgent
from predictor.engine.counters import EngineCounter
from predictor.engine.heads import Prefetch, Values
from predictor.engine.limits import PrefetchEngineLimits
from predictor.engine.outstanding import Outstanding
from predictor.engine.settings import Missing, PrefetchEngineSettings
from predictor.engine.stager_port import StagerPort
from staging.stager.answers import Kind, Transfer, Why
from staging.stager.directory import NO_PLACE


class Decisions:
    """The stager, what moves, and who waits.

    Args:
        limits, settings: of the engine; they fit.

    Attributes:
        stager: its own.
        outstanding: who waits.
        moving: the transfer under way.
        first_chunk: from which on it moves.
        kept: by key, chunks that a paused transfer has already, and whether it began for a demand.
        counts: i64 by ``EngineCounter``, those that do not come from elsewhere.
    """

    def __init__(self, limits: PrefetchEngineLimits, settings: PrefetchEngineSettings) -> None:
        settings.check(limits)
        self._settings = settings
        self._resident_only = settings.missing is Missing.ELSEWHERE
        self._landing = limits.places + limits.spare
        self._experts = settings.experts
        self.stager = StagerPort(settings.stager_limits(limits), settings.stager)
        self.outstanding = Outstanding(limits.slots_max, settings.experts)
        self.moving: Transfer | None = None
        self.first_chunk = 0
        self._for_demand = False
        self.kept: dict[int, tuple[int, bool]] = {}
        self.counts: NDArray[np.int64] = np.zeros(len(EngineCounter), np.int64)

    def urgent(self, told: Urgent) -> Done:
        """A command of the front end."""
        stager, kind = self.stager, told.kind
        done = Done(kind, told.slot, told.layer, told.experts, deadline=told.deadline)
        if kind is CommandKind.DEMAND:
            stager.demand(told.layer, told.experts, resident_only=self._resident_only)
            self._heed(done)
            places = [self._place(of.key) for of in done.actions]
            done.notices = self.outstanding.demand(told.slot, told.layer, done.actions, places)
            return done
        if kind is CommandKind.RELEASE:
            done.experts = self.outstanding.release(told.slot)
            stager.release(told.layer, done.experts)
        else:
            stager.expire(told.deadline)
        self._heed(done)
        return done

    def prefetch(self, answer: Prefetch) -> Done:
        """A prediction."""
        done = Done(CommandKind.PREFETCH, 0, answer.layer, answer.experts, answer.chances, deadline=answer.deadline)
        self.stager.prefetch(answer.layer, answer.experts, answer.chances, answer.deadline)
        self.counts[EngineCounter.PREDICTIONS] += 1
        self.counts[EngineCounter.ISSUED] += len(answer.experts)
        self._heed(done)
        return done

    def set_values(self, answer: Values) -> Done:
        """A layer's values."""
        done = Done(CommandKind.SET_VALUES, 0, answer.layer, values=answer.values)
        self.stager.set_values(answer.layer, answer.values)
        self.counts[EngineCounter.VALUES] += 1
        self._heed(done)
        return done

    def grant(self) -> Done:
        """The link is idle; ``moving`` is what starts, if anything does."""
        assert self.moving is None, "the link moves something"
        done = Done(CommandKind.GRANT)
        transfer = self.stager.grant()
        self._heed(done)
        if transfer is not None:
            place = self._landing if transfer.place == NO_PLACE else transfer.place
            done.transfer = Transfer(0, transfer.key, place, transfer.victim, transfer.demanded)
            self.moving = done.transfer
            kept = self.kept.pop(transfer.key, None)
            if kept is None:
                kept = 0, transfer.demanded
                self.counts[EngineCounter.LOADS_DEMANDED] += transfer.demanded
            self.first_chunk, self._for_demand = kept
        return done

    def preempt(self, chunk: int) -> tuple[Done, bool]:
        """What moves has stopped with so many chunks passed; whether it goes on.

        Without a place of its own it begins anew when its turn comes: another may land where its chunks are.
        """
        assert self.moving is not None, "nothing moves"
        key, done = self.moving.key, Done(CommandKind.PREEMPT)
        lands = self.moving.place == self._landing
        goes_on = self.stager.preempt()
        if not goes_on:
            self._count_bytes(chunk)
            self.moving = None
            self.kept[key] = 0 if lands else chunk, self._for_demand
        self._heed(done)  # given up at once: then also this one
        return done, goes_on

    @property
    def chunks(self) -> int:
        """Of a transfer."""
        return self._settings.link.chunks

    def arrive(self) -> Done:
        """What moves is complete."""
        assert self.moving is not None, "nothing moves"
        moved, done = self.moving, Done(CommandKind.ARRIVE)
        demanded = self.stager.arrive()
        self._count_bytes(self.chunks)
        self.moving = None
        if not self._for_demand:
            self.counts[EngineCounter.LOADS_LATE if demanded else EngineCounter.LOADS_AHEAD] += 1
        done.notices = self.outstanding.arrive(moved.key, moved.place)
        self._heed(done)
        return done

    def fail(self) -> Done:
        """What moves has failed; where it waits again, it begins anew."""
        assert self.moving is not None, "nothing moves"
        key, done = self.moving.key, Done(CommandKind.FAIL)
        self.stager.fail()
        self.moving = None
        self.kept[key] = 0, self._for_demand
        self._heed(done)
        done.notices = self.outstanding.fail(key, done.actions)
        return done

    def _heed(self, done: Done) -> None:
        """What the latest command did."""
        done.cycles = self.stager.cycles
        if not self.stager.actions:
            return
        done.actions = self.stager.said()
        counts = self.counts
        for kind, key, why in done.actions:
            if kind is Kind.DROP:
                self.kept.pop(key, None)
            elif kind is Kind.PAUSE:
                counts[EngineCounter.RETRIED if why is Why.FAILED else EngineCounter.PAUSED] += 1
            elif kind is Kind.ELSEWHERE:
                counts[EngineCounter.ELSEWHERE] += 1
            counts[EngineCounter.QUEUE_FULL] += why is Why.FULL

    def counters(self) -> NDArray[np.int64]:
        """I64 by ``EngineCounter``: what is counted here, and what the stager counts."""
        found, of = self.counts.copy(), self.stager.counters
        for counter, count in {
            EngineCounter.HITS: of.hits,
            EngineCounter.WAITS: of.waits,
            EngineCounter.PROMOTED: of.promoted,
            EngineCounter.USEFUL: of.useful,
            EngineCounter.USELESS: of.wasted,
            EngineCounter.CANCELLED: of.dropped,
            EngineCounter.REFUSED: of.refused,
            EngineCounter.EVICTED: of.evicted,
            EngineCounter.PASSED: of.passed,
            EngineCounter.FAILED: of.failed - int(found[EngineCounter.RETRIED]),
        }.items():
            found[counter] = count
        return found

    def _count_bytes(self, chunks: int) -> None:
        """So many chunks of what moves are there, those of earlier services included."""
        of = self._settings.link
        there = min(chunks * of.chunk_bytes, of.expert_bytes)
        self.counts[EngineCounter.BYTES] += there - self.first_chunk * of.chunk_bytes

    def _place(self, key: int) -> int:
        place = self.stager.place_of(key)
        return self._landing if place == NO_PLACE else place
