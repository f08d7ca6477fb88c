"""Working sets: how many different experts of a layer w consecutive tokens of a sequence use.

P. J. Denning, "The working set model for program behavior" (CACM 11(5), 1968), with experts for pages and tokens for
time. Every window of w tokens counts, overlapping ones too. A window does not span two sequences, a gap in the
positions, prefill and decode, or a token with an unrecorded layer. Decode tokens are used if the trace has any, else
prefill tokens. The mean is over windows and layers. Beside it stand the two nulls of ``traces.statistics.batches``:
what w independent uniform choices would give, N (1 − (1 − K/N)^w), and what w tokens drawn independently from the whole
trace would.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from catalog.compiled import njit
from catalog.config import StrictModel
from catalog.errors import ForestageError
from traces.schema import PhaseName
from traces.statistics.batches import popularity_distinct_experts, uniform_distinct_experts
from traces.statistics.walk import contiguous_runs, eligible, eligible_shares, phase_of_interest, sequence_groups
from traces.trace import RoutingTrace

WINDOWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class WorkingSet(StrictModel):
    """Distinct experts within a window.

    Attributes:
        window: length of a window, in tokens.
        windows: number of windows in the trace.
        distinct_experts: distinct experts of a layer, mean over windows and layers.
        uniform_distinct_experts: N (1 − (1 − K/N)^w).
        popularity_distinct_experts: Σ 1 − (1 − p)^w, mean over layers.
    """

    window: int
    windows: int
    distinct_experts: float
    uniform_distinct_experts: float
    popularity_distinct_experts: float


class WorkingSetStatistics(StrictModel):
    """Working sets by ascending window; windows longer than every run of tokens are left out."""

    phase: PhaseName
    by_window: tuple[WorkingSet, ...]


def working_set_statistics(trace: RoutingTrace, windows: Sequence[int] = WINDOWS) -> WorkingSetStatistics:
    """Mean working sets for the given window lengths (tokens).

    Raises:
        ForestageError: for a window that is not positive, or a lazily opened trace that turns out invalid.
    """
    if min(windows, default=1) < 1:
        raise ForestageError("working sets: windows must be 1 token or more")
    trace = trace.checked()
    phase = phase_of_interest(trace)
    shares = eligible_shares(trace, phase)
    lengths = np.array(sorted(set(windows)), np.int64)
    sums, counts = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    for part in sequence_groups(trace):
        runs = contiguous_runs(part, eligible(part, phase))
        _sum_distinct(part.expert_ids, runs, lengths, trace.experts, sums)
        # A run of n tokens has n − w + 1 windows of w.
        counts += np.maximum(np.diff(runs, axis=1) - lengths + 1, 0).sum(axis=0)
    return WorkingSetStatistics(
        phase=phase,
        by_window=tuple(
            WorkingSet(
                window=int(length),
                windows=int(count),
                distinct_experts=int(total) / (int(count) * trace.layers),
                uniform_distinct_experts=uniform_distinct_experts(trace.experts, trace.top_k, int(length)),
                popularity_distinct_experts=popularity_distinct_experts(shares, int(length)),
            )
            for length, total, count in zip(lengths, sums, counts, strict=True)
            if count
        ),
    )


@njit()
def _sum_distinct(
    ids: npt.NDArray[np.unsignedinteger],
    runs: npt.NDArray[np.int64],
    windows: npt.NDArray[np.int64],
    experts: int,
    sums: npt.NDArray[np.int64],
) -> None:
    """Add to ``sums[i]`` the number of distinct experts of every window of ``windows[i]`` tokens, all runs and layers.

    Each distinct expert of a window has one *first* use there. If an expert is used at time t and was last used at p,
    the use at t is its first in those windows that begin after p, no earlier than t − w + 1 and no later than t, and
    end by the run's end.
    """
    _, layers, top_k = ids.shape
    last = np.empty((layers, experts), np.int64)
    for run in range(len(runs)):
        start, stop = runs[run]
        last[:] = start - 1
        for token in range(start, stop):
            for layer in range(layers):
                for i in range(top_k):
                    expert = ids[token, layer, i]
                    previous = last[layer, expert]
                    last[layer, expert] = token
                    for index in range(len(windows)):
                        window = windows[index]
                        begins = min(token, stop - window) - max(previous + 1, token - window + 1, start) + 1
                        if begins > 0:
                            sums[index] += begins
