"""A next-use predictor's chances as values."""

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from catalog.progress import Progress
from predictor.foresight.arrays import Values
from predictor.foresight.parts import reach_of
from predictor.next_use.predictor import NextUsePredictor
from predictor.row_network.integers import CERTAIN
from staging.steps import Steps
from traces import RoutingTrace
from traces.compiled import njit
from traces.mapping import new_array, release

CHUNK_TOKENS = 512
"""Tokens scored at once: 50 MB of scores for 24 layers of 32 experts and four horizons."""


def learned_values(
    predictor: NextUsePredictor,
    trace: RoutingTrace,
    steps: Steps,
    *,
    progress: Progress = lambda done, total: None,
) -> Values:
    """The sum of the calibrated chances of all horizons, added up over the running sequences: expected uses.

    Each sequence counts with its latest token's row, until it runs again or has ended; so a sequence that does not take
    part in a step keeps what is known of it.

    Raises:
        ForestageError: for a predictor that is asked before the layer's own gate, or does not fit the trace, or steps
            that are not the trace's.
    """
    if predictor.lookahead:
        raise ForestageError(
            f"next-use predictor: lookahead {predictor.lookahead}: values are told at a layer's own gate; "
            "give one of lookahead 0"
        )
    predictor.check_trace(trace)
    reach = reach_of(trace, steps)
    most = predictor.config.questions * CERTAIN * reach.live
    if most > np.iinfo(np.int32).max:
        raise ForestageError(f"steps: {reach.live} sequences at once: their values do not fit 32 bits; batch fewer")
    rows = new_array((len(steps), trace.layers, trace.experts), np.int32)
    for first, found in predictor.priority_chunks(trace, chunk_tokens=CHUNK_TOKENS):
        last = first + len(found)
        _add(found, reach.first[first:last], reach.end[first:last], rows)
        release(rows)
        progress(last, trace.tokens)
    return Values(rows=rows, at_step_end=steps.sequential, most=most)


@njit()
def _add(found: NDArray[np.int32], firsts: NDArray[np.int64], ends: NDArray[np.int64], rows: NDArray[np.int32]) -> None:
    for token in range(found.shape[0]):
        for step in range(firsts[token], ends[token]):
            for layer in range(found.shape[1]):
                for expert in range(found.shape[2]):
                    rows[step, layer, expert] += found[token, layer, expert]
