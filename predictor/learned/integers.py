"""Quantisation with the integer twin in the loop: what is free in the integers is chosen by the twin's own recall."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from predictor.learned.config import LearnedConfig
from predictor.learned.predictor import LearnedPredictor
from predictor.learned.probability import calibrate, score_histogram
from predictor.learned.quantise import Weights, quantise
from predictor.learned.tables import LearnedTables
from predictor.measure.metrics import recall, tally_predictor
from traces import RoutingTrace

ADAPTATIONS = (0, 13, 12, 11)
"""Shifts of the adapted biases to choose from (0: none): 8, 16 or 32 steps of the score for a probability that was
wrong by one."""
CLIPS = (1.0, 0.8, 0.6, 0.45)
"""Shares of the largest weight that 127 may stand for, to choose from."""

RecallByLimit = dict[str, float]
Assemble = Callable[[LearnedTables], LearnedPredictor]


def choose_integers(
    weights: Weights,
    config: LearnedConfig,
    identity_tokens: NDArray[np.uint32],
    validation: RoutingTrace,
    assemble: Assemble,
    *,
    lookahead: int,
    ranked: bool,
) -> tuple[LearnedTables, LearnedTables]:
    """(calibrated tables that do not adapt, calibrated tables as they are to be used).

    The clip, then the adaptation, are those with the best recall at top_k of the twin on ``validation``; ``assemble``
    makes a predictor of tables.
    """
    top_k = str(validation.top_k)

    def found(tables: LearnedTables) -> float:
        return twin_recall(assemble(tables), validation, (validation.top_k,))[top_k]

    clipped = [
        quantise(weights, config, identity_tokens, lookahead=lookahead, ranked=ranked, clip=clip) for clip in CLIPS
    ]
    fixed = _calibrated(assemble(max(clipped, key=found)), validation)
    shifts = ADAPTATIONS if config.adaptation else (0,)
    adapting = [replace(fixed, adaptations=np.full(fixed.layers, shift, np.uint8)) for shift in shifts]
    # Calibrated once more, as scores that adapt are spread otherwise.
    return fixed, _calibrated(assemble(max(adapting, key=found)), validation)


def twin_recall(predictor: LearnedPredictor, trace: RoutingTrace, limits: tuple[int, ...]) -> RecallByLimit:
    """Recall by limit over layers ≥ lookahead."""
    found = recall(tally_predictor(predictor, trace, limits).overall()).over(0).values()
    return {str(limit): float(value) for limit, value in zip(limits, found, strict=False)}


def _calibrated(predictor: LearnedPredictor, trace: RoutingTrace) -> LearnedTables:
    seen, chosen = score_histogram(predictor, trace)
    return replace(predictor.tables, probabilities=calibrate(seen, chosen))
