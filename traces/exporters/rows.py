"""Walk a trace as rows, one per token and layer, in chunks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.progress import Progress
from traces.schema import PHASES
from traces.trace import RoutingTrace

CHUNK_ROWS = 1 << 16

PHASE_NAMES = {number: name for name, number in PHASES.items()}


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of some tokens, token by token, layers ascending.

    Attributes:
        sequence: i64 ``[rows]``, from 0.
        position: i32 ``[rows]``.
        phase: u8 ``[rows]``.
        layer: i64 ``[rows]``, the model's index.
        recorded: bool ``[rows]``.
        ids: ``[rows, top_k]``; meaningless in unrecorded rows.
        weights: f16 ``[rows, top_k]``, or ``None``.
        token_hash: u32 ``[rows]``, or ``None``.
    """

    sequence: npt.NDArray[np.int64]
    position: npt.NDArray[np.int32]
    phase: npt.NDArray[np.uint8]
    layer: npt.NDArray[np.int64]
    recorded: npt.NDArray[np.bool_]
    ids: npt.NDArray[Any]
    weights: npt.NDArray[np.float16] | None
    token_hash: npt.NDArray[np.uint32] | None


def walk_rows(trace: RoutingTrace, progress: Progress) -> Iterator[Rows]:
    """All rows of ``trace``, in chunks of about ``CHUNK_ROWS``."""
    layers, top_k, first = trace.layers, trace.top_k, 0
    for chunk in trace.chunks(max(1, CHUNK_ROWS // layers)):
        tokens = np.arange(first, first + chunk.tokens)
        sequence = np.searchsorted(trace.sequence_offsets, tokens, side="right") - 1
        weights, hashes = chunk.gate_weights, chunk.token_hash
        yield Rows(
            sequence=np.repeat(sequence, layers),
            position=np.repeat(chunk.position, layers),
            phase=np.repeat(chunk.phase, layers),
            layer=np.tile(np.array(trace.metadata.layer_map, np.int64), chunk.tokens),
            recorded=chunk.recorded().reshape(-1),
            ids=chunk.expert_ids.reshape(-1, top_k),
            weights=None if weights is None else weights.reshape(-1, top_k),
            token_hash=None if hashes is None else np.repeat(hashes, layers),
        )
        first += chunk.tokens
        progress(first, trace.tokens)
