"""Tables of random integers, and traces whose future can be learnt, for the tests of next use."""

from dataclasses import replace

import numpy as np

from predictor.next_use.parameters import NextUseParameters
from predictor.next_use.tables import ARRAYS, NextUseTables
from predictor.next_use.twin import NextUsePredictor
from tests.routing import trace_of
from traces import RoutingTrace

SMALL = {
    "hidden": 5, "horizons": (1, 3), "layers_back": 1, "previous_above": 1, "history_shifts": (1, 3),
    "contexts": (1, 2), "context_entries": 4, "follow": ((0, 1), (2, 4)), "log_tokens": 8,
}  # fmt: skip
"""Few entries and a short log, so that keys collide and the log comes round."""

IDENTITIES = np.array([1, 5, 9, 2, (1 << 32) - 3], np.uint32)
"""Some with one entry in common."""


def random_predictor(
    generator: np.random.Generator, *, layers: int, experts: int, top_k: int, lookahead: int = 0, **changed: object
) -> NextUsePredictor:
    """Integers of every size that their fields allow."""
    parameters = NextUseParameters(**{**SMALL, **changed}, lookahead=lookahead)
    shapes = NextUseTables.shapes(parameters, layers, experts)
    ranges = {
        "rows": (-128, 128),
        "bias": (-300, 300),
        "gain": (-3, 4),
        "activation_shift": (0, 3),
        "output": (-128, 128),
        "output_bias": (-9000, 9000),
        "output_shift": (8, 11),
    }
    arrays = {name: generator.integers(*ranges[name], shapes[name]).astype(dtype) for name, dtype in ARRAYS.items()}
    tables = NextUseTables(parameters=parameters, layers=layers, experts=experts, top_k=top_k, **arrays)
    return NextUsePredictor(tables, model="test", trained_on="nothing")


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
