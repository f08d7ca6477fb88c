"""Drawn routing as parts of a trace."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from traces.metadata import TraceMetadata
from traces.schema import DECODE, PREFILL, id_dtype
from traces.synthesis.model import Generator
from traces.synthesis.plan import Plan
from traces.synthesis.weights import WeightRows
from traces.trace import RoutingTrace

PART_BYTES = 4 << 20
"""Most bytes of expert ids put into one part of a trace."""

Piece = tuple[int, int, npt.NDArray[np.unsignedinteger]]


def draw_parts(
    generator: Generator, plan: Plan, metadata: TraceMetadata, weights: WeightRows | None = None
) -> Iterator[tuple[RoutingTrace, bool]]:
    """Parts of the trace that ``generator`` draws, each with whether it continues the last one's last sequence."""
    pieces: list[Piece] = []
    waiting = 0
    for piece in generator.pieces():
        pieces.append(piece)
        waiting += piece[2].nbytes
        if waiting >= PART_BYTES:
            yield _part(pieces, plan, metadata, weights), pieces[0][1] > 0
            pieces, waiting = [], 0
    if pieces:
        yield _part(pieces, plan, metadata, weights), pieces[0][1] > 0


def _part(pieces: list[Piece], plan: Plan, metadata: TraceMetadata, weights: WeightRows | None) -> RoutingTrace:
    """Consecutive pieces as a trace."""
    ids = np.concatenate([piece[2] for piece in pieces])
    sequences = list(dict.fromkeys(piece[0] for piece in pieces))
    first = np.array([piece[1] for piece in pieces])
    lengths = np.array([len(piece[2]) for piece in pieces])
    within = np.concatenate([np.arange(start, start + n) for start, n in zip(first, lengths, strict=True)])
    source = np.repeat(plan.source[[piece[0] for piece in pieces]], lengths)
    begins = np.flatnonzero([index == 0 or piece[1] == 0 for index, piece in enumerate(pieces)])
    return RoutingTrace(
        expert_ids=ids.astype(id_dtype(metadata.experts), copy=False),
        gate_weights=None if weights is None else weights.draw(len(ids)),
        sequence_offsets=np.append(np.append(0, np.cumsum(lengths))[begins], len(ids)).astype(np.int64),
        position=(plan.first_positions[source] + within).astype(np.int32),
        phase=np.where(within < plan.prompts[source], PREFILL, DECODE).astype(np.uint8),
        token_hash=None,
        domains=tuple(plan.domains[plan.source[sequence]] for sequence in sequences),
        datasets=tuple(plan.datasets[plan.source[sequence]] for sequence in sequences),
        metadata=metadata,
    )
