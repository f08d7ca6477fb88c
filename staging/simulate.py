"""Hit rates over a trace: the stager's decisions in zero time, under values of many kinds.

A policy is what the values are: none (the least recently used gives way), the uses so far, decayed use counters, or a
predictor's of next use.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from catalog.errors import ForestageError, SettingError
from staging.belady import belady_values
from staging.counting import Count, Counting, Prefill, counting_of, counting_of_batch
from staging.events import Events, batch_events, events_of
from staging.frequency import DEFAULT_SHIFT, decayed_counts
from staging.results import CacheResult, CacheRun, Capacity, Scope
from staging.sized_cache import SizedCache
from staging.stager.zero_time import ZeroTimeStager
from traces import RoutingTrace
from traces.batch import BatchSchedule

Policy = Literal["lru", "lfu", "ema", "belady"]


def simulate(
    trace: RoutingTrace,
    *,
    capacity: int | None = None,
    capacity_bytes: int | None = None,
    expert_bytes: NDArray[np.int64] | None = None,
    policy: Policy = "lru",
    scope: Scope = "layer",
    count: Count | None = None,
    prefill: Prefill | None = None,
    ema_shift: int = DEFAULT_SHIFT,
    schedule: BatchSchedule | None = None,
) -> CacheResult:
    """Run ``trace`` through a cache that is empty at first and lives on from sequence to sequence.

    Args:
        trace: the routing.
        capacity, capacity_bytes, expert_bytes, scope: see ``Capacity``.
        policy: ``lru``; ``lfu``: fewest uses since the start (counted on after an eviction too), then least recent;
            ``ema``: smallest decayed counter, see ``staging.frequency``; ``belady``: see ``staging.belady``.
        count: ``decode`` counts decode events alone (prefill still fills the cache); ``all`` counts every event;
            ``None`` as ``staging.counting`` says.
        prefill: ``pass``: layer by layer, each expert once a pass; ``token``: as decode (see ``staging.events``);
            ``None`` as ``staging.counting`` says.
        ema_shift: of the decayed counters.
        schedule: a batch of ``trace``, in place of its single requests (see ``staging.events``).

    Raises:
        ForestageError: for a capacity that is missing, given twice or not positive, sizes of the wrong shape, an
            unknown word, ``prefill`` beside a schedule, or a trace without an event to count.
    """
    check_words(policy=policy, scope=scope)
    room = Capacity(capacity, capacity_bytes, expert_bytes, scope)
    room.units(trace.layers)
    events, counting = counted_events(trace, count=count, prefill=prefill, schedule=schedule)
    return run_policy(events, policy, room, count=counting.count, ema_shift=ema_shift).result()


def counted_events(
    trace: RoutingTrace,
    *,
    count: Count | None = None,
    prefill: Prefill | None = None,
    schedule: BatchSchedule | None = None,
) -> tuple[Events, Counting]:
    """The events of a trace, or of a batch of it, and which are counted; arguments and errors as ``simulate``."""
    check_words(count=count, prefill=prefill)
    if schedule is None:
        counting = counting_of(trace, count, prefill)
        return events_of(trace, by_token=counting.prefill == "token"), counting
    if prefill is not None:
        raise ForestageError("prefill: a batch's schedule says how prompts run; leave it out")
    return batch_events(trace, schedule), counting_of_batch(trace, count)


def run_policy(
    events: Events, policy: Policy, capacity: Capacity, *, count: Count = "decode", ema_shift: int = DEFAULT_SHIFT
) -> CacheRun:
    """One cache over ``events``; arguments as ``simulate``."""
    hit = np.zeros(len(events.keys), np.bool_)
    if policy == "ema":
        cache = _cache(events, capacity, by_recency=False)
        done = 0
        for rows in decayed_counts(events, ema_shift):
            last = done + len(rows)
            cache.run(events.keys, events.offsets[done : last + 1], events.layer[done:last], hit, rows=rows)
            done = last
    else:
        use_values = _USE_VALUES[policy](events)
        cache = _cache(events, capacity, by_recency=True)
        cache.run(events.keys, events.offsets, events.layer, hit, use_values=use_values)
    return CacheRun(policy, capacity, count, events, hit)


PriorityChunks = Iterable[tuple[int, NDArray[np.int32], NDArray[np.int32] | None]]
"""``(first token, priorities i32 [tokens, layers, experts], the same set ahead or None)``, tokens ascending."""


def run_priorities(
    events: Events,
    policy: str,
    chunks: PriorityChunks,
    capacities: Sequence[Capacity],
    *,
    lookahead: int = 0,
    count: Count = "decode",
) -> list[CacheRun]:
    """Caches in which the resident of lowest priority gives way, all over one pass of priorities from outside.

    At the event of (token, layer) the layer's priorities become that row of the first array, and before anything gives
    way. Where a chunk has a second array, the priorities of ``layer + lookahead`` become *its* row of that at the same
    event: refreshed before the layer's own gate is known. Of equal priorities the larger (layer, expert) gives way.

    Args:
        events: of single requests (not of a batch); at the event of a pass, the rows are those of its last token.
        policy: the name that results carry.
        chunks: over all tokens of the trace; an array may be reused for the next chunk.
        capacities: of the caches; one run each is returned, in this order.
        lookahead: layers between an event and the layer whose priorities are refreshed at it, at least 1.
        count: as ``simulate``.
    """
    caches = [_cache(events, capacity, by_recency=False) for capacity in capacities]
    hits = [np.zeros(len(events.keys), np.bool_) for _ in capacities]
    for first_token, rows, ahead in chunks:
        done, last = np.searchsorted(events.token, (first_token, first_token + len(rows)))
        layer = events.layer[done:last]
        token = events.token[done:last] - first_token
        own = rows[token, layer]
        target = np.minimum(layer + lookahead, events.layers - 1)  # above the top nothing is refreshed
        ahead_rows = None if ahead is None else ahead[token, target]
        for cache, hit in zip(caches, hits, strict=True):
            cache.run(
                events.keys, events.offsets[done : last + 1], layer, hit,
                rows=own, ahead_rows=ahead_rows, lookahead=lookahead,
            )  # fmt: skip
    return [CacheRun(policy, capacity, count, events, hit) for capacity, hit in zip(capacities, hits, strict=True)]


def check_words(**words: str | Sequence[str] | None) -> None:
    """Raise unless ``policy``, ``scope``, ``count`` and ``prefill`` are words known; ``None`` is not given.

    Raises:
        SettingError: naming the field, the word and what is known.
    """
    known = {
        "policy": get_args(Policy),
        "scope": get_args(Scope),
        "count": get_args(Count),
        "prefill": get_args(Prefill),
    }
    for field, given in words.items():
        for word in [given] if isinstance(given, str) else given or ():
            if word not in known[field]:
                raise SettingError(
                    field,
                    f"choose {' or '.join(known[field])}",
                    value=word,
                    message=f"{field}: unknown '{word}'; choose {' or '.join(known[field])}",
                )


def _cache(events: Events, capacity: Capacity, *, by_recency: bool) -> ZeroTimeStager | SizedCache:
    """A stager with ``capacity`` in experts, of each layer or of all; a cache of its own where that is in bytes."""
    sizes, room = capacity.units(events.layers)
    per_layer = capacity.scope == "layer"
    if capacity.bytes is not None:
        return SizedCache.empty(sizes, events.experts, room, per_layer=per_layer, by_recency=by_recency)
    shares = (room,) * (events.layers if per_layer else 1)
    return ZeroTimeStager.empty(events.layers, events.experts, shares, by_recency=by_recency)


def _uses_so_far(events: Events) -> NDArray[np.int32]:
    """Of each use i32 ``[uses]``, the uses of its key up to and with this one."""
    counts = np.empty(len(events.keys), np.int32)
    _fill_uses(events.keys, np.zeros(events.layers * events.experts, np.int32), counts)
    return counts


# Of each use, the value that its key keeps until its next one; of equals the least recent gives way.
_USE_VALUES: dict[str, Callable[[Events], NDArray[np.int32] | None]] = {
    "lru": lambda events: None,
    "lfu": _uses_so_far,
    "belady": belady_values,
}


@njit()
def _fill_uses(keys: NDArray[np.int32], uses: NDArray[np.int32], counts: NDArray[np.int32]) -> None:
    for use in range(len(keys)):
        uses[keys[use]] += 1
        counts[use] = uses[keys[use]]
