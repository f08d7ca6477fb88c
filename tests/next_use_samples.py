"""Traces whose future can be learnt, or is random, for the tests of next use."""

from dataclasses import replace

import numpy as np

from tests.routing import trace_of
from traces import RoutingTrace

IDENTITIES = np.array([1, 5, 9, 2, (1 << 32) - 3], np.uint32)
"""Some with one entry in common."""


def random_trace(generator: np.random.Generator, *, layers: int, experts: int, top_k: int, tokens: int) -> RoutingTrace:
    """Several sequences of random routing and few identities, some rows not recorded."""
    ids = generator.random((tokens, layers, experts)).argsort(axis=-1)[..., :top_k]
    ids[generator.random((tokens, layers)) < 0.2] = 255
    cuts = np.sort(generator.choice(np.arange(1, tokens), size=min(3, tokens - 1), replace=False))
    trace = trace_of(ids, experts=experts, lengths=np.diff([0, *cuts, tokens]).tolist())
    return replace(trace, token_hash=generator.choice(IDENTITIES, tokens))


def cyclic_trace(sequences: int = 12, length: int = 60, layers: int = 2, experts: int = 8) -> RoutingTrace:
    """Each layer goes round its experts, two a token: the worst for LRU, and known at once to who learns it."""
    token = np.arange(sequences * length)[:, None, None]
    ids = (2 * token + np.arange(layers)[None, :, None] + np.arange(2)) % experts
    return trace_of(ids, experts=experts, lengths=[length] * sequences, model="cyclic")
