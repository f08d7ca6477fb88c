"""The sequences of a synthetic trace: lengths, labels and positions, without routing."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.schema import PREFILL
from traces.trace import RoutingTrace

MOST_TOKENS = 10**11
MOST_SEQUENCES = 10**9
"""Most sequences; 16 bytes of each are held while the trace is made."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Sequences to make.

    Attributes:
        source: i64 ``[sequences]``, the recorded sequence that gives each its labels, first position and prompt.
        lengths: i64 ``[sequences]``, in tokens.
        prompts: i64 ``[recorded sequences]``, number of prefill tokens.
        first_positions: i64 ``[recorded sequences]``.
        domains, datasets: labels of the recorded sequences.
    """

    source: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    prompts: npt.NDArray[np.int64]
    first_positions: npt.NDArray[np.int64]
    domains: tuple[str, ...]
    datasets: tuple[str, ...]

    @property
    def tokens(self) -> int:
        """Tokens of all sequences."""
        return int(self.lengths.sum())

    def pieces(self, most: int) -> Iterator[tuple[int, int, int]]:
        """``(sequence, first token, token after the last)`` of pieces of at most ``most`` tokens, in order."""
        for sequence, length in enumerate(self.lengths.tolist()):
            for start in range(0, length, most):
                yield sequence, start, min(start + most, length)


def plan_sequences(
    trace: RoutingTrace, generator: np.random.Generator, *, tokens: int | None = None, sequences: int | None = None
) -> Plan:
    """Sequences like those of ``trace``.

    Without ``tokens`` and ``sequences``: the recorded sequences, in order. Otherwise recorded sequences are drawn with
    repetition: ``sequences`` of them, or until there are ``tokens`` tokens (the last one is cut). With both, the drawn
    lengths are scaled so that they sum to ``tokens``.

    Raises:
        ForestageError: for a number below 1 or above the most that can be made, or fewer tokens than sequences.
    """
    for name, value, most in (("tokens", tokens, MOST_TOKENS), ("sequences", sequences, MOST_SEQUENCES)):
        if value is not None and not 1 <= value <= most:
            raise ForestageError(f"--{name} {value}: give 1 {'or more' if value < 1 else f'to {most}'}")
    if tokens is not None and sequences is not None and tokens < sequences:
        raise ForestageError(f"--tokens {tokens}: fewer than the {sequences} sequences; a sequence has 1 or more")
    recorded = np.diff(trace.sequence_offsets)
    if tokens is None and sequences is None:
        source = np.arange(trace.sequences)
        lengths = recorded
    elif sequences is not None:
        source = generator.integers(trace.sequences, size=sequences)
        lengths = recorded[source] if tokens is None else _scaled(recorded[source], tokens)
    else:
        assert tokens is not None
        source, lengths = _drawn_to(recorded, tokens, generator)
    prompts = [int(np.count_nonzero(trace.phase[trace.sequence_slice(i)] == PREFILL)) for i in range(trace.sequences)]
    return Plan(
        source=source,
        lengths=lengths.astype(np.int64),
        prompts=np.array(prompts, np.int64),
        first_positions=trace.position[trace.sequence_offsets[:-1]].astype(np.int64),
        domains=trace.domains,
        datasets=trace.datasets,
    )


def _drawn_to(
    recorded: npt.NDArray[np.int64], tokens: int, generator: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw sequences until their lengths sum to ``tokens``; return them and their lengths, the last one cut."""
    count = int(tokens / recorded.mean() * 1.2) + 16
    source = generator.integers(len(recorded), size=count)
    while recorded[source].sum() < tokens:
        source = np.concatenate([source, generator.integers(len(recorded), size=count)])
    ends = np.cumsum(recorded[source])
    kept = int(np.searchsorted(ends, tokens)) + 1
    lengths = recorded[source[:kept]].copy()
    lengths[-1] -= ends[kept - 1] - tokens
    return source[:kept], lengths


def _scaled(lengths: npt.NDArray[np.int64], tokens: int) -> npt.NDArray[np.int64]:
    """Lengths ≥ 1 that sum to ``tokens``, in about the proportions of ``lengths``."""
    spare = tokens - len(lengths)
    edges = np.round(np.cumsum(lengths) * (spare / lengths.sum())).astype(np.int64)
    edges[-1] = spare
    return np.diff(edges, prepend=0) + 1
