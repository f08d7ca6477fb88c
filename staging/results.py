"""What a cache holds and what it did: capacities, hits use by use, totals."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from catalog.errors import ForestageError, SettingError
from staging.counting import Count
from staging.events import Events

Scope = Literal["layer", "global"]


@dataclass(frozen=True)
class Capacity:
    """How much a cache holds; experts, or bytes where experts differ in size.

    Attributes:
        experts: that fit, in each layer's cache (scope ``layer``) or in all (``global``).
        bytes: in place of ``experts``, bytes that fit; needs ``expert_bytes``.
        expert_bytes: i64 ``[layers]``, bytes of one expert of each layer.
        scope: one cache a layer, or one for all.
    """

    experts: int | None = None
    bytes: int | None = None
    expert_bytes: NDArray[np.int64] | None = None
    scope: Scope = "layer"

    def units(self, layers: int) -> tuple[NDArray[np.int64], int]:
        """Size of an expert of each layer i64 ``[layers]`` and the capacity, both in experts or both in bytes.

        Raises:
            ForestageError: for a capacity that is missing, given twice or not positive, or sizes of the wrong shape.
        """
        if (self.experts is None) == (self.bytes is None):
            raise ForestageError("capacity: give either capacity (experts) or capacity_bytes, one of them")
        if self.expert_bytes is not None and (
            np.shape(self.expert_bytes) != (layers,) or np.min(self.expert_bytes) < 1
        ):
            raise ForestageError(f"expert_bytes: give {layers} positive sizes, one a layer")
        chosen = self.experts if self.experts is not None else self.bytes
        assert chosen is not None
        if chosen < 1:
            raise SettingError("capacity", "give 1 or more", value=chosen)
        if self.experts is not None:
            return np.ones(layers, np.int64), chosen
        if self.expert_bytes is None:
            raise ForestageError("capacity_bytes: needs expert_bytes, the bytes of one expert of each layer")
        return np.asarray(self.expert_bytes, np.int64), chosen

    def check_within(self, layers: int, experts: int) -> None:
        """Raise for more experts than there are, or for bytes that do not hold one: no cache is either.

        More bytes than all experts take are a memory's size, and no fault: everything is held.

        Args:
            layers, experts: of the model.

        Raises:
            SettingError: naming what may be given; also as ``units``.
        """
        sizes, room = self.units(layers)
        most = experts * (layers if self.scope == "global" else 1)
        whose = f"of all {layers} layers" if self.scope == "global" else "of a layer"
        if self.experts is not None and room > most:
            raise SettingError(
                "capacity", f"choose 1 to {most}, the experts {whose} (with {most} everything is held)", value=room
            )
        if self.bytes is not None and room < sizes.max():
            raise SettingError(
                "capacity_bytes", f"holds no expert, which takes {sizes.max() / 2**20:.4g} MiB; give at least that"
            )

    def holds_everything(self, layers: int, experts: int) -> bool:
        """Whether nothing ever has to give way."""
        sizes, room = self.units(layers)
        return room >= experts * (int(sizes.sum()) if self.scope == "global" else int(sizes.max()))


class CacheResult(BaseModel):
    """What a cache did on a trace.

    Attributes:
        policy, scope, count: as asked.
        capacity, capacity_bytes: the one that was given, of one layer (scope ``layer``) or in all (``global``).
        lookups: experts looked up in the events counted.
        hits: those that were resident before their event.
        hit_rate: ``hits / lookups``.
        hit_rate_by_layer: the same by layer; ``None`` for a layer without an event counted.
        loads: experts loaded in the events counted (``lookups − hits``).
        loaded_bytes: their bytes, where sizes were given.
    """

    model_config = ConfigDict(frozen=True)

    policy: str
    scope: Scope
    count: Count
    capacity: int | None
    capacity_bytes: int | None
    lookups: int
    hits: int
    hit_rate: float
    hit_rate_by_layer: list[float | None]
    loads: int
    loaded_bytes: int | None


@dataclass(frozen=True)
class CacheRun:
    """A cache's hits and misses, use by use.

    Attributes:
        policy: a name.
        capacity: of the cache.
        count: which events are counted.
        events: of the trace.
        hit: bool ``[uses]``, of every use of ``events``, counted or not.
    """

    policy: str
    capacity: Capacity
    count: Count
    events: Events
    hit: NDArray[np.bool_]

    def result(self) -> CacheResult:
        """The totals.

        Raises:
            ForestageError: if there is no event to count.
        """
        layers = self.events.layers
        lookups, hits = self._tallies(self.events.layer, layers)
        if not lookups.any():
            raise ForestageError(
                f"count: the trace has no {self.count} event; count all, or give a trace with decode tokens"
            )
        expert_bytes = self.capacity.expert_bytes
        return CacheResult(
            policy=self.policy,
            scope=self.capacity.scope,
            count=self.count,
            capacity=self.capacity.experts,
            capacity_bytes=self.capacity.bytes,
            lookups=int(lookups.sum()),
            hits=int(hits.sum()),
            hit_rate=float(hits.sum() / lookups.sum()),
            hit_rate_by_layer=[float(h / n) if n else None for h, n in zip(hits, lookups, strict=True)],
            loads=int((lookups - hits).sum()),
            loaded_bytes=None if expert_bytes is None else int(((lookups - hits) * expert_bytes).sum()),
        )

    def by_sequence(self, sequence_offsets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Lookups and hits i64 ``[sequences]`` of the events counted, of the trace with these offsets."""
        sequence_of = np.searchsorted(sequence_offsets, self.events.token, side="right") - 1
        return self._tallies(sequence_of, len(sequence_offsets) - 1)

    def _tallies(self, group_of: NDArray[np.integer], groups: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Lookups and hits i64 ``[groups]``, counted by ``group_of [events]``."""
        counted = self.events.decode if self.count == "decode" else np.ones(len(self.events.layer), np.bool_)
        uses = np.diff(self.events.offsets)
        use_group = np.repeat(group_of, uses)
        use_counted = np.repeat(counted, uses)
        lookups = np.bincount(use_group[use_counted], minlength=groups)
        hits = np.bincount(use_group[use_counted & self.hit], minlength=groups)
        return lookups, hits
