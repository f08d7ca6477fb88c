"""Every expert is in host memory, and the device stages those of the current layer alone."""

from collections.abc import Sequence

from perfmodel.policies.base import Policy, System
from perfmodel.transfers import ExpertLink, Fetch, Key, LinkBytes


class OnDemand(Policy):
    """Each needed expert is fetched when its gate asks, and is gone with its layer."""

    name = "on_demand"

    def __init__(self, system: System) -> None:
        super().__init__(system)
        self._link = ExpertLink(
            system.engine,
            expert_bytes=system.costs.expert_bytes,
            latency_ps=system.transfer_latency_ps,
            admit=lambda fetch: True,
            arrived=lambda fetch: None,
            dropped=lambda fetch: None,
        )

    @property
    def link_bytes(self) -> LinkBytes:
        """Demands alone."""
        return self._link.bytes

    def gate(self, token: int, layer: int, needed: Sequence[Key]) -> list[Fetch | None]:
        """Fetch them all, best ranked first."""
        self.counts.lookups += len(needed)
        event = token * self.system.layers + layer
        return [self._link.demand(key, event) for key in needed]
