"""Learned predictors with random tables, and traces with token identities, for tests."""

from dataclasses import replace
from typing import Any

import numpy as np

from predictor.learned.config import LearnedConfig, TrainingConfig
from predictor.learned.context import sources
from predictor.learned.model_file import Provenance, ValidationRecall
from predictor.learned.predictor import LearnedPredictor
from predictor.learned.tables import PROBABILITY_BINS, LearnedTables, feeding_layers
from tests.st_moe_samples import routing_trace
from traces import RoutingTrace

SMALL: dict[str, Any] = {
    "hidden": 6,
    "layers_back": 2,
    "previous": (1, 0),
    "decays": (1, 4),
    "decay_reach": 1,
    "identity_rows": 5,
    "identities": 2,
    "tagged": (1, 2),
    "tagged_entries": 4,
}

PROVENANCE = Provenance(
    model="test",
    trained_on="nothing: random tables",
    synthetic=True,
    training=TrainingConfig(),
    log=(),
    validation_recall=ValidationRecall(),
    machine="none",
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
) -> LearnedPredictor:
    """Random tables, with shifts such that scores neither saturate nor vanish as a rule."""
    chosen = LearnedConfig(**{**SMALL, **config})
    generator = np.random.default_rng(seed)
    count, hidden = len(sources(chosen, lookahead)), chosen.hidden
    present = feeding_layers(chosen, layers=layers, lookahead=lookahead) >= 0
    rows = generator.integers(-127, 128, (layers, count, experts, hidden), np.int8)
    tables = LearnedTables(
        rows=(rows * present[:, :, None, None]).astype(np.int8),
        source_shifts=(generator.integers(0, 4, (layers, count)) * present).astype(np.uint8),
        bias=generator.integers(-500, 500, (layers, hidden), np.int32),
        identity_rows=generator.integers(-127, 128, (chosen.identity_rows, chosen.identities, layers, hidden), np.int8),
        identity_shifts=generator.integers(0, 4, (layers, chosen.identities)).astype(np.uint8),
        identity_tokens=np.arange(10, 10 + max(0, chosen.identity_rows - 1), dtype=np.uint32),
        hidden_shifts=generator.integers(2, 6, layers).astype(np.uint8),
        output=generator.integers(-127, 128, (layers, hidden, experts), np.int8),
        output_bias=generator.integers(-5000, 5000, (layers, experts), np.int32),
        score_shifts=generator.integers(4, 7, layers).astype(np.uint8),
        adaptations=(generator.integers(9, 12, layers) * adaptation).astype(np.uint8),
        probabilities=np.sort(generator.integers(0, 65536, (layers, PROBABILITY_BINS)), axis=1).astype(np.uint16),
    )
    return LearnedPredictor(tables, chosen, top_k=top_k, lookahead=lookahead, ranked=ranked, provenance=PROVENANCE)


def identified_trace(**shape: Any) -> RoutingTrace:
    """``routing_trace`` with token identities 8 … 11, of which ``random_predictor`` knows 10 and 11."""
    trace = routing_trace(**shape)
    hashes = np.random.default_rng(shape.get("seed", 0)).integers(8, 12, trace.tokens).astype(np.uint32)
    return replace(trace, token_hash=hashes)
