"""Chances of several sequences that run together: one of any of them, in integers as the hardware merges them."""

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from predictor.row_network.integers import CERTAIN


@njit()
def merged_chance(chance: int, other: int) -> int:
    """The chance, in units of 1/65535, of at least one of two events that do not depend on each other.

    ``chance + round((65535 − chance) · other / 65535)``: what is left of certainty, times the other. The rounded
    quotient of a product ``x`` ≤ 65535² needs no division: with ``t = x + 2^15``, it is ``(t + (t >> 16)) >> 16``
    (Blinn, "Three Wrongs Make a Right", 1995, there for 255). Merged with 0 a chance stays what it is; the order of the
    two does not matter; the result is never below either of them, nor above certainty.
    """
    rounded = (CERTAIN - int(chance)) * int(other) + (CERTAIN + 1) // 2
    return int(chance) + ((rounded + (rounded >> 16)) >> 16)


@njit()
def merge_chances(merged: NDArray[np.uint16], chances: NDArray[np.uint16]) -> None:
    """``merged`` becomes, element by element, its `merged_chance` with ``chances`` of the same shape ``[answers]``."""
    for answer in range(len(merged)):
        merged[answer] = merged_chance(merged[answer], chances[answer])


@njit()
def values_of(merged: NDArray[np.uint16], experts: int, values: NDArray[np.int32]) -> None:
    """Fill ``values [experts]`` with the sum of each expert's merged chances ``[questions · experts]``, all experts of
    the first question first."""
    values[:] = 0
    for answer in range(len(merged)):
        values[answer % experts] += np.int32(merged[answer])
