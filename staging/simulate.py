"""Hit rates of a cache of experts over a trace, by the event rule of ``staging.residency``."""

from typing import Literal, get_args

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from catalog.errors import ForestageError
from staging.belady import belady_ranks
from staging.events import Events, events_of
from staging.heap_cache import run_cache
from traces import RoutingTrace

Policy = Literal["lru", "lfu", "belady"]
Scope = Literal["layer", "global"]
Count = Literal["decode", "all"]
Prefill = Literal["pass", "token"]

# A least-frequently-used rank is (uses so far, time of the last use); 2^36 uses are 69 GB of trace.
_TIME_BITS = 36


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

    policy: Policy
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


def simulate(
    trace: RoutingTrace,
    *,
    capacity: int | None = None,
    capacity_bytes: int | None = None,
    expert_bytes: NDArray[np.int64] | None = None,
    policy: Policy = "lru",
    scope: Scope = "layer",
    count: Count = "decode",
    prefill: Prefill = "pass",
) -> CacheResult:
    """Run ``trace`` through a cache that is empty at first and lives on from sequence to sequence.

    Args:
        trace: the routing.
        capacity: experts that fit, in each layer's cache (scope ``layer``) or in all (``global``).
        capacity_bytes: in place of ``capacity``, bytes that fit; needs ``expert_bytes``.
        expert_bytes: i64 ``[layers]``, bytes of one expert of each layer.
        policy: ``lru``; ``lfu``: fewest uses since the start (counted on after an eviction too), then least recent;
            ``belady``: see ``staging.belady``.
        scope: one cache a layer, or one for all.
        count: ``decode`` counts decode events alone (prefill still fills the cache); ``all`` counts every event.
        prefill: ``pass``: layer by layer, each expert once a pass; ``token``: as decode (see ``staging.events``).

    Raises:
        ForestageError: for a capacity that is missing, given twice or not positive, sizes of the wrong shape, an
            unknown word, or a trace without an event to count.
    """
    _check_words(policy=policy, scope=scope, count=count, prefill=prefill)
    sizes, capacity_units = _units(trace, capacity, capacity_bytes, expert_bytes)
    events = events_of(trace, by_token=prefill == "token")
    counted = events.decode if count == "decode" else np.ones(len(events.layer), np.bool_)
    if not counted.any():
        raise ForestageError(f"count: the trace has no {count} event; count all, or give a trace with decode tokens")
    hit = run_cache(
        events.keys, events.offsets, _RANKS[policy](events), events.layer, sizes, capacity_units,
        scope == "layer", events.experts,
    )  # fmt: skip
    use_layer = np.repeat(events.layer, np.diff(events.offsets))
    use_counted = np.repeat(counted, np.diff(events.offsets))
    lookups = np.bincount(use_layer[use_counted], minlength=trace.layers)
    hits = np.bincount(use_layer[use_counted & hit], minlength=trace.layers)
    return CacheResult(
        policy=policy,
        scope=scope,
        count=count,
        capacity=capacity,
        capacity_bytes=capacity_bytes,
        lookups=int(lookups.sum()),
        hits=int(hits.sum()),
        hit_rate=float(hits.sum() / lookups.sum()),
        hit_rate_by_layer=[float(h / n) if n else None for h, n in zip(hits, lookups, strict=True)],
        loads=int((lookups - hits).sum()),
        loaded_bytes=None if expert_bytes is None else int(((lookups - hits) * sizes).sum()),
    )


def _check_words(**words: str) -> None:
    known = {
        "policy": tuple(_RANKS),
        "scope": get_args(Scope),
        "count": get_args(Count),
        "prefill": get_args(Prefill),
    }
    for field, word in words.items():
        if word not in known[field]:
            raise ForestageError(f"{field}: unknown '{word}'; choose {' or '.join(known[field])}")


def _units(
    trace: RoutingTrace, capacity: int | None, capacity_bytes: int | None, expert_bytes: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], int]:
    """Size of an expert of each layer i64 ``[layers]`` and the capacity, both in experts or both in bytes."""
    if (capacity is None) == (capacity_bytes is None):
        raise ForestageError("capacity: give either capacity (experts) or capacity_bytes, one of them")
    if expert_bytes is not None and (np.shape(expert_bytes) != (trace.layers,) or np.min(expert_bytes) < 1):
        raise ForestageError(f"expert_bytes: give {trace.layers} positive sizes, one a layer")
    chosen = capacity if capacity is not None else capacity_bytes
    assert chosen is not None
    if chosen < 1:
        raise ForestageError(f"capacity: {chosen}; give 1 or more")
    if capacity is not None:
        return np.ones(trace.layers, np.int64), chosen
    if expert_bytes is None:
        raise ForestageError("capacity_bytes: needs expert_bytes, the bytes of one expert of each layer")
    return np.asarray(expert_bytes, np.int64), chosen


def _lru_ranks(events: Events) -> NDArray[np.int64]:
    """The time of the use."""
    return np.arange(len(events.keys), dtype=np.int64)


def _lfu_ranks(events: Events) -> NDArray[np.int64]:
    """(uses of the key so far, time of the use)."""
    ranks = np.empty(len(events.keys), np.int64)
    _fill_lfu_ranks(events.keys, np.zeros(events.layers * events.experts, np.int64), ranks)
    return ranks


# Of each use, the rank that its key has from then on; the lowest rank gives way first.
_RANKS = {"lru": _lru_ranks, "lfu": _lfu_ranks, "belady": belady_ranks}


@njit(cache=True)
def _fill_lfu_ranks(keys: NDArray[np.int32], uses: NDArray[np.int64], ranks: NDArray[np.int64]) -> None:
    for use in range(len(keys)):
        uses[keys[use]] += 1
        ranks[use] = (uses[keys[use]] << _TIME_BITS) | use
