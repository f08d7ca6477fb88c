"""Content checks of a trace: one compiled pass over a chunk, which returns the first faulty row."""

import numpy as np
import numpy.typing as npt

from catalog.compiled import njit

OK, OUT_OF_RANGE, DUPLICATE, UNRECORDED = 0, 1, 2, 3
NOT_FINITE, WRONG_SUM = 1, 2

NORMALISED_SUM_TOLERANCE = 0.02
"""Allowed error of a sum of 1: rounding ten weights to f16's 11 bits costs below 0.005, the rest is for models that
round earlier."""

HALF_TO_FLOAT = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
"""The value of each f16 bit pattern: numba has no float16 on CPUs."""


@njit()
def find_bad_ids(
    ids: npt.NDArray[np.unsignedinteger], experts: int, unrecorded_id: int, allow_unrecorded: bool
) -> tuple[int, int, int]:
    """First bad row of ``ids [tokens, layers, top_k]``: (fault, token, layer); fault 0 if there is none."""
    tokens, layers, top_k = ids.shape
    for token in range(tokens):
        for layer in range(layers):
            bad = False
            unrecorded = 0
            for i in range(top_k):
                expert = ids[token, layer, i]
                if expert >= experts:
                    bad = True
                    if expert == unrecorded_id:
                        unrecorded += 1
            if bad:
                if unrecorded < top_k:
                    return OUT_OF_RANGE, token, layer
                if not allow_unrecorded:
                    return UNRECORDED, token, layer
                continue
            for i in range(1, top_k):
                for j in range(i):
                    if ids[token, layer, i] == ids[token, layer, j]:
                        return DUPLICATE, token, layer
    return OK, 0, 0


@njit()
def find_bad_weights(
    bits: npt.NDArray[np.uint16],
    ids: npt.NDArray[np.unsignedinteger],
    experts: int,
    normalised: bool,
    to_float: npt.NDArray[np.float32],
    tolerance: float,
) -> tuple[int, int, int]:
    """First bad row of gate weights, given as f16 ``bits [tokens, layers, top_k]``: (fault, token, layer).

    Weights must be finite and ≥ 0 and, if ``normalised``, sum to 1 in every recorded row.
    """
    tokens, layers, top_k = bits.shape
    for token in range(tokens):
        for layer in range(layers):
            total = np.float32(0.0)
            for i in range(top_k):
                weight = to_float[bits[token, layer, i]]
                if not (weight >= 0.0 and weight < np.inf):
                    return NOT_FINITE, token, layer
                total += weight
            if normalised and ids[token, layer, 0] < experts and abs(total - 1.0) > tolerance:
                return WRONG_SUM, token, layer
    return OK, 0, 0


def find_bad_position(position: npt.NDArray[np.int32], starts: npt.NDArray[np.int64]) -> int | None:
    """First token whose position is negative or not greater than its predecessor's in the same sequence.

    ``starts`` are the tokens of this chunk that begin a sequence; the chunk's first token is not compared with another.
    """
    bad = position < 0
    falls = position[1:] <= position[:-1]
    falls[starts[starts > 0] - 1] = False
    bad[1:] |= falls
    return int(np.argmax(bad)) if bad.any() else None
