"""Tokens' vectors as the host's products take them (`gpu_reference.experts.host_products`).

For MXFP4 and INT8 weights, a vector's elements are 16-bit integers with one scale for each 32 of them, a power of two:
the smallest for which every element fits. So a bfloat16 element within 2^−7 of its group's largest is kept exactly,
and any element to 2^−15 of the largest. Elements below 2^−115 may become 0. A group that is not finite gets the scale
NaN, and so does every output.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit

GROUP = 32
SMALLEST = -100
"""Least exponent of a group's largest element that is told apart."""

LARGEST = 32767


@njit(nogil=True)
def quantise(
    x: NDArray[np.float32], factor: float, interleaved: bool, codes: NDArray[np.int16], scales: NDArray[np.float32]
) -> None:
    """Quantise one vector.

    Args:
        x: ``[width]``.
        factor: that every scale is multiplied by, a power of two.
        interleaved: of each 64 elements, those at 4 j + c lie together, for c = 0 … 3 in turn.
        codes: ``[width, a multiple of 64]``, written.
        scales: ``[that / 32]``, written.
    """
    for group in range(len(scales)):
        first = group * GROUP
        here = min(GROUP, max(len(x) - first, 0))
        largest = np.float32(0)
        finite = True
        for at in range(first, first + here):
            size = abs(x[at])
            finite &= size < np.float32(np.inf)  # not so if it is NaN
            largest = max(largest, size)
        exponent = max(math.frexp(largest)[1], SMALLEST) if finite else 0
        up = np.float32(math.ldexp(1.0, 15 - exponent))
        base = (first // 64) * 64
        for number in range(GROUP):
            code = np.float32(0)
            if finite and number < here:
                code = min(max(np.rint(x[first + number] * up), np.float32(-LARGEST)), np.float32(LARGEST))
            at = first - base + number
            if interleaved:
                at = (at % 4) * 16 + at // 4
            codes[base + at] = np.int16(code)
        scales[group] = np.float32(math.ldexp(1.0, exponent - 15) * factor) if finite else np.float32(np.nan)
