"""Every expert is in host memory; the device holds only those of the current layer."""

from collections.abc import Sequence

from perfmodel.policies.base import Policy, System
from perfmodel.transfers import ExpertLink, Fetch, Key, LinkBytes


class OnDemand(Policy):
    """Fetch each needed expert when its gate asks; drop it when its layer has run."""

    name = "on_demand"

    def __init__(self, system: System) -> None:
        super().__init__(system)
        self._link = ExpertLink(
            system.event_loop,
            expert_bytes=system.costs.expert_bytes,
            latency_ps=system.transfer_latency_ps,
            admit=lambda fetch: True,
            arrived=lambda fetch: None,
            dropped=lambda fetch: None,
        )

    @property
    def link_bytes(self) -> LinkBytes:
        """What the host link moved: demands only."""
        return self._link.bytes

    def gate(self, token: int, layer: int, needed: Sequence[Key]) -> list[Fetch | None]:
        """Fetch all of ``needed``, best ranked first."""
        self.counts.lookups += len(needed)
        event = token * self.system.layers + layer
        return [self._link.demand(key, event) for key in needed]
