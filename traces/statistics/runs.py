"""Which tokens sampled and windowed statistics look at."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from traces.trace import DECODE, PREFILL, RoutingTrace

PhaseName = Literal["decode", "prefill"]


def eligible_tokens(trace: RoutingTrace) -> tuple[PhaseName, npt.NDArray[np.int64]]:
    """Decode tokens where there are any, else prefill tokens, of which every layer was recorded: i64, ascending."""
    decode = bool((trace.phase == DECODE).any())
    eligible = trace.phase == (DECODE if decode else PREFILL)
    if trace.metadata.has_unrecorded:
        eligible &= trace.recorded().all(axis=1)
    return "decode" if decode else "prefill", np.flatnonzero(eligible)


def contiguous_runs(trace: RoutingTrace, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Maximal runs of ``tokens`` (ascending) with positions one apart in one sequence.

    Returns:
        i64 ``[runs, 2]``: first token and one past the last.
    """
    if not len(tokens):
        return np.zeros((0, 2), np.int64)
    follows = np.diff(tokens) == 1
    follows &= np.diff(trace.position[tokens]) == 1
    follows &= ~np.isin(tokens[1:], trace.sequence_offsets)
    breaks = np.flatnonzero(~follows) + 1
    starts = tokens[np.concatenate([[0], breaks])]
    stops = tokens[np.concatenate([breaks, [len(tokens)]]) - 1] + 1
    return np.stack([starts, stops], axis=1)
