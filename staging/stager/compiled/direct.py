"""The compiled stager for a program that runs by it: each command one compiled call, which answers in plain integers.

``CompiledStager`` checks what it is told and tells every action; that takes some 20 µs a command, which a runtime that
asks ten times a layer cannot spend. Here the arguments are the caller's care as far as the commands themselves do not
refuse them, and of the actions only what was dropped can be asked for.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from staging.stager.answers import Kind, StagerCounters
from staging.stager.arguments import checked_keys
from staging.stager.compiled import commands
from staging.stager.compiled.state import COUNTERS, KINDS, empty_state
from staging.stager.directory import NONE, RESIDENT
from staging.stager.limits import StagerLimits, StagerSettings
from traces.handle import Handle

_DROP = KINDS.index(Kind.DROP)


class DirectStager:
    """The commands of `staging.stager.twin.Stager`, with one channel; its methods say what each means.

    Args:
        limits: what is generated.
        settings: what the registers hold.

    Raises:
        ForestageError: if the settings do not fit the limits.
        ValueError: for limits of several channels; from a command, for what would corrupt the state.
    """

    def __init__(self, limits: StagerLimits, settings: StagerSettings) -> None:
        if limits.channels != 1:
            raise ValueError(f"channels: {limits.channels}; a direct stager has one")
        self.limits = limits
        self.settings = settings
        self._state = empty_state(limits, settings, record_actions=True)
        self._handle = Handle(self._state)

    @property
    def counters(self) -> StagerCounters:
        """Experts, since the start."""
        return StagerCounters(**{name: int(self._state.numbers[name]) for name in COUNTERS})

    def preload(self, layer: int, expert: int, *, fixed: bool) -> int:
        """Before anything runs: it is resident, the most recently used of all, and may be fixed; returns its place."""
        (key,) = checked_keys(self.limits, layer, [expert]).tolist()
        commands.preload(self._state, layer, np.array([expert]))
        commands.fix(self._state, layer, np.array([expert]), fixed)
        return int(self._state.keys[key]["place"])

    def are_resident(self, layer: int, experts: Sequence[int]) -> list[bool]:
        """Which are; changes nothing."""
        keys = layer * self.limits.experts + np.array(experts)
        found: list[bool] = (self._state.keys["status"][keys] == RESIDENT).tolist()
        return found

    def demand(self, layer: int, experts: Sequence[int]) -> list[bool]:
        """A gate chose these; which were resident."""
        were_resident = np.empty(len(experts), np.bool_)
        _demand(self._handle, layer, np.array(experts), were_resident)
        found: list[bool] = were_resident.tolist()
        return found

    def release(self, layer: int, experts: Sequence[int]) -> None:
        """The layer that demanded these has run."""
        _release(self._handle, layer, np.array(experts))

    def set_values(self, layer: int, values: NDArray[np.integer[Any]]) -> None:
        """What each expert of ``layer`` is worth by its next use, ``[experts]``."""
        _set_values(self._handle, layer, values)

    def prefetch(
        self, layer: int, experts: NDArray[np.integer[Any]], chances: NDArray[np.integer[Any]], deadline: int
    ) -> None:
        """``layer`` wants these at ``deadline``, with chances, best first."""
        _prefetch(self._handle, layer, experts, chances, deadline)

    def expire(self, deadline: int) -> None:
        """The gate of ``deadline`` is known, and its demands are made."""
        _expire(self._handle, deadline)

    def grant(self) -> tuple[int, int, bool] | None:
        """The transfer that starts: key, place, and whether a gate waits; ``None``: none."""
        key, place, demanded = _grant(self._handle)
        return None if key == NONE else (key, place, demanded)

    def goes_on(self) -> bool:
        """A chunk has passed: whether the transfer goes on (``preempt``)."""
        return bool(_goes_on(self._handle))

    def arrive(self) -> None:
        """The transfer is complete."""
        _arrive(self._handle)

    def fail(self) -> None:
        """The transfer failed."""
        _fail(self._handle)

    def dropped(self) -> list[int]:
        """The keys that the latest command gave up."""
        told = self._state.actions[: self._state.numbers["actions"]]
        found: list[int] = told["key"][told["kind"] == _DROP].tolist()
        return found

    def worth(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """What ``keys`` are worth now, as the stager compares them."""
        of = self._state.keys[keys]
        chance = np.where(of["deadline"] > self._state.numbers["now"], of["chance"], 0)
        return np.asarray(of["value"] + chance, np.int64)


@njit()
def _demand(handle: Handle, layer: int, experts: NDArray[np.int64], were_resident: NDArray[np.bool_]) -> None:
    for at in range(len(experts)):
        were_resident[at] = commands.is_resident(handle.held, layer, experts[at])
    commands.demand(handle.held, layer, experts)


@njit()
def _release(handle: Handle, layer: int, experts: NDArray[np.int64]) -> None:
    commands.release(handle.held, layer, experts)


@njit()
def _set_values(handle: Handle, layer: int, values: Any) -> None:
    commands.set_values(handle.held, layer, values)


@njit()
def _prefetch(handle: Handle, layer: int, experts: Any, chances: Any, deadline: int) -> None:
    commands.prefetch(handle.held, layer, experts, chances, deadline)


@njit()
def _expire(handle: Handle, deadline: int) -> None:
    commands.expire(handle.held, deadline)


@njit()
def _grant(handle: Handle) -> tuple[int, int, bool]:
    commands.grant(handle.held)
    of = handle.held.numbers
    if of.channel == NONE:
        return NONE, NONE, False
    return of.key, of.place, of.demanded


@njit()
def _goes_on(handle: Handle) -> bool:
    commands.preempt(handle.held, 0)
    return bool(handle.held.moving[0] != NONE)


@njit()
def _arrive(handle: Handle) -> None:
    commands.arrive(handle.held, 0)


@njit()
def _fail(handle: Handle) -> None:
    commands.fail(handle.held, 0)
