"""The compiled stager as Python calls it: the methods of ``twin.Stager``, with the same answers."""

import numpy as np
from numpy.typing import NDArray

from staging.stager.answers import Action, StagerCounters, Step, Transfer
from staging.stager.arguments import (
    Experts,
    check_deadline,
    checked_chances,
    checked_keys,
    checked_values,
    distinct_keys,
)
from staging.stager.compiled import commands
from staging.stager.compiled.state import COUNTERS, KINDS, REASONS, State, empty_state
from staging.stager.directory import NONE, RESIDENT
from staging.stager.limits import FOREVER, StagerLimits, StagerSettings

__all__ = ["CompiledStager"]


class CompiledStager:
    """As ``twin.Stager``, whose methods say what each command means and what it refuses.

    Args:
        limits: what is generated.
        settings: what the registers hold.
        record_actions: whether a ``Step`` tells its actions; without, they are only counted.

    Attributes:
        state: that compiled code may go on with (``commands``).

    Raises:
        ForestageError: if the settings do not fit the limits.
    """

    def __init__(self, limits: StagerLimits, settings: StagerSettings, *, record_actions: bool = True) -> None:
        self.limits = limits
        self.settings = settings
        self.state: State = empty_state(limits, settings, record_actions=record_actions)

    @property
    def counters(self) -> StagerCounters:
        """Experts, since the start."""
        return StagerCounters(**{name: int(self.state.numbers[name]) for name in COUNTERS})

    def lookup(self, layer: int, experts: Experts) -> NDArray[np.bool_]:
        """Which are resident bool ``[len(experts)]``; changes nothing."""
        return self.state.keys["status"][checked_keys(self.limits, layer, experts)] == RESIDENT

    def set_values(self, layer: int, values: Experts) -> Step:
        """What each expert of ``layer`` is worth by its next use, ``[experts]``."""
        commands.set_values(self.state, layer, checked_values(self.limits, layer, values))
        return self._step()

    def preload(self, layer: int, experts: Experts) -> Step:
        """Before anything runs: these are resident, each the most recently used of all."""
        commands.preload(self.state, layer, self._ids(layer, experts))
        return self._step()

    def fix(self, layer: int, experts: Experts, *, fixed: bool = True) -> Step:
        """These never give way, or may again."""
        commands.fix(self.state, layer, self._ids(layer, experts), fixed)
        return self._step()

    def demand(self, layer: int, experts: Experts, *, resident_only: bool = False) -> Step:
        """A gate chose these, distinct."""
        ids = self._distinct_ids(layer, experts)
        if resident_only:
            commands.demand_residents(self.state, layer, ids)
        else:
            commands.demand(self.state, layer, ids)
        return self._step()

    def release(self, layer: int, experts: Experts) -> Step:
        """The layer that demanded these has run, or waits for them no more."""
        commands.release(self.state, layer, self._distinct_ids(layer, experts))
        return self._step()

    def prefetch(self, layer: int, experts: Experts, chances: Experts, deadline: int = FOREVER) -> Step:
        """``layer`` wants these at ``deadline``, with chances, best first."""
        ids = self._distinct_ids(layer, experts)
        told = checked_chances(self.limits, len(ids), chances)
        check_deadline(self.limits, deadline)
        commands.prefetch(self.state, layer, ids, told, deadline)
        return self._step()

    def expire(self, deadline: int) -> Step:
        """The gate of ``deadline`` is known, and its demands are made."""
        check_deadline(self.limits, deadline)
        commands.expire(self.state, deadline)
        return self._step()

    def grant(self) -> Step:
        """A channel is free: the transfer that starts there, if there is one worth it."""
        commands.grant(self.state)
        return self._step()

    def preempt(self, channel: int) -> Step:
        """The transfer on ``channel`` has passed a chunk."""
        commands.preempt(self.state, channel)
        return self._step()

    def arrive(self, channel: int) -> Step:
        """The transfer on ``channel`` is complete."""
        commands.arrive(self.state, channel)
        return self._step()

    def fail(self, channel: int) -> Step:
        """The transfer on ``channel`` failed."""
        commands.fail(self.state, channel)
        return self._step()

    def _ids(self, layer: int, experts: Experts) -> NDArray[np.int64]:
        return checked_keys(self.limits, layer, experts) - layer * self.limits.experts

    def _distinct_ids(self, layer: int, experts: Experts) -> NDArray[np.int64]:
        return distinct_keys(self.limits, layer, experts) - layer * self.limits.experts

    def _step(self) -> Step:
        """What the latest command did."""
        of = self.state.numbers
        step = Step(entries=int(of["entries"]), cycles=int(of["cycles"]))
        for told in self.state.actions[: of["actions"]]:
            step.actions.append(Action(KINDS[told["kind"]], int(told["key"]), REASONS[told["why"]]))
        if of["channel"] != NONE:
            channel, key, place, victim = (int(of[name]) for name in ("channel", "key", "place", "victim"))
            step.transfer = Transfer(channel, key, place, victim, bool(of["demanded"]))
        return step
