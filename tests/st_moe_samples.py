"""Small routing traces for the tests of ST-MoE's twin and hardware."""

import numpy as np

from tests.routing import trace_of
from traces import RoutingTrace, id_dtype


def routing_trace(
    *,
    experts: int = 16,
    layers: int = 4,
    top_k: int = 3,
    lengths: tuple[int, ...] = (7, 1, 9),
    unrecorded: float = 0.0,
    seed: int = 0,
) -> RoutingTrace:
    """Routing that correlates across layers and tokens, so that tables have something to learn; ids unsorted."""
    generator = np.random.default_rng(seed)
    tokens = sum(lengths)
    follows = generator.random((layers, experts, experts)) ** 6
    ids = np.empty((tokens, layers, top_k), id_dtype(experts))
    before = np.zeros((layers, experts))
    for token in range(tokens):
        below = np.zeros(experts)
        for layer in range(layers):
            logits = generator.random(experts) + below @ follows[layer] + 0.7 * before[layer]
            ids[token, layer] = np.argsort(-logits)[:top_k]
            below = np.zeros(experts)
            below[ids[token, layer]] = 1
            before[layer] = below
    ids[generator.random((tokens, layers)) < unrecorded] = np.iinfo(ids.dtype).max
    return trace_of(ids, experts=experts, lengths=lengths)
