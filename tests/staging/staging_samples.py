"""Small traces, a cache written as plainly as can be, and the stager where nothing takes time."""

from functools import partial

import numpy as np
from hypothesis import strategies as st

from staging.stager.limits import StagerLimits, StagerSettings
from staging.stager.twin import Stager
from tests import routing
from traces import DECODE, PREFILL

UNKNOWN = 255
EMA_SHIFT = 2

trace_of = partial(routing.trace_of, experts=8)


@st.composite
def small_traces(draw, max_tokens=40, unrecorded=True):
    """Traces whose routing repeats enough for a cache to matter."""
    experts = draw(st.integers(2, 8))
    top_k = draw(st.integers(1, min(3, experts)))
    layers = draw(st.integers(1, 3))
    tokens = draw(st.integers(1, max_tokens))
    generator = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    skew = generator.random((layers, experts)) ** draw(st.sampled_from([0.5, 2]))
    ids = np.argsort(generator.random((tokens, layers, experts)) / skew, axis=-1)[..., :top_k]
    if unrecorded and draw(st.booleans()):
        missing = generator.random((tokens, layers)) < 0.2
        missing[-1, 0] = False  # a trace without any event is an error of its own
        ids[missing] = UNKNOWN
    cut = draw(st.integers(0, tokens - 1))
    lengths = [cut, tokens - cut] if cut else [tokens]
    if draw(st.booleans()):  # turns of a chat: prefill and decode alternate
        phase = (np.arange(tokens) // draw(st.integers(1, 4))) % 2
        return trace_of(ids, experts=experts, lengths=lengths, phase=phase)
    return trace_of(ids, experts=experts, prompt=draw(st.integers(0, 4)), lengths=lengths)


def plain_events(trace, *, by_token=False):
    """[(layer, is decode, [expert, …])] in the order in which a device meets them."""
    recorded = trace.recorded()
    events = []
    for sequence in range(trace.sequences):
        tokens = list(range(trace.sequence_offsets[sequence], trace.sequence_offsets[sequence + 1]))
        while tokens:
            run = [tokens.pop(0)]
            decode = trace.phase[run[0]] == DECODE
            while not (decode or by_token) and tokens and trace.phase[tokens[0]] == PREFILL:
                run.append(tokens.pop(0))
            for layer in range(trace.layers):
                chosen = [int(e) for t in run if recorded[t, layer] for e in trace.expert_ids[t, layer]]
                if chosen:
                    events.append((layer, bool(decode), list(dict.fromkeys(chosen))))
    return events


def plain_cache(events, *, capacity, policy, per_layer, sizes):
    """Hits of every event, by a cache that looks at all its contents for every eviction."""
    resident = set()
    last, uses, hits = {}, {}, []
    counters = {}  # of the layer's experts; decayed at its events
    clock = 0

    def room(layer):
        return sum(sizes[k[0]] for k in resident if not per_layer or k[0] == layer)

    def next_use(key, now):
        return next((i for i in range(now + 1, len(events)) if events[i][0] == key[0] and key[1] in events[i][2]), 1e9)

    for now, (layer, _, experts) in enumerate(events):
        keys = [(layer, e) for e in experts]
        hits.append([k in resident for k in keys])
        for key in keys:
            clock += 1
            last[key] = clock
            uses[key] = uses.get(key, 0) + 1
        for key in counters:
            if key[0] == layer:
                counters[key] -= counters[key] // 2**EMA_SHIFT
        for key in keys:
            counters[key] = counters.get(key, 0) + 2 ** (16 - EMA_SHIFT) - 1
        resident |= set(keys)
        rank = {
            "lru": lambda k: last[k],
            "lfu": lambda k: (uses[k], last[k]),
            "ema": lambda k: (counters[k], -k[0], -k[1]),
            "belady": lambda k, now=now: -next_use(k, now),
        }[policy]
        while room(layer) > capacity:
            mine = [k for k in resident if not per_layer or k[0] == layer]
            others = [k for k in mine if k not in keys]
            resident.remove(min(others or mine, key=rank))
    return hits


def streaming(layers, experts, shares, *, by_recency):
    """A stager that a whole layer's experts may be demanded of at once."""
    limits = StagerLimits(
        layers=layers, experts=experts, places=sum(shares), spare=experts, queue_depth=experts, event_experts=experts,
        value_bits=32,
    )  # fmt: skip
    return Stager(limits, StagerSettings(shares=shares, by_recency=by_recency))


def at_zero_time(stager, layer, experts):
    """One event: which of its experts were resident before it."""
    hits = stager.lookup(layer, experts)
    stager.demand(layer, experts)
    while (transfer := stager.grant().transfer) is not None:
        stager.arrive(transfer.channel)
    stager.release(layer, experts)
    return hits.tolist()
