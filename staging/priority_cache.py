"""Caches in which what gives way is the resident of lowest priority, whoever sets the priorities."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from staging.frequency import DEFAULT_SHIFT, DecayedCounters
from staging.residency import ExpertCache, Key


class PriorityCache(ExpertCache):
    """The resident of lowest priority gives way; of equals, the later layer's, then the larger expert id's.

    Priorities are integers from outside, and 0 until set. They belong to experts, resident or not, and may change at
    any time: ``set_priorities`` before ``insert`` or ``access`` decides what gives way to it.
    """

    def __init__(self, capacity: int, *, layers: int, experts: int) -> None:
        super().__init__(capacity)
        self._priority = np.zeros((layers, experts), np.int32)

    def set_priorities(self, layer: int, priorities: NDArray[np.integer[Any]]) -> None:
        """Of every expert of ``layer``: i32 ``[experts]``; the larger, the longer it stays."""
        self._priority[layer] = priorities

    @override
    def _lowest(self) -> Key | None:
        candidates = (key for key in self._order if key not in self._pins)
        return min(candidates, key=lambda key: (self._priority[key], -key[0], -key[1]), default=None)


class EmaCache(PriorityCache):
    """Priorities are the decayed use counters of ``staging.frequency``, which ``observe`` feeds."""

    def __init__(self, capacity: int, *, layers: int, experts: int, shift: int = DEFAULT_SHIFT) -> None:
        super().__init__(capacity, layers=layers, experts=experts)
        self._counters = DecayedCounters(layers, experts, shift)

    @override
    def observe(self, layer: int, experts: Sequence[int] | NDArray[np.integer[Any]]) -> None:
        self.set_priorities(layer, self._counters.observe(layer, experts))
