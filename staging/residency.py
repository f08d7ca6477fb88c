"""Which experts are in fast memory: the streaming cache that every simulator uses, and least-recently-used eviction.

The event rule, for every cache here and in ``staging.simulate``: the experts that one event needs (a token's of one
layer) are looked up *together*, against the residency *before* the event; then all of them become resident, and what
gives way is the lowest-ranked of the others. Only where the event alone exceeds the capacity do its own experts give
way to each other, lowest-ranked first: they were used, and are not kept.
"""

from abc import ABC, abstractmethod
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from catalog.errors import ForestageError

Key = tuple[int, int]  # (layer, expert)


class ExpertCache(ABC):
    """Residents, over (layer, expert), of a cache with a capacity in experts; a policy says what gives way.

    One cache may serve all layers, or one a layer. Nothing is timed here: the caller decides when an expert has
    arrived and inserts it then.

    Attributes:
        capacity: experts that fit.
        unused_prefetches: prefetched experts that were evicted before any use, since the start.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 0:
            raise ForestageError(f"capacity: {capacity} experts; give 0 or more")
        self.capacity = capacity
        self.unused_prefetches = 0
        self._order: OrderedDict[Key, bool] = OrderedDict()  # least recent first; value: prefetched and not yet used
        self._pins: Counter[Key] = Counter()

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, key: Key) -> bool:
        return key in self._order

    def __iter__(self) -> Iterator[Key]:
        """Resident (layer, expert), least recent first."""
        return iter(self._order)

    def contains(self, layer: int, expert: int) -> bool:
        """Whether the expert is resident; changes nothing."""
        return (layer, expert) in self._order

    def lookup(self, layer: int, experts: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Hit mask bool ``[len(experts)]`` of one event; changes nothing."""
        return np.fromiter(((layer, int(expert)) in self._order for expert in experts), np.bool_, count=len(experts))

    def touch(self, layer: int, expert: int) -> None:
        """The resident expert is used: it becomes the most recent.

        Raises:
            KeyError: if it is not resident.
        """
        self._order.move_to_end((layer, expert))
        self._order[layer, expert] = False

    def insert(self, layer: int, expert: int) -> Key | None:
        """Make the expert resident and most recent, because it is used; returns the (layer, expert) that gave way.

        The lowest-ranked expert that is not pinned gives way. Where none may (all pinned, or capacity 0) the expert
        itself is returned: it passes through and is not kept. ``None``: there was room, or it was resident already.
        """
        return self._insert((layer, expert), prefetched=False)

    def insert_prefetched(self, layer: int, expert: int) -> Key | None:
        """As ``insert``, for an expert that nobody has used yet.

        If it is resident already nothing changes: a prediction is no use. If it is evicted before a use, or passes
        through, it counts in ``unused_prefetches``.
        """
        return None if (layer, expert) in self._order else self._insert((layer, expert), prefetched=True)

    def observe(self, layer: int, experts: Sequence[int] | NDArray[np.integer[Any]]) -> None:  # noqa: B027
        """The gate of ``layer`` chose these: what a policy learns from it, before any of them is inserted.

        ``access`` calls it; a simulator that inserts by itself calls it once an event. Recency needs nothing.
        """

    def access(self, layer: int, experts: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """One whole event by the event rule, at zero time: the hit mask; afterwards the event's experts are resident.

        The recency within the event is the order of ``experts``, the last being the most recent.
        """
        hits = self.lookup(layer, experts)
        keys = [(layer, int(expert)) for expert in experts]
        self.observe(layer, experts)
        # Once out of the order, what hit cannot give way to what missed (nor count as an unused prefetch).
        for key in keys:
            self._order.pop(key, None)
        while len(self._order) + len(keys) > self.capacity and self._evict() is not None:
            pass
        self._order.update(dict.fromkeys(keys, False))
        while len(self._order) > self.capacity:
            if self._evict() is None:  # all pinned: what came last passes through
                self._order.popitem()
        return hits

    def pin(self, layer: int, expert: int) -> None:
        """The expert may not be evicted until unpinned as often as pinned; it need not be resident yet."""
        self._pins[layer, expert] += 1

    def unpin(self, layer: int, expert: int) -> None:
        """Take one pin back.

        Raises:
            ValueError: if it is not pinned.
        """
        if (layer, expert) not in self._pins:
            raise ValueError(f"expert {expert} of layer {layer} is not pinned")
        self._pins[layer, expert] -= 1
        if not self._pins[layer, expert]:
            del self._pins[layer, expert]

    def _insert(self, key: Key, *, prefetched: bool) -> Key | None:
        if key in self._order:
            self.touch(*key)
            return None
        victim = None
        if len(self._order) >= self.capacity:
            victim = self._evict()
            if victim is None:
                self.unused_prefetches += prefetched
                return key
        self._order[key] = prefetched
        return victim

    def _evict(self) -> Key | None:
        """Let the lowest-ranked give way, and return it; ``None`` where none may."""
        victim = self._lowest()
        if victim is not None:
            self.unused_prefetches += self._order.pop(victim)
        return victim

    @abstractmethod
    def _lowest(self) -> Key | None:
        """The resident that gives way first of those that are not pinned; ``None`` where there is none."""


class LruCache(ExpertCache):
    """The least recently used gives way."""

    @override
    def _lowest(self) -> Key | None:
        return next((resident for resident in self._order if resident not in self._pins), None)
