"""Slots for expert weights on the device where transfers take time.

The caches of `staging.residency` say who is resident and who gives way. Here a slot is *reserved* while its expert is
on the way (the bytes need somewhere to go), so that a transfer costs room from its first byte.
"""

from collections.abc import Callable, Iterable, Sequence

from perfmodel.config import Scope
from staging.residency import Key, LruCache


class _Slots(LruCache):
    """A streaming cache whose slots can be given back."""

    def remove(self, key: Key) -> None:
        """Forget a resident expert."""
        del self._order[key]


class DeviceCache:
    """Least-recently-used slots that are reserved, then filled; experts are ``(layer, expert)``.

    Args:
        layers: of the model.
        capacity: experts held, over all layers; with scope ``layer`` each layer has ``capacity // layers`` slots.
        scope: whether each layer has slots of its own or all share them.
        evicted: called with each expert that gives way to another.
    """

    def __init__(
        self, *, layers: int, capacity: int, scope: Scope, evicted: Callable[[Key], None] = lambda key: None
    ) -> None:
        count = layers if scope == "layer" else 1
        self.slots = capacity // count
        self._caches = [_Slots(self.slots) for _ in range(count)]
        self._evicted = evicted
        self._needed: Sequence[Key] = ()
        self._protected: set[Key] = set()
        self._on_the_way: set[Key] = set()

    def _of(self, key: Key) -> _Slots:
        return self._caches[key[0] % len(self._caches)]

    def __contains__(self, key: Key) -> bool:
        """Whether the expert's weights are on the device, complete."""
        return key in self._of(key) and key not in self._on_the_way

    def access(self, layer: int, experts: Sequence[int]) -> list[bool]:
        """One event of `staging.residency` with transfers that take no time: which were resident before it."""
        return self._caches[layer % len(self._caches)].access(layer, experts).tolist()

    def begin_use(self, keys: Sequence[Key]) -> None:
        """A layer's experts are needed: until ``end_use`` they are not evicted."""
        self._needed = keys
        for key in keys:
            self._of(key).pin(*key)

    def end_use(self) -> None:
        """The layer's experts have run: they become the most recently used, the last most of all."""
        for key in self._needed:
            cache = self._of(key)
            cache.unpin(*key)
            cache.touch(*key)
        self._needed = ()

    def protect(self, keys: Iterable[Key]) -> None:
        """These are predicted: until ``unprotect`` they give way to needed experts alone, and only as the last."""
        for key in keys:
            if key not in self._protected:
                self._protected.add(key)
                self._of(key).pin(*key)

    def unprotect(self, keys: Iterable[Key]) -> None:
        """Take the protection of these back, where they have any."""
        for key in keys:
            if key in self._protected:
                self._protected.remove(key)
                self._of(key).unpin(*key)

    def reserve(self, key: Key, *, insist: bool) -> bool:
        """Reserve a slot for an expert that is neither resident nor on its way; False where none can be had.

        Args:
            key: the expert.
            insist: it is needed, so that protected experts may be evicted for it.
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
        """The expert in the reserved slot is complete; it is the most recently used."""
        self._on_the_way.remove(key)
        self._of(key).unpin(*key)
        self._of(key).touch(*key)

    def release(self, key: Key) -> None:
        """Give a reserved slot back."""
        self._on_the_way.remove(key)
        self._of(key).unpin(*key)
        self._of(key).remove(key)
