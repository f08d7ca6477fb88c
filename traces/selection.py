"""Select sequences of a trace, or the tokens of one phase, as a trace; a large one is copied to a temporary file."""

import operator
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.gather import gather_in_file
from traces.schema import phase_name
from traces.trace import CHUNK_TOKENS, RoutingTrace

IN_MEMORY_BYTES = 64 << 20
"""A selection with more bytes becomes a mapped temporary file."""

PART_BYTES = 8 << 20
"""Most bytes copied to that file at a time."""


def select_sequences(trace: RoutingTrace, indices: Sequence[int] | npt.NDArray[np.integer]) -> RoutingTrace:
    """The sequences ``indices`` of ``trace``, in that order.

    Raises:
        ForestageError: if ``indices`` is empty or names a sequence that does not exist.
    """
    chosen = np.array([operator.index(index) for index in indices], np.int64)
    if not len(chosen):
        raise ForestageError("selection of sequences is empty; the trace has too few sequences for it")
    for bound in (chosen.min(), chosen.max()):
        trace.sequence_slice(int(bound))  # refuses a sequence that does not exist
    chosen %= trace.sequences
    lengths = np.diff(trace.sequence_offsets)[chosen]
    if int(lengths.sum()) * trace.token_bytes > IN_MEMORY_BYTES:
        return gather_in_file(_walk_sequences(trace, chosen, lengths), trace)
    return _sequences_in_memory(trace, chosen)


def select_phase(trace: RoutingTrace, phase: int) -> RoutingTrace:
    """The tokens of one phase (``PREFILL`` or ``DECODE``) of ``trace``; sequences without any are left out.

    Raises:
        ForestageError: if no token has that phase, or a lazily opened trace has invalid contents.
    """
    trace = trace.checked()
    if trace.nbytes > IN_MEMORY_BYTES:
        return gather_in_file(_walk_phase(trace, phase), trace)
    return _phase_in_memory(trace, phase)


def _part_tokens(trace: RoutingTrace) -> int:
    """Number of tokens copied to a temporary file at a time."""
    return max(1, min(CHUNK_TOKENS, PART_BYTES // trace.token_bytes))


def _sequences_in_memory(trace: RoutingTrace, chosen: npt.NDArray[np.int64]) -> RoutingTrace:
    """``select_sequences`` for valid indices ≥ 0 whose tokens fit in memory."""
    ends = np.flatnonzero(np.diff(chosen, append=-1) != 1)  # ends of runs of consecutive sequences
    firsts = trace.sequence_offsets[chosen[np.concatenate([[0], ends[:-1] + 1])]].tolist()
    lasts = trace.sequence_offsets[chosen[ends] + 1].tolist()
    ranges = list(zip(firsts, lasts, strict=True))
    trace.prepare(ranges)
    tokens = np.concatenate([np.arange(first, last) for first, last in ranges])
    offsets = np.concatenate([[0], np.cumsum(np.diff(trace.sequence_offsets)[chosen])])
    domains = tuple(trace.domains[index] for index in chosen)
    return trace.of_tokens(tokens, offsets, domains, tuple(trace.datasets[index] for index in chosen))


def _walk_sequences(
    trace: RoutingTrace, chosen: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> Iterator[tuple[RoutingTrace, bool]]:
    """The sequences ``chosen`` in pieces: several short ones, or a part of a long one; flags as in ``_walk_phase``."""
    ends = np.cumsum(lengths)
    part_tokens = _part_tokens(trace)
    first = 0
    while first < len(chosen):
        begin = ends[first] - lengths[first]
        last = int(np.searchsorted(ends, begin + part_tokens, side="right"))
        if last > first:
            yield _sequences_in_memory(trace, chosen[first:last]), False
        else:
            last = first + 1
            pieces = trace.walk(trace.sequence_slice(int(chosen[first])), part_tokens)
            yield from ((piece, number > 0) for number, piece in enumerate(pieces))
        first = last


def _phase_in_memory(trace: RoutingTrace, phase: int) -> RoutingTrace:
    """``select_phase`` for a checked trace whose tokens fit in memory."""
    tokens = np.flatnonzero(trace.phase == phase)
    if not len(tokens):
        raise ForestageError(f"the trace of {trace.metadata.model} has no {phase_name(phase)} tokens")
    counts = np.bincount(trace.sequence_index()[tokens], minlength=trace.sequences)
    kept = np.flatnonzero(counts)
    offsets = np.concatenate([[0], np.cumsum(counts[kept])])
    domains = tuple(trace.domains[index] for index in kept)
    return trace.of_tokens(tokens, offsets, domains, tuple(trace.datasets[index] for index in kept))


def _walk_phase(trace: RoutingTrace, phase: int) -> Iterator[tuple[RoutingTrace, bool]]:
    """The tokens of one phase in pieces; each with whether it continues the last sequence of the piece before."""
    begun = -1
    part_tokens = _part_tokens(trace)
    for start in range(0, trace.tokens, part_tokens):
        part = trace.token_range(start, min(start + part_tokens, trace.tokens))
        inside = np.flatnonzero(part.phase == phase)
        if not len(inside):
            continue
        first, last = np.searchsorted(trace.sequence_offsets, start + inside[[0, -1]], side="right") - 1
        yield _phase_in_memory(part, phase), bool(first == begun)
        begun = last
    if begun < 0:
        raise ForestageError(f"the trace of {trace.metadata.model} has no {phase_name(phase)} tokens")
