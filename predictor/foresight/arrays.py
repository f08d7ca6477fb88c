"""The arrays of foresight, a row for each step."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, kw_only=True)
class Values:
    """What each expert's next use is worth, for a stager's ``set_values``.

    Attributes:
        rows: i32 ``[steps, layers, experts]``, in force from the gate of (step, layer) on (once the prefetch engine has
            answered it); with ``at_step_end`` all layers' rows from the end of the step on.
        at_step_end: the step's own routing is needed in full (several tokens of one sequence at once).
        most: the largest absolute value that a row may hold.
    """

    rows: NDArray[np.int32]
    at_step_end: bool
    most: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Predictions:
    """The experts that each (step, layer) is expected to choose, for a stager's ``prefetch``.

    Attributes:
        distances: ascending, ≥ 1: layers between the gate that is known and the target. The prediction of target ``t``
            at distance ``d`` is known from the gate of ``t − d`` on; where ``t < d``, from the beginning of the step on
            (there only the smallest such distance of a target counts).
        experts: i16 ``[steps, layers, distances, most]`` by target layer, best first, −1 for none.
        chances: i32 of the same shape, 65535 being certainty.
    """

    distances: tuple[int, ...]
    experts: NDArray[np.int16]
    chances: NDArray[np.int32]
