"""Traces made from given ids, for the tests of every folder."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from traces import DECODE, PREFILL, RoutingTrace, TraceMetadata, id_dtype


def trace_of(
    ids: npt.ArrayLike,
    *,
    experts: int,
    lengths: Sequence[int] | None = None,
    prompt: int = 0,
    phase: npt.ArrayLike | None = None,
    domains: Sequence[str] | None = None,
    gate_weights: npt.NDArray[np.float16] | None = None,
    **metadata: Any,
) -> RoutingTrace:
    """A trace of these ids ``[tokens][layers][top_k]``; a row filled with the dtype's maximum was not recorded.

    Args:
        ids: in rank order, unless ``metadata`` says otherwise.
        experts: of a layer.
        lengths: tokens of each sequence; one sequence where ``None``.
        prompt: tokens of each sequence that are prefill, the others being decode.
        phase: of every token, in place of ``prompt``.
        domains: of each sequence; all the same where ``None``.
        gate_weights: in the order of the ids.
        metadata: fields of ``TraceMetadata`` that differ from a test's.
    """
    array = np.asarray(ids).astype(id_dtype(experts))
    tokens, layers, top_k = array.shape
    lengths = [tokens] if lengths is None else list(lengths)
    position = np.concatenate([np.arange(length) for length in lengths])
    facts: dict[str, Any] = {
        "model": "test",
        "experts": experts,
        "top_k": top_k,
        "layer_map": tuple(range(layers)),
        "ranked": True,
        "gate_weight_kind": "none" if gate_weights is None else "normalised",
        "source": "made by a test",
        "licence": "Apache-2.0",
        "synthetic": True,
        "has_unrecorded": bool((array == np.iinfo(array.dtype).max).any()),
    }
    return RoutingTrace(
        expert_ids=array,
        gate_weights=gate_weights,
        sequence_offsets=np.cumsum([0, *lengths]),
        position=position.astype(np.int32),
        phase=(np.where(position < prompt, PREFILL, DECODE) if phase is None else np.asarray(phase)).astype(np.uint8),
        token_hash=None,
        domains=tuple(domains or ["a"] * len(lengths)),
        datasets=("a",) * len(lengths),
        metadata=TraceMetadata(**{**facts, **metadata}),
    )
