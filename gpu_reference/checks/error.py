"""How far a result is from its reference."""

import numpy as np
from numpy.typing import ArrayLike


def relative_error(found: ArrayLike, exact: ArrayLike) -> float:
    """``‖found − exact‖ / ‖exact‖``, Euclidean, in float64."""
    reference = np.asarray(exact, np.float64)
    return float(np.linalg.norm(np.asarray(found, np.float64) - reference) / np.linalg.norm(reference))
