"""A trace as the order in which caches meet it: events, each the experts that one layer needs together.

Events are made of the steps that simulations of time run (``staging.steps``) by the same walk: one event a
(step, layer) holds each expert that any token of the step chose, once, in the order of first choice. What differs is
the question. A hit rate has no time, so that

* a row that was not recorded is no event, where a step that is timed is refused without it;
* a step of a batch is one event a layer, which decodes if any of its tokens does, where a simulation of time runs its
  prompt tokens apart;
* whether an event decodes, and so is counted, stays the trace's word where ``by_token`` runs prompts token by token.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from staging.steps import Steps, batch_steps, decode_steps, recorded_experts
from traces import DECODE, RoutingTrace
from traces.batch import BatchSchedule

NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Events:
    """Events of a trace; an expert of a layer is the key ``layer · experts + expert``.

    Attributes:
        keys: i32 ``[uses]``, the distinct keys of each event, concatenated.
        offsets: i64 ``[events + 1]`` into ``keys``.
        layer: i32 ``[events]``.
        decode: bool ``[events]``.
        token: i64 ``[events]``, its token; of a pass or a batch's step the last one.
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
    """The events of ``trace``, sequence after sequence; takes about 4 bytes a use and 21 an event.

    Decode: one event a (token, layer), tokens in order, layers ascending. Prefill: a prompt runs layer by layer, so the
    consecutive prefill tokens of a sequence are one *pass*, and one event a (pass, layer) holds what all of them need;
    ``by_token`` treats prefill like decode instead.
    """
    steps = decode_steps(trace, prompts_decoded=by_token)
    return _events_of_steps(trace, steps, trace.phase[steps.tokens[steps.offsets[:-1]]] == DECODE)


def batch_events(trace: RoutingTrace, schedule: BatchSchedule) -> Events:
    """The events of ``schedule``, which was made for ``trace``: one a (step, layer), for all tokens of the step.

    Choices are in the order of sequence slots, within a slot of tokens. A step that holds a decode token decodes,
    whatever else it holds. Steps are no sequences: the tokens of successive events do not ascend, so nothing that walks
    by tokens takes them.
    """
    steps = batch_steps(trace, schedule, prompts_apart=False)
    return _events_of_steps(trace, steps, steps.timed)


def next_uses(events: Events) -> NDArray[np.int64]:
    """For each use, the next event that needs the same key, or ``NEVER``: i64 ``[uses]``."""
    following = np.empty(len(events.keys), np.int64)
    _fill_next_uses(events.keys, events.offsets, np.full(events.layers * events.experts, NEVER), following)
    return following


def _events_of_steps(trace: RoutingTrace, steps: Steps, decodes: NDArray[np.bool_]) -> Events:
    """An event for each (step, layer) that needs anything; ``decodes`` bool ``[steps]``."""
    keys, offsets = recorded_experts(trace, steps)
    layer = np.empty(len(offsets) - 1, np.int32)
    decode = np.empty(len(layer), np.bool_)
    token = np.empty(len(layer), np.int64)
    lasts = steps.tokens[steps.offsets[1:] - 1]
    count = _fill_events(decodes, lasts, trace.layers, trace.experts, keys, offsets, layer, decode, token)
    return Events(
        keys=keys,
        offsets=offsets[: count + 1],
        layer=layer[:count],
        decode=decode[:count],
        token=token[:count],
        layers=trace.layers,
        experts=trace.experts,
    )


@njit()
def _fill_events(
    decodes: NDArray[np.bool_],
    lasts: NDArray[np.int64],
    layers: int,
    experts: int,
    keys: NDArray[np.int32],
    offsets: NDArray[np.int64],
    layer_of: NDArray[np.int32],
    decode: NDArray[np.bool_],
    token_of: NDArray[np.int64],
) -> int:
    """Describe each (step, layer) that needs anything, and return how many there are.

    In place: ``keys`` come as experts, and ``offsets`` lose what needs nothing.
    """
    count = 0
    for step in range(len(decodes)):
        for layer in range(layers):
            begin, end = offsets[step * layers + layer], offsets[step * layers + layer + 1]
            if begin == end:
                continue
            for use in range(begin, end):
                keys[use] += layer * experts
            layer_of[count] = layer
            decode[count] = decodes[step]
            token_of[count] = lasts[step]
            count += 1
            offsets[count] = end
    return count


@njit()
def _fill_next_uses(
    keys: NDArray[np.int32], offsets: NDArray[np.int64], upcoming: NDArray[np.int64], following: NDArray[np.int64]
) -> None:
    for event in range(len(offsets) - 2, -1, -1):
        for use in range(offsets[event], offsets[event + 1]):
            following[use] = upcoming[keys[use]]
            upcoming[keys[use]] = event
