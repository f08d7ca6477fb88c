"""The device keeps the most recently used experts and fetches the others when they are needed: no prediction."""

from collections.abc import Sequence

from catalog.errors import ForestageError
from perfmodel.device_cache import DeviceCache
from perfmodel.policies.base import Policy, System
from perfmodel.transfers import ExpertLink, Fetch, LinkBytes
from staging.residency import Key


class LruCache(Policy):
    """Least-recently-used cache with demand fetches.

    Raises:
        ForestageError: if the cache cannot hold the experts of one layer and step.
    """

    name = "lru_cache"
    has_cache = True
    spare_places = 0  # needed beyond those of the current layer's experts

    def __init__(self, system: System) -> None:
        super().__init__(system)
        capacity, scope = system.capacity, system.config.scope
        self._cache = DeviceCache(layers=system.layers, capacity=capacity, scope=scope, evicted=self._evicted)
        self._link = ExpertLink(
            system.event_loop,
            expert_bytes=system.costs.expert_bytes,
            latency_ps=system.transfer_latency_ps,
            admit=self._admit,
            arrived=self._arrived,
            dropped=self._dropped,
        )
        needed = min(system.top_k + self.spare_places, system.experts)
        if self._cache.places < needed:
            raise ForestageError(
                f"simulation: capacity: {capacity} experts leave {self._cache.places} places for "
                f"{'a layer' if scope == 'layer' else 'all layers'}, and policy {self.name} needs {needed}; "
                "give a larger capacity"
            )

    @property
    def link_bytes(self) -> LinkBytes:
        """What the host link moved, by kind."""
        return self._link.bytes

    def warm(self, layer: int, experts: Sequence[int]) -> None:
        """A prompt's pass through ``layer`` chose ``experts``."""
        self._cache.access(layer, experts)

    def gate(self, token: int, layer: int, needed: Sequence[Key]) -> list[Fetch | None]:
        """Fetch missing experts, best ranked first; no expert that this layer needs is evicted meanwhile."""
        event = token * self.system.layers + layer
        self._cache.begin_use(needed)
        missing = [key for key in needed if key not in self._cache]
        self.counts.lookups += len(needed)
        self.counts.hits += len(needed) - len(missing)
        fetches = {key: self._fetch(key, event) for key in missing}
        return [fetches.get(key) for key in needed]

    def end_layer(self, token: int, layer: int) -> None:
        """Make the layer's experts the most recently used."""
        self._cache.end_use()

    def _fetch(self, key: Key, event: int) -> Fetch:
        """Fetch a missing expert for a gate that waits for it."""
        self._make_room(key)
        return self._link.demand(key, event)

    def _make_room(self, key: Key) -> None:
        """Reserve a place for a needed expert."""
        # Beside the needed experts only one prefetch, the one on the link, holds a place: an overtaken prefetch resumes
        # before the next gate, since later predictions are for later layers. Hence `spare_places`.
        has_room = self._cache.reserve(key, insist=True)
        assert has_room, "the cache holds less than one layer needs"

    def _evicted(self, key: Key) -> None:
        """Called when an expert has been evicted for another."""

    def _admit(self, fetch: Fetch) -> bool:
        raise AssertionError("a demand has a place before it starts")

    def _arrived(self, fetch: Fetch) -> None:
        self._cache.fill(fetch.key)

    def _dropped(self, fetch: Fetch) -> None:
        raise AssertionError("a demand is never dropped")
