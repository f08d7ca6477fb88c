"""A trace as the order in which a device meets it: events, each the experts that one layer needs together.

Decode: one event a (token, layer), tokens in order, layers ascending. Prefill: a prompt runs layer by layer, so the
consecutive prefill tokens of a sequence are one *pass*, and one event a (pass, layer) holds each expert that any of the
pass's tokens chose, once, in the order of first choice. ``by_token`` treats prefill like decode instead. A row that was
not recorded makes no event; sequences follow each other.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from traces import DECODE, RoutingTrace
from traces.compiled import njit

NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Events:
    """Events of a trace; an expert of a layer is the key ``layer · experts + expert``.

    Attributes:
        keys: i32 ``[uses]``, the distinct keys of each event, concatenated.
        offsets: i64 ``[events + 1]`` into ``keys``.
        layer: i32 ``[events]``.
        decode: bool ``[events]``.
        token: i64 ``[events]``, its token; of a pass the last one.
        layers, experts: shape of the model.
    """

    keys: NDArray[np.int32]
    offsets: NDArray[np.int64]
    layer: NDArray[np.int32]
    decode: NDArray[np.bool_]
    token: NDArray[np.int64]
    layers: int
    experts: int


def events_of(trace: RoutingTrace, *, by_token: bool = False) -> Events:
    """The events of ``trace``; takes about 4 bytes a use and 21 an event."""
    most_events = trace.tokens * trace.layers
    keys = np.empty(most_events * trace.top_k, np.int32)
    offsets = np.zeros(most_events + 1, np.int64)
    layer = np.empty(most_events, np.int32)
    decode = np.empty(most_events, np.bool_)
    token = np.empty(most_events, np.int64)
    stamp = np.full(trace.layers * trace.experts, -1, np.int64)
    count = 0
    for index in range(trace.sequences):
        part = trace.sequence(index)
        is_decode = part.phase == DECODE
        count = _append_sequence(
            part.expert_ids,
            part.recorded(),
            is_decode,
            by_token,
            trace.experts,
            stamp,
            keys,
            offsets,
            layer,
            decode,
            token,
            int(trace.sequence_offsets[index]),
            count,
        )
    return Events(
        keys=keys[: offsets[count]],
        offsets=offsets[: count + 1],
        layer=layer[:count],
        decode=decode[:count],
        token=token[:count],
        layers=trace.layers,
        experts=trace.experts,
    )


def next_uses(events: Events) -> NDArray[np.int64]:
    """For each use, the next event that needs the same key, or ``NEVER``: i64 ``[uses]``."""
    following = np.empty(len(events.keys), np.int64)
    _fill_next_uses(events.keys, events.offsets, np.full(events.layers * events.experts, NEVER), following)
    return following


@njit()
def _append_sequence(
    ids: NDArray[np.uint8 | np.uint16],
    recorded: NDArray[np.bool_],
    is_decode: NDArray[np.bool_],
    by_token: bool,
    experts: int,
    stamp: NDArray[np.int64],
    keys: NDArray[np.int32],
    offsets: NDArray[np.int64],
    layer_of: NDArray[np.int32],
    decode: NDArray[np.bool_],
    token_of: NDArray[np.int64],
    first_token: int,
    count: int,
) -> int:
    """Append one sequence's events after the ``count`` there are; returns the new count.

    ``stamp[key]`` is the last event that holds the key.
    """
    tokens, layers, top_k = ids.shape
    begin = 0
    while begin < tokens:
        end = begin + 1
        if not (by_token or is_decode[begin]):
            while end < tokens and not is_decode[end]:
                end += 1
        for layer in range(layers):
            uses = offsets[count]
            for token in range(begin, end):
                if not recorded[token, layer]:
                    continue
                for i in range(top_k):
                    key = layer * experts + ids[token, layer, i]
                    if stamp[key] != count:
                        stamp[key] = count
                        keys[uses] = key
                        uses += 1
            if uses > offsets[count]:
                layer_of[count] = layer
                decode[count] = is_decode[begin]
                token_of[count] = first_token + end - 1
                count += 1
                offsets[count] = uses
        begin = end
    return count


@njit()
def _fill_next_uses(
    keys: NDArray[np.int32], offsets: NDArray[np.int64], upcoming: NDArray[np.int64], following: NDArray[np.int64]
) -> None:
    for event in range(len(offsets) - 2, -1, -1):
        for use in range(offsets[event], offsets[event + 1]):
            following[use] = upcoming[keys[use]]
            upcoming[keys[use]] = event
