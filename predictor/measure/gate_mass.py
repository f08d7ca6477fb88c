"""Shares of a row's gate weight as integers, so that their sums do not depend on the order of summation."""

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit

MASS_BITS = 16
MASS_ONE = 1 << MASS_BITS
"""Units divided among a row's chosen experts; an expert's units are within one unit (1.5 · 10⁻⁵) of its exact share."""

_HALF_BITS = 24
"""Every finite f16 is a whole number of 2⁻²⁴ and below 2¹⁶."""


def mass_units(weights: NDArray[np.float16], recorded: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Divide ``MASS_ONE`` units of each row among its ``weights [n, layers, top_k]`` (finite, ≥ 0), in proportion: i32.

    Each weight gets the floor of its exact share; the units left over go to the largest remainders, ties to the earlier
    place (the largest-remainder method of apportionment; Balinski and Young, Fair Representation, 2nd ed., 2001,
    chapter 3). All arithmetic is on integers, from the exact f16 values. Rows that are not ``recorded [n, layers]``, or
    whose weights are all 0, get no units.
    """
    whole = (weights.astype(np.float64) * (1 << _HALF_BITS)).astype(np.int64)
    units = np.zeros(weights.shape, np.int32)
    _apportion(whole, recorded, MASS_ONE, units)
    return units


@njit()
def _apportion(whole: NDArray[np.int64], recorded: NDArray[np.bool_], one: int, units: NDArray[np.int32]) -> None:
    """Fill ``units``; ``whole`` is below 2⁴⁰, so that its product with ``one`` fits an i64."""
    tokens, layers, top_k = whole.shape
    rest = np.empty(top_k, np.int64)
    for token in range(tokens):
        for layer in range(layers):
            total = whole[token, layer].sum()
            if not recorded[token, layer] or total == 0:
                continue
            left = one
            for k in range(top_k):
                product = whole[token, layer, k] * one
                share = product // total
                units[token, layer, k] = share
                rest[k] = product - share * total
                left -= share
            for _ in range(left):
                most = rest.argmax()
                units[token, layer, most] += 1
                rest[most] = -1
