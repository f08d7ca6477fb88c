"""A batch as the order in which a device meets it: a step runs layer by layer, for all of its tokens at once.

One event a (step, layer) holds each expert that any token of the step chose, once, in the order of first choice
(sequence slot by sequence slot, tokens in order). A step that holds a decode token is a decode event, whatever else it
holds.
"""

import numpy as np
from numpy.typing import NDArray

from staging.events import Events
from traces import DECODE, RoutingTrace
from traces.batch import BatchSchedule
from traces.compiled import njit
from traces.statistics.batches import gather_ids
from traces.trace import CHUNK_TOKENS


def batch_events(trace: RoutingTrace, schedule: BatchSchedule) -> Events:
    """The events of ``schedule``, which was made for ``trace``; ``token`` is the last one of a step.

    Steps are no sequences: the tokens of successive events do not ascend, so nothing that walks by tokens takes them.
    """
    offsets_of = schedule.step_offsets
    most = np.minimum(np.diff(offsets_of) * trace.top_k, trace.experts) * trace.layers
    keys = np.empty(int(most.sum()), np.int32)
    offsets = np.zeros(schedule.steps * trace.layers + 1, np.int64)
    layer = np.empty(schedule.steps * trace.layers, np.int32)
    step = np.empty(schedule.steps * trace.layers, np.int64)
    stamp = np.full(trace.layers * trace.experts, -1, np.int64)
    count = first = 0
    while first < schedule.steps:
        last = int(np.searchsorted(offsets_of, offsets_of[first] + CHUNK_TOKENS, side="right")) - 1
        last = min(max(last, first + 1), schedule.steps)
        ids = gather_ids(trace, schedule.token[offsets_of[first] : offsets_of[last]])
        within = offsets_of[first : last + 1] - offsets_of[first]
        count = _append_steps(ids, within, trace.experts, first, stamp, keys, offsets, layer, step, count)
        first = last
    decoded = (trace.phase[schedule.token] == DECODE).astype(np.int64)
    holds_decode = np.add.reduceat(decoded, offsets_of[:-1]) > 0
    return Events(
        keys=keys[: offsets[count]],
        offsets=offsets[: count + 1],
        layer=layer[:count],
        decode=holds_decode[step[:count]],
        token=schedule.token[offsets_of[1:] - 1][step[:count]],
        layers=trace.layers,
        experts=trace.experts,
    )


@njit()
def _append_steps(
    ids: NDArray[np.uint8 | np.uint16],
    within: NDArray[np.int64],
    experts: int,
    first_step: int,
    stamp: NDArray[np.int64],
    keys: NDArray[np.int32],
    offsets: NDArray[np.int64],
    layer_of: NDArray[np.int32],
    step_of: NDArray[np.int64],
    count: int,
) -> int:
    """Append the events of some steps after the ``count`` there are; returns the new count.

    ``within [steps + 1]`` are the steps' first tokens in ``ids``, ``stamp[key]`` the last event that holds the key; an
    id ≥ experts marks an unrecorded row.
    """
    layers, top_k = ids.shape[1:]
    for step in range(len(within) - 1):
        for layer in range(layers):
            uses = offsets[count]
            for token in range(within[step], within[step + 1]):
                if ids[token, layer, 0] >= experts:
                    continue
                for i in range(top_k):
                    key = layer * experts + ids[token, layer, i]
                    if stamp[key] != count:
                        stamp[key] = count
                        keys[uses] = key
                        uses += 1
            if uses > offsets[count]:
                layer_of[count] = layer
                step_of[count] = first_step + step
                count += 1
                offsets[count] = uses
    return count
