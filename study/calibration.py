"""Measure the calibration of a learned predictor, for the command and the report."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from predictor.learned.predictor import LearnedPredictor
from predictor.learned.probability import calibration_error, reliability, score_histogram
from traces import RoutingTrace
from traces.selection import select_sequences


def calibration(
    predictor: LearnedPredictor, trace: RoutingTrace, sequences: NDArray[np.int64], *, name: str, trace_name: str
) -> dict[str, Any]:
    """Reliability of ``predictor`` on the chosen ``sequences`` of ``trace``, as JSON values.

    Raises:
        ForestageError: if there is no sequence, no recorded row in any, or the trace is of another model.
    """
    evaluated = select_sequences(trace, sequences)
    seen, hits = score_histogram(predictor, evaluated)
    table = predictor.tables.probabilities
    error = calibration_error(seen, hits, table)
    if error is None:
        raise ForestageError(
            f"{trace_name}: nothing is recorded in the {len(sequences)} sequence(s) to calibrate on; choose other ones"
        )
    said, was, counts = reliability(seen, hits, table)
    rows = (slice(layer, layer + 1) for layer in range(evaluated.layers))
    return {
        "predictor": name,
        "trace": trace_name,
        "model": trace.metadata.model,
        "synthetic": trace.metadata.synthetic,
        "sequences": evaluated.sequences,
        "tokens": evaluated.tokens,
        "calibration_error": error,
        "by_layer": [calibration_error(seen[row], hits[row], table[row]) for row in rows],
        "reliability": [
            {
                "probability": None if np.isnan(probability) else float(probability),
                "frequency": None if np.isnan(frequency) else float(frequency),
                "count": int(count),
            }
            for probability, frequency, count in zip(said, was, counts, strict=True)
        ],
    }
