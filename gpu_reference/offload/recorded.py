"""What a resident run routed, as a trace: an oracle's knowledge of the run with offloaded experts that follows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpu_reference.offload.generate import GeneratedSequence
from traces import DECODE, PREFILL, RoutingTrace, TraceMetadata, id_dtype


def recorded_trace(
    sequences: Sequence[GeneratedSequence],
    heard: Sequence[Sequence[int]],
    identities: NDArray[np.integer],
    *,
    model: str,
    layers: int,
    experts: int,
    top_k: int,
) -> RoutingTrace:
    """The trace of ``sequences``, whose decode steps (`staging.steps.decode_steps`) are those that ran.

    Args:
        sequences: as generated.
        heard: each gate's choice, token by token, in the order of the run (`resident.ResidentExperts.heard`).
        identities: of each token of the vocabulary.
        model, layers, experts, top_k: of the model.
    """
    gates = iter(heard)
    ids, tokens, lengths = [], [], []
    for sequence in sequences:
        processed = [*sequence.prompt, *sequence.added[: len(sequence.step_s)]]
        for n in [len(sequence.prompt), *[1] * len(sequence.step_s)]:
            rows = [np.array(next(gates)).reshape(n, top_k) for _ in range(layers)]
            ids.append(np.stack(rows, axis=1))
        tokens += processed
        lengths.append(len(processed))
    assert next(gates, None) is None, "gates of no token"
    phases = [
        np.where(np.arange(length) < len(sequence.prompt), PREFILL, DECODE)
        for length, sequence in zip(lengths, sequences, strict=True)
    ]
    return RoutingTrace(
        expert_ids=np.concatenate(ids).astype(id_dtype(experts)),
        gate_weights=None,
        sequence_offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        position=np.concatenate([np.arange(n) for n in lengths]).astype(np.int32),
        phase=np.concatenate(phases).astype(np.uint8),
        token_hash=np.asarray(identities)[tokens].astype(np.uint32),
        domains=("generated",) * len(sequences),
        datasets=("generated",) * len(sequences),
        metadata=TraceMetadata.model_validate(
            {
                "model": model,
                "experts": experts,
                "top_k": top_k,
                "layer_map": tuple(range(layers)),
                "ranked": True,
                "gate_weight_kind": "none",
                "source": "generated",
                "licence": "unknown",
            }
        ),
    )
