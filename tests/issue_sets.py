"""Issue sets in plain NumPy, to compare with what metrics count and what simulations are told."""

import numpy as np
from numpy.typing import NDArray

from predictor.base import Predictor
from traces import RoutingTrace


def issue_sets(predictor: Predictor, trace: RoutingTrace, limit: int) -> NDArray[np.int16]:
    """i16 ``[tokens, layers, limit]``: the best experts whose score reaches the threshold, −1 where there are fewer."""
    scores = predictor.score_trace(trace).astype(np.int64)
    order = np.argsort(-scores, axis=-1, kind="stable")[..., :limit]
    best = np.take_along_axis(scores, order, axis=-1)
    return np.where(best >= predictor.issue_threshold, order, -1).astype(np.int16)
