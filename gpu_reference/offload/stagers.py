"""What the runtime asks of a stager: the specification behind the interface of the compiled one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from staging.stager.answers import Kind, StagerCounters, Step
from staging.stager.compiled.direct import DirectStager
from staging.stager.limits import StagerLimits, StagerSettings
from staging.stager.twin import Stager


class TwinStager:
    """`staging.stager.twin.Stager` with the methods of `staging.stager.compiled.direct.DirectStager`."""

    def __init__(self, limits: StagerLimits, settings: StagerSettings) -> None:
        self._stager = Stager(limits, settings)
        self._latest = Step()

    @property
    def counters(self) -> StagerCounters:
        """See `DirectStager`, as all of these."""
        return self._stager.counters

    def preload(self, layer: int, expert: int, *, fixed: bool) -> int:
        """Its place."""
        self._stager.preload(layer, [expert])
        self._stager.fix(layer, [expert], fixed=fixed)
        return int(self._stager.directory.place[layer * self._stager.limits.experts + expert])

    def are_resident(self, layer: int, experts: Sequence[int]) -> list[bool]:
        """Which are."""
        found: list[bool] = self._stager.lookup(layer, experts).tolist()
        return found

    def demand(self, layer: int, experts: Sequence[int]) -> list[bool]:
        """Which were resident."""
        were_resident = self.are_resident(layer, experts)
        self._latest = self._stager.demand(layer, experts)
        return were_resident

    def release(self, layer: int, experts: Sequence[int]) -> None:
        """The layer has run."""
        self._latest = self._stager.release(layer, experts)

    def set_values(self, layer: int, values: NDArray[np.integer[Any]]) -> None:
        """What experts are worth."""
        self._latest = self._stager.set_values(layer, values)

    def prefetch(
        self, layer: int, experts: NDArray[np.integer[Any]], chances: NDArray[np.integer[Any]], deadline: int
    ) -> None:
        """What is expected."""
        self._latest = self._stager.prefetch(layer, experts, chances, deadline)

    def expire(self, deadline: int) -> None:
        """A gate is known."""
        self._latest = self._stager.expire(deadline)

    def grant(self) -> tuple[int, int, bool] | None:
        """Key, place, and whether a gate waits."""
        self._latest = self._stager.grant()
        transfer = self._latest.transfer
        return None if transfer is None else (transfer.key, transfer.place, transfer.demanded)

    def goes_on(self) -> bool:
        """Whether the transfer goes on."""
        key = self._stager.moving[0]
        self._latest = self._stager.preempt(0)
        return not any(action.key == key for action in self._latest.actions)

    def arrive(self) -> None:
        """The transfer is complete."""
        self._latest = self._stager.arrive(0)

    def dropped(self) -> list[int]:
        """What the latest command gave up."""
        return [action.key for action in self._latest.actions if action.kind is Kind.DROP]

    def worth(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """What keys are worth."""
        return np.asarray(self._stager.directory.worth(keys), np.int64)


AnyStager = DirectStager | TwinStager
"""The compiled form, which is as quick as a runtime needs it, or the specification. Both decide the same."""
