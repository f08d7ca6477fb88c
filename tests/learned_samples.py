"""Row networks with random tables, and traces with token identities, for tests."""

from dataclasses import replace
from typing import Any

import numpy as np

from predictor.next_layer.predictor import NextLayerPredictor
from predictor.next_layer.recipes import NextLayerConfig
from predictor.next_use.predictor import NextUsePredictor
from predictor.next_use.recipes import NextUseConfig
from predictor.row_network.config import NetworkConfig
from predictor.row_network.file import Provenance, Validation
from predictor.row_network.integers import NetworkTables, expected_shapes
from predictor.row_network.sources import feeding_layers
from tests.st_moe_samples import routing_trace
from traces import RoutingTrace

SMALL: dict[str, Any] = {
    "hidden": 6,
    "layers_back": 2,
    "previous": ((1, 1), (0, 0)),
    "decays": ((1, 1), (4, 1)),
    "identity_rows": 5,
    "identities": 2,
    "ngram_tables": (1, 2),
    "ngram_entries": 4,
    "continuation_windows": ((0, 1), (2, 4)),
    "log_tokens": 8,
}
"""Few entries and a short log, so that keys collide and the log comes round."""

SMALL_NEXT_USE: dict[str, Any] = {
    **SMALL, "hidden": 5, "horizons": (1, 3), "previous": ((1, 1),), "decays": ((1, 0), (3, 1)),
    "identity_rows": 0, "identities": 0,
}  # fmt: skip

PROVENANCE = Provenance(
    model="test",
    trained_on="nothing: random tables",
    synthetic=True,
    training={},
    log=(),
    validation=Validation(),
    machine="none",
)


def random_tables(
    config: NetworkConfig, generator: np.random.Generator, *, layers: int, experts: int, adaptation: bool
) -> NetworkTables:
    """Random integers, with shifts such that scores neither saturate nor vanish as a rule."""
    shapes = {name: shape for name, (_, shape) in expected_shapes(config, layers=layers, experts=experts).items()}
    present = feeding_layers(config, layers=layers) >= 0
    return NetworkTables(
        rows=(generator.integers(-127, 128, shapes["rows"], np.int8) * present[:, :, None, None]).astype(np.int8),
        source_shifts=(generator.integers(0, 4, shapes["source_shifts"]) * present).astype(np.uint8),
        bias=generator.integers(-500, 500, shapes["bias"], np.int32),
        identity_rows=generator.integers(-127, 128, shapes["identity_rows"], np.int8),
        identity_shifts=generator.integers(0, 4, shapes["identity_shifts"]).astype(np.uint8),
        identity_tokens=np.arange(10, 10 + max(0, config.identity_rows - 1), dtype=np.uint32),
        hidden_shifts=generator.integers(2, 6, layers).astype(np.uint8),
        output=generator.integers(-127, 128, shapes["output"], np.int8),
        output_bias=generator.integers(-5000, 5000, shapes["output_bias"], np.int32),
        score_shifts=generator.integers(4, 7, layers).astype(np.uint8),
        adaptations=(generator.integers(9, 12, layers) * adaptation).astype(np.uint8),
        chances=np.sort(generator.integers(0, 65536, shapes["chances"]), axis=-1).astype(np.uint16),
    )


def random_predictor(
    *,
    layers: int = 5,
    experts: int = 9,
    top_k: int = 3,
    lookahead: int = 1,
    ranked: bool = True,
    seed: int = 0,
    adaptation: bool = True,
    **config: Any,
) -> NextLayerPredictor:
    """A next-layer predictor that is asked at ``lookahead``; it serves that alone unless ``config`` says otherwise."""
    ends = {"nearest": lookahead, "farthest": lookahead}
    chosen = NextLayerConfig(**{**SMALL, **ends, **config})
    tables = random_tables(chosen, np.random.default_rng(seed), layers=layers, experts=experts, adaptation=adaptation)
    return NextLayerPredictor(tables, chosen, top_k=top_k, ranked=ranked, provenance=PROVENANCE, lookahead=lookahead)


def random_next_use(
    generator: np.random.Generator,
    *,
    layers: int,
    experts: int,
    top_k: int,
    lookahead: int = 0,
    ranked: bool = False,
    **config: Any,
) -> NextUsePredictor:
    """A next-use predictor of two horizons that is asked at ``lookahead``, and serves that alone."""
    ends = {"nearest": lookahead, "farthest": lookahead}
    chosen = NextUseConfig(**{**SMALL_NEXT_USE, **ends, **config})
    tables = random_tables(chosen, generator, layers=layers, experts=experts, adaptation=False)
    return NextUsePredictor(tables, chosen, top_k=top_k, ranked=ranked, provenance=PROVENANCE)


def identified_trace(**shape: Any) -> RoutingTrace:
    """``routing_trace`` with token identities 8 … 11, of which ``random_predictor`` knows 10 and 11."""
    trace = routing_trace(**shape)
    hashes = np.random.default_rng(shape.get("seed", 0)).integers(8, 12, trace.tokens).astype(np.uint32)
    return replace(trace, token_hash=hashes)
