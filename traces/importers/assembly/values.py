"""Ids, token identities and gate weights as files hold them, in the dtypes of a trace."""

from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.metadata import GateWeightKind
from traces.schema import id_dtype
from traces.validation import counted_from_one, names_first

SUM_TOLERANCE = 0.01
"""Rows of f16 weights whose sums all lie this close to 1 are normalised over the chosen experts."""

LARGEST_WEIGHT = float(np.finfo(np.float16).max)
"""Traces keep gate weights in f16."""


def pack_ids(ids: npt.NDArray[Any], experts: int, origin: str) -> npt.NDArray[np.uint8 | np.uint16]:
    """Integer ids ``[tokens, layers, top_k]`` in a trace's dtype.

    Raises:
        ForestageError: naming the first row with an id outside ``0 … experts − 1``.
    """
    bad = np.argwhere((ids < 0) | (ids >= experts))
    if len(bad):
        token, layer, choice = (int(i) for i in bad[0])
        raise ForestageError(
            f"{origin}: expert_ids[{token}, {layer}]: id {ids[token, layer, choice]}; the model has experts 0 to "
            f"{experts - 1}{counted_from_one(int(ids.max()), experts, has_first=names_first(ids))}"
        )
    return ids.astype(id_dtype(experts))


def narrow(values: npt.NDArray[Any], dtype: type[np.integer], field: str, origin: str) -> npt.NDArray[Any]:
    """Whole numbers ``[rows]`` from 0 on, as ``dtype``.

    Raises:
        ForestageError: naming the first row that is negative or does not fit.
    """
    bad = np.flatnonzero((values < 0) | (values > np.iinfo(dtype).max))
    if len(bad):
        row = int(bad[0])
        raise ForestageError(f"{origin}: {field}[{row}]: {values[row]}; expected 0 to {np.iinfo(dtype).max}")
    return values.astype(dtype)


def weight_kind(weights: npt.NDArray[np.floating]) -> GateWeightKind:
    """What weights ``[rows, top_k]`` are, as far as their sums tell (sigmoid scores are not told from ``unknown``)."""
    sums = weights.astype(np.float32).sum(axis=-1)
    if np.all(np.abs(sums - 1.0) <= SUM_TOLERANCE):
        return "normalised"
    return "softmax" if np.all(sums <= 1.0 + SUM_TOLERANCE) else "unknown"


def are_ranked(weights: npt.NDArray[np.floating]) -> bool:
    """Whether the weights of every row ``[rows, top_k]`` descend, so that the ids are in rank order."""
    return bool(np.all(weights[..., 1:] <= weights[..., :-1]))


def token_identity(token_ids: npt.NDArray[Any], origin: str) -> npt.NDArray[np.uint32]:
    """u32 ``[tokens]``: the identity of tokens known by their vocabulary index: the index itself.

    Recordings that know the token's text have its CRC-32 instead; only equality within one trace means anything.

    Raises:
        ForestageError: naming the first index that is negative or beyond 32 bits.
    """
    return narrow(token_ids, np.uint32, "token ids", origin)
