"""Walk a trace of any size, and choose the tokens that sampled and windowed statistics use."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from catalog.compiled import njit
from traces.schema import DECODE, PHASES, PhaseName
from traces.trace import CHUNK_TOKENS, RoutingTrace


def phase_of_interest(trace: RoutingTrace) -> PhaseName:
    """``decode`` if the trace has a decode token, else ``prefill``."""
    return "decode" if any((part.phase == DECODE).any() for part in trace.chunks()) else "prefill"


def eligible(part: RoutingTrace, phase: PhaseName) -> npt.NDArray[np.bool_]:
    """bool ``[tokens]``: whether the token has ``phase`` and all its layers were recorded."""
    wanted = part.phase == PHASES[phase]
    return wanted & part.recorded().all(axis=1) if part.metadata.has_unrecorded else wanted


def eligible_shares(trace: RoutingTrace, phase: PhaseName) -> npt.NDArray[np.float64]:
    """f64 ``[layers, experts]``: the share of the ``eligible`` tokens that chose each expert; 0 if there are none."""
    uses = np.zeros((trace.layers, trace.experts), np.int64)
    tokens = 0
    for part in trace.chunks():
        wanted = eligible(part, phase)
        _count_uses(part.expert_ids, wanted, uses)
        tokens += int(np.count_nonzero(wanted))
    return uses / max(tokens, 1)


@njit()
def _count_uses(
    ids: npt.NDArray[np.unsignedinteger], wanted: npt.NDArray[np.bool_], uses: npt.NDArray[np.int64]
) -> None:
    tokens, layers, top_k = ids.shape
    for token in range(tokens):
        if wanted[token]:
            for layer in range(layers):
                for i in range(top_k):
                    uses[layer, ids[token, layer, i]] += 1


def sequence_groups(trace: RoutingTrace, sequences: Sequence[int] | None = None) -> Iterator[RoutingTrace]:
    """Parts of whole, consecutive sequences with up to ``CHUNK_TOKENS`` tokens; a longer sequence is one part.

    ``sequences`` (ascending) selects sequences; ``None``: all.
    """
    wanted = range(trace.sequences) if sequences is None else sequences
    offsets = trace.sequence_offsets
    first = last = None
    for index in wanted:
        if first is not None and last is not None:
            if index == last + 1 and offsets[index + 1] - offsets[first] <= CHUNK_TOKENS:
                last = index
                continue
            yield trace.token_range(int(offsets[first]), int(offsets[last + 1]))
        first = last = index
    if first is not None and last is not None:
        yield trace.token_range(int(offsets[first]), int(offsets[last + 1]))


def contiguous_runs(part: RoutingTrace, wanted: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Maximal runs of ``wanted`` tokens (bool ``[tokens]``) of one sequence whose positions are one apart.

    Returns:
        i64 ``[runs, 2]``: first token of each run, and one past its last.
    """
    follows = np.zeros(part.tokens, np.bool_)
    follows[1:] = wanted[1:] & wanted[:-1] & (np.diff(part.position) == 1)
    follows[part.sequence_offsets[:-1]] = False
    starts = np.flatnonzero(wanted & ~follows)
    goes_on = np.append(follows[1:], False)
    stops = np.flatnonzero(wanted & ~goes_on) + 1
    return np.stack([starts, stops], axis=1)
