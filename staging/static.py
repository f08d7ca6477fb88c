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

from catalog.errors import SettingError
from staging.counting import Count
from staging.events import Events
from staging.results import CacheRun, Capacity, Scope
from staging.steps import StepExperts, Steps

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
    held[_most_used(uses, sizes, room, capacity.scope)] = True
    return CacheRun(STATIC if profile is None else PROFILED, capacity, count, events, held[events.keys])


def hottest(uses: NDArray[np.int64], held: int, scope: Scope = "global") -> NDArray[np.int64]:
    """The keys (``layer · experts + expert``) of the most used experts, the most used last; of equals the first last.

    Args:
        uses: i64 ``[layers, experts]``, as ``uses_of``.
        held: how many experts, of each layer (scope ``layer``) or of all.
        scope: one choice a layer, or one for all.

    Raises:
        SettingError: for fewer than 0 or more than there are.
    """
    most = uses.shape[1] if scope == "layer" else uses.size
    if not 0 <= held <= most:
        raise SettingError("held", f"choose 0 to {most} experts", value=held)
    keys = np.array(_most_used(uses, np.ones(len(uses), np.int64), held, scope), np.int64)
    return keys[np.lexsort((keys, -uses.ravel()[keys]))][::-1].copy()


def uses_of(steps: Steps, needed: StepExperts, layers: int, experts: int) -> NDArray[np.int64]:
    """How many timed steps need each expert: i64 ``[layers, experts]``."""
    widths = np.diff(needed.offsets)
    layer = np.repeat(np.tile(np.arange(layers), len(steps)), widths)
    timed = np.repeat(np.repeat(steps.timed, layers), widths)
    keys = layer[timed] * experts + needed.experts[timed]
    return np.bincount(keys, minlength=layers * experts).reshape(layers, experts).astype(np.int64)


def counted_keys(events: Events, count: Count) -> NDArray[np.int32]:
    """The keys ``[uses]`` of the events that are counted."""
    counted = events.decode if count == "decode" else np.ones(len(events.layer), np.bool_)
    return events.keys[np.repeat(counted, np.diff(events.offsets))]


def _most_used(uses: NDArray[np.int64], sizes: NDArray[np.int64], room: int, scope: Scope) -> list[int]:
    """Keys of the experts most used by size that fit ``room``, of each layer or of all; of equal ones the first.

    ``sizes [layers]`` are those of an expert of each layer.
    """
    experts = uses.shape[1]
    key_sizes = np.repeat(sizes, experts)
    order = np.argsort(-(uses.ravel() / key_sizes), kind="stable")
    groups = order // experts if scope == "layer" else np.zeros(len(order), np.int64)
    held = []
    for group in np.unique(groups):
        left = room
        for key in order[groups == group].tolist():
            if key_sizes[key] <= left:
                held.append(key)
                left -= int(key_sizes[key])
    return held
