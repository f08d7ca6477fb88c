"""The stager as the engine calls it: the compiled form, each command one call, with all that it did."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from predictor.engine.commands import Action
from staging.stager.answers import StagerCounters, Transfer
from staging.stager.compiled import commands, queue
from staging.stager.compiled.state import COUNTERS, KINDS, REASONS, empty_state
from staging.stager.directory import NONE
from staging.stager.limits import StagerLimits, StagerSettings
from traces.handle import Handle

_EMPTY: NDArray[np.int64] = np.zeros(0, np.int64)


class StagerPort:
    """One stager of one channel.

    Args:
        limits, settings: its own.

    Attributes:
        cycles: of the latest command.
        actions: how many it said.

    Raises:
        ForestageError: if the settings do not fit the limits.
    """

    def __init__(self, limits: StagerLimits, settings: StagerSettings) -> None:
        self._state = empty_state(limits, settings, record_actions=True)
        self._handle = Handle(self._state)
        self._kind, self._key, self._why = (self._state.actions[name] for name in ("kind", "key", "why"))
        self._place = self._state.keys["place"]
        self._most_actions = len(self._state.actions)
        self.cycles = 0
        self.actions = 0

    @property
    def counters(self) -> StagerCounters:
        """Experts, since the start."""
        return StagerCounters(**{name: int(self._state.numbers[name]) for name in COUNTERS})

    def demand(self, layer: int, experts: tuple[int, ...], *, resident_only: bool) -> None:
        """A gate chose these, distinct; with ``resident_only`` what is missing is only told."""
        self.cycles, self.actions = _demand(self._handle, layer, _ids(experts), resident_only)

    def release(self, layer: int, experts: tuple[int, ...]) -> None:
        """The layer that demanded these has run."""
        self.cycles, self.actions = _release(self._handle, layer, _ids(experts))

    def prefetch(self, layer: int, experts: tuple[int, ...], chances: tuple[int, ...], deadline: int) -> None:
        """``layer`` wants these at ``deadline``."""
        self.cycles, self.actions = _prefetch(self._handle, layer, _ids(experts), _ids(chances), deadline)

    def set_values(self, layer: int, values: NDArray[np.int32]) -> None:
        """What each expert of ``layer`` is worth by its next use."""
        self.cycles, self.actions = _set_values(self._handle, layer, values)

    def expire(self, deadline: int) -> None:
        """The gate of ``deadline`` is known."""
        self.cycles, self.actions = _expire(self._handle, deadline)

    def grant(self) -> Transfer | None:
        """The link is idle: the transfer that starts, if one does."""
        self.cycles, self.actions, channel, key, place, victim, demanded = _grant(self._handle)
        return None if channel == NONE else Transfer(channel, key, place, victim, demanded)

    def preempt(self) -> bool:
        """What moves has stopped at a chunk: whether it goes on."""
        self.cycles, self.actions, goes_on = _preempt(self._handle)
        return goes_on

    def arrive(self) -> bool:
        """What moves is complete: whether a gate waited for it."""
        self.cycles, self.actions, demanded = _arrive(self._handle)
        return demanded

    def fail(self) -> None:
        """What moves has failed."""
        self.cycles, self.actions = _fail(self._handle)

    def preload(self, layer: int, experts: tuple[int, ...]) -> None:
        """Before anything runs: these are resident."""
        commands.preload(self._state, layer, _ids(experts))

    def fix(self, layer: int, experts: tuple[int, ...], *, fixed: bool) -> None:
        """These never give way, or may again."""
        commands.fix(self._state, layer, _ids(experts), fixed)

    def levels(self) -> tuple[bool, bool]:
        """(a demand waits, what moves is demanded)."""
        return _levels(self._handle)

    def place_of(self, key: int) -> int:
        """Where ``key`` is, or comes; ``NO_PLACE`` where it has no place."""
        return int(self._place[key])

    def said(self) -> list[Action]:
        """The actions of the latest command."""
        count = self.actions
        if not count:
            return []
        return [
            Action(KINDS[kind], key, REASONS[why])
            for kind, key, why in zip(
                self._kind[:count].tolist(), self._key[:count].tolist(), self._why[:count].tolist(), strict=True
            )
        ]


def _ids(experts: tuple[int, ...]) -> NDArray[np.int64]:
    return np.array(experts, np.int64) if experts else _EMPTY


@njit()
def _end(handle: Handle) -> tuple[int, int]:
    of = handle.held.numbers
    return of.cycles, of.actions


@njit()
def _demand(handle: Handle, layer: int, experts: Any, resident_only: bool) -> tuple[int, int]:
    if resident_only:
        commands.demand_residents(handle.held, layer, experts)
    else:
        commands.demand(handle.held, layer, experts)
    return _end(handle)


@njit()
def _release(handle: Handle, layer: int, experts: Any) -> tuple[int, int]:
    commands.release(handle.held, layer, experts)
    return _end(handle)


@njit()
def _prefetch(handle: Handle, layer: int, experts: Any, chances: Any, deadline: int) -> tuple[int, int]:
    commands.prefetch(handle.held, layer, experts, chances, deadline)
    return _end(handle)


@njit()
def _set_values(handle: Handle, layer: int, values: Any) -> tuple[int, int]:
    commands.set_values(handle.held, layer, values)
    return _end(handle)


@njit()
def _expire(handle: Handle, deadline: int) -> tuple[int, int]:
    commands.expire(handle.held, deadline)
    return _end(handle)


@njit()
def _grant(handle: Handle) -> tuple[int, int, int, int, int, int, bool]:
    commands.grant(handle.held)
    of = handle.held.numbers
    return of.cycles, of.actions, of.channel, of.key, of.place, of.victim, of.demanded


@njit()
def _preempt(handle: Handle) -> tuple[int, int, bool]:
    commands.preempt(handle.held, 0)
    of = handle.held.numbers
    return of.cycles, of.actions, handle.held.moving[0] != NONE


@njit()
def _arrive(handle: Handle) -> tuple[int, int, bool]:
    demanded = handle.held.keys[handle.held.moving[0]].demanded
    commands.arrive(handle.held, 0)
    of = handle.held.numbers
    return of.cycles, of.actions, demanded


@njit()
def _fail(handle: Handle) -> tuple[int, int]:
    commands.fail(handle.held, 0)
    return _end(handle)


@njit()
def _levels(handle: Handle) -> tuple[bool, bool]:
    state = handle.held
    moving = state.moving[0]
    return queue.holds_demand(state), moving != NONE and state.keys[moving].demanded
