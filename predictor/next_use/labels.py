"""What is to be predicted: is expert e of a layer wanted within the next n tokens of its sequence?"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from traces.compiled import njit


def wanted_within(
    ids: NDArray[np.int32],
    recorded: NDArray[np.bool_],
    ends: NDArray[np.int64],
    experts: int,
    horizons: Sequence[int],
    *,
    including_now: bool,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The truth for one layer, and where it is known.

    Args:
        ids: i32 ``[tokens, top_k]`` of the layer.
        recorded: bool ``[tokens]``; a row that was not recorded wants nothing.
        ends: i64 ``[tokens]``, the token after the last of each one's sequence.
        experts: of the layer.
        horizons: tokens ahead.
        including_now: whether the first of the ``n`` tokens is this one (else the next).

    Returns:
        bool ``[tokens, horizons, experts]``, and bool ``[tokens, horizons]``: whether ``n`` tokens are left of the
        sequence. What follows its end was never routed, so nothing is claimed of it.
    """
    limits = np.asarray(horizons, np.int64)
    wanted = np.zeros((len(ids), len(limits), experts), np.bool_)
    _fill(ids, recorded, ends, limits, including_now, wanted)
    left = ends - np.arange(len(ids)) - (0 if including_now else 1)
    return wanted, left[:, None] >= limits


@njit()
def _fill(
    ids: NDArray[np.int32],
    recorded: NDArray[np.bool_],
    ends: NDArray[np.int64],
    limits: NDArray[np.int64],
    including_now: bool,
    wanted: NDArray[np.bool_],
) -> None:
    tokens, top_k = ids.shape
    horizons, experts = wanted.shape[1:]
    upcoming = np.full(
        experts, -1, np.int64
    )  # the token of the next use; one at or after the end is of another sequence
    for token in range(tokens - 1, -1, -1):
        if including_now and recorded[token]:
            for i in range(top_k):
                upcoming[ids[token, i]] = token
        first = token if including_now else token + 1
        for expert in range(experts):
            use = upcoming[expert]
            if use < 0 or use >= ends[token]:
                continue
            for horizon in range(horizons):
                if use < first + limits[horizon]:
                    wanted[token, horizon, expert] = True
        if not including_now and recorded[token]:
            for i in range(top_k):
                upcoming[ids[token, i]] = token
