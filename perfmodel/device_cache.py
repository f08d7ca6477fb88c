"""Places for expert weights on the device, where transfers take time.

The caches of `staging.residency` decide which experts are resident and which are evicted. Here a place is *reserved*
while its expert is on the way, so that a transfer takes up room from its first byte.
"""

from collections.abc import Callable, Iterable, Sequence

from perfmodel.config import Scope
from staging.residency import Key, LruCache


class _Places(LruCache):
    """A streaming cache that can forget an expert."""

    def remove(self, key: Key) -> None:
        """Forget a resident expert."""
        del self._order[key]


class DeviceCache:
    """Least-recently-used places that are reserved, then filled; experts are ``(layer, expert)``.

    Args:
        layers: of the model.
        capacity: experts held, over all layers; with scope ``layer`` each layer has ``capacity // layers`` places.
        scope: whether each layer has places of its own or all share them.
        evicted: called with each evicted expert.
    """

    def __init__(
        self, *, layers: int, capacity: int, scope: Scope, evicted: Callable[[Key], None] = lambda key: None
    ) -> None:
        count = layers if scope == "layer" else 1
        self.places = capacity // count
        self._caches = [_Places(self.places) for _ in range(count)]
        self._evicted = evicted
        self._needed: Sequence[Key] = ()
        self._protected: set[Key] = set()
        self._on_the_way: set[Key] = set()

    def _of(self, key: Key) -> _Places:
        return self._caches[key[0] % len(self._caches)]

    def __contains__(self, key: Key) -> bool:
        """Whether all of the expert's weights are on the device."""
        return key in self._of(key) and key not in self._on_the_way

    def access(self, layer: int, experts: Sequence[int]) -> list[bool]:
        """Handle one event of `staging.residency` in zero time; for each expert, whether it was resident before."""
        return self._caches[layer % len(self._caches)].access(layer, experts).tolist()

    def begin_use(self, keys: Sequence[Key]) -> None:
        """Keep these experts, which a layer needs, from being evicted until ``end_use``."""
        self._needed = keys
        for key in keys:
            self._of(key).pin(*key)

    def end_use(self) -> None:
        """The layer's experts have run: make them the most recently used, the last of them the most recent."""
        for key in self._needed:
            cache = self._of(key)
            cache.unpin(*key)
            cache.touch(*key)
        self._needed = ()

    def protect(self, keys: Iterable[Key]) -> None:
        """Until ``unprotect``, evict these predicted experts only for needed ones, and only after all others."""
        for key in keys:
            if key not in self._protected:
                self._protected.add(key)
                self._of(key).pin(*key)

    def unprotect(self, keys: Iterable[Key]) -> None:
        """Lift the protection of those of ``keys`` that have it."""
        for key in keys:
            if key in self._protected:
                self._protected.remove(key)
                self._of(key).unpin(*key)

    def reserve(self, key: Key, *, insist: bool) -> bool:
        """Reserve a place for an expert that is neither resident nor on its way; False if no place can be freed.

        Args:
            key: the expert.
            insist: a gate needs the expert, so protected experts may be evicted for it.
        """
        cache = self._of(key)
        victim = cache.insert(*key)
        if victim == key and insist:
            spared = (k for k in cache if k in self._protected and k not in self._on_the_way and k not in self._needed)
            self.unprotect([k for k, _ in zip(spared, (None,), strict=False)])
            victim = cache.insert(*key)
        if victim == key:
            return False
        cache.pin(*key)
        self._on_the_way.add(key)
        if victim is not None:
            self._evicted(victim)
        return True

    def fill(self, key: Key) -> None:
        """The expert has arrived in its reserved place; it becomes the most recently used."""
        self._on_the_way.remove(key)
        self._of(key).unpin(*key)
        self._of(key).touch(*key)

    def release(self, key: Key) -> None:
        """Free a reserved place."""
        self._on_the_way.remove(key)
        self._of(key).unpin(*key)
        self._of(key).remove(key)
