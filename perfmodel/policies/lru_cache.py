"""The device keeps the most recently used experts and fetches the others when they are needed: no prediction."""

from collections.abc import Sequence

from catalog.errors import ForestageError
from perfmodel.config import Scope
from perfmodel.policies.base import Policy, System
from perfmodel.transfers import ExpertLink, Fetch, Key, LinkBytes
from staging.stager.directory import NONE, Directory
from staging.stager.limits import StagerLimits, StagerSettings


class LruCache(Policy):
    """Least-recently-used cache with demand fetches, whose places are the stager's (`staging.stager.directory`).

    Raises:
        ForestageError: if the cache cannot hold the experts of one layer and step.
    """

    name = "lru_cache"
    has_cache = True
    more_places = 0  # needed beyond those of the current layer's experts

    def __init__(self, system: System) -> None:
        super().__init__(system)
        capacity, scope = system.capacity, system.config.scope
        self._needed: list[int] = []
        self._shares = places(system.layers, capacity, scope)
        limits = StagerLimits(
            layers=system.layers,
            experts=system.experts,
            places=capacity,
            spare=system.experts,  # of a prompt's pass: it warms the cache in no time
            queue_depth=system.top_k,
            event_experts=system.top_k,
        )
        self._directory = Directory(limits, StagerSettings(shares=self._shares))
        self._link = ExpertLink(
            system.event_loop,
            expert_bytes=system.costs.expert_bytes,
            latency_ps=system.transfer_latency_ps,
            admit=self._admit,
            arrived=self._arrived,
            dropped=self._dropped,
        )
        needed = min(system.top_k + self.more_places, system.experts)
        if self._shares[0] < needed:
            raise ForestageError(
                f"simulation: capacity: {capacity} experts leave {self._shares[0]} places for "
                f"{'a layer' if scope == 'layer' else 'all layers'}, and policy {self.name} needs {needed}; "
                "give a larger capacity"
            )

    @property
    def link_bytes(self) -> LinkBytes:
        """What the host link moved, by kind."""
        return self._link.bytes

    def warm(self, layer: int, experts: Sequence[int]) -> None:
        """A prompt's pass through ``layer`` chose ``experts``."""
        self._directory.use_at_once([self._index((layer, expert)) for expert in experts])

    def gate(self, token: int, layer: int, needed: Sequence[Key]) -> list[Fetch | None]:
        """Fetch missing experts, best ranked first; no expert that this layer needs is evicted meanwhile."""
        event = token * self.system.layers + layer
        self._needed = [self._index(key) for key in needed]
        self._directory.pin(self._needed)
        missing = [key for key in needed if not self._is_resident(key)]
        self.counts.lookups += len(needed)
        self.counts.hits += len(needed) - len(missing)
        fetches = {key: self._fetch(key, event) for key in missing}
        return [fetches.get(key) for key in needed]

    def end_layer(self, token: int, layer: int) -> None:
        """Make the layer's experts the most recently used."""
        self._directory.unpin(self._needed)
        self._needed = []

    def _index(self, key: Key) -> int:
        """The stager's number of an expert."""
        return key[0] * self.system.experts + key[1]

    def _is_resident(self, key: Key) -> bool:
        return self._directory.is_resident(self._index(key))

    def _fetch(self, key: Key, event: int) -> Fetch:
        """Fetch a missing expert for a gate that waits for it."""
        self._make_room(key)
        return self._link.demand(key, event)

    def _make_room(self, key: Key) -> None:
        """Take a place for a needed expert."""
        # Beside the needed experts only one prefetch, the one on the link, cannot give way: an overtaken prefetch
        # resumes before the next gate, since later predictions are for later layers. Hence `more_places`.
        self._claim(key, demanded=True)
        group = self._directory.group_of(self._index(key))
        assert self._directory.held[group] <= self._shares[group], "the cache holds less than one layer needs"

    def _claim(self, key: Key, *, demanded: bool) -> bool:
        """Take a place for an expert that moves from now on; False where it may not have one."""
        claim = self._directory.claim(self._index(key), demanded=demanded)
        if claim is not None and claim.victim != NONE:
            self._evicted(divmod(claim.victim, self.system.experts))
        return claim is not None

    def _evicted(self, key: Key) -> None:
        """Called when an expert has been evicted for another."""

    def _admit(self, fetch: Fetch) -> bool:
        raise AssertionError("a demand has a place before it starts")

    def _arrived(self, fetch: Fetch) -> None:
        self._directory.arrive(self._index(fetch.key))

    def _dropped(self, fetch: Fetch) -> None:
        raise AssertionError("a demand is never dropped")


def places(layers: int, capacity: int, scope: Scope) -> tuple[int, ...]:
    """What each layer's own cache holds, or the one of all (`staging.stager.limits.StagerSettings.shares`)."""
    return (capacity // layers,) * layers if scope == "layer" else (capacity,)
