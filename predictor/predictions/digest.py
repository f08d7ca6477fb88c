"""One number that stands for a trace's tokens and routing, so that predictions of another trace are told."""

import hashlib

import numpy as np

from traces import RoutingTrace

UNRECORDED = 0xFFFF


def trace_digest(trace: RoutingTrace) -> str:
    """SHA-256, in hexadecimal, of what was routed where.

    Hashed are, little-endian: tokens, layers and top-k (i64); ``sequence_offsets`` (i64); then, for chunks of tokens in
    order, the positions (i32) and the ids (u16, ``0xFFFF`` where a row was not recorded) of 4096 tokens. Gate weights,
    labels and metadata are not part of it, nor is the dtype in which a file keeps its ids.
    """
    state = hashlib.sha256()
    state.update(np.array([trace.tokens, trace.layers, trace.top_k], "<i8").tobytes())
    state.update(np.asarray(trace.sequence_offsets).astype("<i8").tobytes())
    for part in trace.chunks(4096):
        ids = part.expert_ids.astype("<u2")
        ids[~part.recorded()] = UNRECORDED
        state.update(np.asarray(part.position).astype("<i4").tobytes())
        state.update(ids.tobytes())
    return state.hexdigest()
