"""A digest of a trace's tokens and routing, which shows whether predictions are of another trace."""

import hashlib

import numpy as np

from traces import RoutingTrace

UNRECORDED = 0xFFFF


def trace_digest(trace: RoutingTrace) -> str:
    """SHA-256, in hexadecimal, of a trace's routing.

    It covers, little-endian: tokens, layers and top-k (i64); ``sequence_offsets`` (i64); then, for every 4096 tokens in
    order, their positions (i32) and their ids (u16, ``0xFFFF`` in unrecorded rows). It does not cover gate weights,
    labels and metadata, nor the dtype in which a file keeps its ids.
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
