"""The null of every replacement policy: what popularity alone gives, order left aside.

The most used experts of the events counted are held from the start to the end and nothing ever moves. It is the best
static placement, chosen in hindsight; what a policy hits beyond it is owed to the order of the tokens. (Where experts
differ in size the most used ones a byte are taken first, which is near the best but not always it.) It pays no first
load, so at large capacities it lies above even Belady's rule, which begins empty.

Chosen from other events (``profile``: of the training sequences) it is a placement that somebody could have made, and
the hindsight is its bound.
"""

import numpy as np
from numpy.typing import NDArray

from staging.counting import Count
from staging.events import Events
from staging.results import CacheRun, Capacity

STATIC = "static"
PROFILED = "static, profiled"


def run_static(
    events: Events, capacity: Capacity, *, count: Count = "decode", profile: Events | None = None
) -> CacheRun:
    """Hold the most used experts, of each layer or of all, throughout; of equal ones the first (layer, id).

    Args:
        events: of the trace.
        capacity: of the cache.
        count: the events that are counted, by whose uses experts are chosen.
        profile: other events of the same model, by whose counted uses they are chosen instead.
    """
    sizes, room = capacity.units(events.layers)
    keys = counted_keys(events if profile is None else profile, count)
    uses = np.bincount(keys, minlength=events.layers * events.experts).reshape(events.layers, events.experts)
    held = np.zeros(events.layers * events.experts, np.bool_)
    key_sizes = np.repeat(sizes, events.experts)
    order = np.argsort(-(uses.ravel() / key_sizes), kind="stable")
    groups = order // events.experts if capacity.scope == "layer" else np.zeros(len(order), np.int64)
    for group in np.unique(groups):
        mine = order[groups == group]
        left = room
        for key in mine.tolist():
            if key_sizes[key] <= left:
                held[key] = True
                left -= int(key_sizes[key])
    return CacheRun(STATIC if profile is None else PROFILED, capacity, count, events, held[events.keys])


def counted_keys(events: Events, count: Count) -> NDArray[np.int32]:
    """The keys ``[uses]`` of the events that are counted."""
    counted = events.decode if count == "decode" else np.ones(len(events.layer), np.bool_)
    return events.keys[np.repeat(counted, np.diff(events.offsets))]
