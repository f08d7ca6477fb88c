"""The state of a compiled stager: records by key, by layer and by group, and the numbers of which there is one each."""

from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from staging.stager.answers import Kind, StagerCounters, Why
from staging.stager.cycles import look_cycles, scan_cycles, values_cycles
from staging.stager.directory import NO_PLACE, NONE
from staging.stager.limits import StagerLimits, StagerSettings

Records = NDArray[Any]
"""Of a structured type: ``records[i].field``."""

KINDS = tuple(Kind)
"""What the code of an action means."""

REASONS = (None, *Why)
"""What the code of a reason means."""

COUNTERS = tuple(field.name for field in fields(StagerCounters))

ENTRY = {"_nrt": False}
"""Numba's options for what Python calls, and allocates nothing: without them it counts references to every array that a
line names, in atomic steps, which took nine tenths of the time."""

COMMAND = {**ENTRY, "forceinline": True}
"""For what Python calls, and compiled code all the time: a call hands over every array of the state, one by one, which
takes longer than what most commands do."""

INSIDE = {**ENTRY, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""For what only compiled code calls, seldom or at several places: it compiles faster."""

INLINE = {**INSIDE, "forceinline": True}
"""For what only compiled code calls, and is small, or called at one place."""

UNKNOWN = -2
"""Of a remembered key: it is to be found anew."""

NEVER = np.iinfo(np.int64).max

KEY = np.dtype(
    [
        ("value", np.int64),
        ("chance", np.int64),
        ("deadline", np.int64),
        ("last", np.int64),
        ("layer", np.int32),
        ("place", np.int32),
        ("pins", np.int32),
        ("nth", np.int32),
        ("resident", np.int32),
        ("tries", np.int32),
        ("status", np.uint8),
        ("fixed", np.bool_),
        ("demanded", np.bool_),
        ("useless", np.bool_),
        ("unused", np.bool_),
    ],
    align=True,
)
"""What is known of an expert.

``tries``: transfers of a demand that failed. ``useless``: moving, and given up at the next chunk; ``unused``: resident,
came unasked, and nobody asked since. A resident is the ``nth`` of its layer, in no order; and ``resident`` of a layer's
``n``-th key is the key of its ``n``-th resident. The rest is as in ``Directory``, and ``TransferQueue.demanded``.
"""

LAYER = np.dtype(
    [
        (name, np.int64)
        for name in (
            "residents", "lowest", "lowest_worth", "lowest_last", "most", "most_worth", "next_deadline", "wraps_at",
        )
    ],
    align=True,
)  # fmt: skip
"""How many ``residents`` a layer has; and what is remembered of it, so that a look at its group need not read its keys.

``lowest``: who gives way first, with its worth and stamp; ``most``: the absent one of most worth, with that; each
``NONE`` or ``UNKNOWN`` otherwise. Both hold until the latest gate reaches ``next_deadline`` (no key's deadline lies
between), ``lowest`` also only until so many uses have ended as ``wraps_at`` says: then a stamp may look young again.
"""

GROUP = np.dtype([("share", np.int64), ("held", np.int64)], align=True)

SETUP = np.dtype(
    [
        (name, np.int64)
        for name in (
            "layers", "experts", "spare", "depth", "most_pins", "stamp_mask", "price", "retries",
            "scan_cycles", "look_cycles", "values_cycles",
            "value_scale", "chance_scale", "horizon", "value_limit", "chance_limit",
        )
    ]
    + [("by_recency", np.bool_), ("background", np.bool_)],
    align=True,
)  # fmt: skip
"""Limits and settings, which commands do not change."""

NUMBERS = np.dtype(
    [
        (name, np.int64)
        for name in (
            "now", "uses", "needed", "waiting", "first_free", "entries", "cycles", "all_entries", "all_cycles",
            "actions", "channel", "key", "place", "victim",
        )
    ]
    + [("demanded", np.bool_)]
    + [(name, np.int64) for name in COUNTERS],
    align=True,
)  # fmt: skip
"""What there is one each of.

``now``: the latest gate; ``uses`` that have ended; ``needed``: pins; ``waiting``: length of the queue; ``first_free``:
no place below it is free; ``entries`` and ``cycles`` of the latest command, and of all; ``actions`` of the latest
command. ``channel`` (``NONE``: none), ``key``, ``place``, ``victim`` and ``demanded`` of the transfer that the latest
``grant`` started. Then the counters of ``StagerCounters``.
"""

ACTION = np.dtype([("key", np.int64), ("kind", np.int8), ("why", np.int8)], align=True)


class State(NamedTuple):
    """Everything that a stager knows; the commands change it in place.

    Attributes:
        setup: of ``SETUP``.
        numbers: of ``NUMBERS``.
        keys: of ``KEY`` ``[layers · experts]``.
        layers: of ``LAYER`` ``[layers]``.
        groups: of ``GROUP`` ``[shares]``.
        queue: i64 ``[queue_depth + 1]``, keys that wait, the earliest first.
        moving: i64 ``[channels]``, the key on each, or ``NONE``.
        is_free: bool ``[places + spare]``.
        actions: of ``ACTION``, of the latest command in order; ``[0]``: they are not recorded, only counted.
    """

    setup: Any
    numbers: Any
    keys: Records
    layers: Records
    groups: Records
    queue: NDArray[np.int64]
    moving: NDArray[np.int64]
    is_free: NDArray[np.bool_]
    actions: Records


def empty_state(limits: StagerLimits, settings: StagerSettings, *, record_actions: bool) -> State:
    """Nothing is resident, and every value is 0.

    Raises:
        ForestageError: if the settings do not fit the limits.
    """
    settings.check(limits)
    setup = np.zeros(1, SETUP)[0]
    for name, number in {
        "layers": limits.layers,
        "experts": limits.experts,
        "spare": limits.spare,
        "depth": limits.queue_depth,
        "most_pins": limits.most_pins,
        "stamp_mask": (1 << limits.stamp_bits) - 1,
        "price": settings.price,
        "retries": settings.retries,
        "scan_cycles": scan_cycles(limits.layers if len(settings.shares) == 1 else 1, limits.experts, limits.lanes),
        "look_cycles": look_cycles(limits.queue_depth),
        "values_cycles": values_cycles(limits.experts, limits.lanes),
        "value_scale": settings.value_scale,
        "chance_scale": settings.chance_scale,
        "horizon": settings.horizon,
        "value_limit": 1 << (limits.value_bits - 1),
        "chance_limit": 1 << limits.value_bits,
        "by_recency": settings.by_recency,
        "background": settings.background,
    }.items():
        setup[name] = number
    numbers = np.zeros(1, NUMBERS)[0]
    numbers["now"] = -1
    numbers["channel"] = NONE
    keys = np.zeros(limits.keys, KEY)
    keys["layer"] = np.arange(limits.keys) // limits.experts
    keys["deadline"] = -1
    keys["place"] = NO_PLACE
    layers = np.zeros(limits.layers, LAYER)
    layers["lowest"] = layers["most"] = UNKNOWN
    layers["next_deadline"] = layers["wraps_at"] = NEVER
    groups = np.zeros(len(settings.shares), GROUP)
    groups["share"] = settings.shares
    # Of each named expert an answer and who loses its entry; each that waits; each spare place that is given back; and
    # of a transfer who loses its place.
    most_actions = 2 * limits.experts + limits.queue_depth + limits.spare + 2
    return State(
        setup=setup,
        numbers=numbers,
        keys=keys,
        layers=layers,
        groups=groups,
        queue=np.full(limits.queue_depth + 1, NONE, np.int64),
        moving=np.full(limits.channels, NONE, np.int64),
        is_free=np.ones(limits.places + limits.spare, np.bool_),
        actions=np.zeros(most_actions if record_actions else 0, ACTION),
    )
