"""What the compiled simulation knows: numbers of which there is one each, and arrays."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NEVER = np.iinfo(np.int64).max

NUMBERS = np.dtype(
    [
        (name, np.int64)
        for name in (
            "now", "step",
            "moving", "since", "kept", "arrives", "stops", "stop_chunk", "paused", "told",
            "answered", "asked", "read",
            "host_first", "host_last", "host_left", "host_since", "host_rate", "host_next", "host_began", "host_result",
            "host_after",
            "gate_at", "free_at", "coming", "demanded",
            "compute", "hbm", "demand_wait", "late_wait", "host_wait", "link_busy", "host_busy",
            "lookups", "hits", "fetched", "computed", "demands", "late", "ahead", "abandoned",
        )
    ],
    align=True,
)  # fmt: skip
"""Times are ps.

* Link: ``moving`` key or −1, ``since`` when, with so many chunks ``kept`` from before; it ``arrives``, or ``stops``
  before with ``stop_chunk`` chunks (``NEVER``: none is set). ``paused``: keys in ``State.paused``; ``told``:
  whether the stager was told anything since the link was last offered (otherwise it would answer the same).
* Prefetch engine: when it ``answered`` last, how many answers were ``asked`` for and how many were ``read``.
* Host: places ``host_first`` … ``host_last − 1`` of ``State.host`` are left; of the first so much work is left
  (``host_left``, 10⁻⁶ bytes) ``host_since`` then, at ``host_rate``; ``host_next``: when it begins or ends one
  (``NEVER``: nothing to do); ``host_began``: when the layer's first began, −1: not yet; ``host_result``: when the
  device has the result, ``host_after`` after the last ended.
* Device: ``gate_at``: when the next gate is known, ``NEVER``: the layer's is; ``free_at``: when what was available has
  run; ``coming``: experts that it waits for; ``demanded``: how many the layer demanded.
* Sums and counts as in `perfmodel.run` and `predictor.policies.counts`.
"""


class Given(NamedTuple):
    """What does not change: workload, durations and foresight; empty arrays where there is none."""

    layers: int
    experts: NDArray[np.int32]
    tokens_of: NDArray[np.int32]
    offsets: NDArray[np.int64]
    timed: NDArray[np.bool_]
    before_gate_ps: NDArray[np.int64]
    before_gate_compute_ps: NDArray[np.int64]
    shared_ps: NDArray[np.int64]
    shared_compute_ps: NDArray[np.int64]
    prefetch_engine_ps: NDArray[np.int64]
    values_engine_ps: NDArray[np.int64]
    begin_engine_ps: NDArray[np.int64]
    chunk_bytes: int
    chunk_ps: NDArray[np.int64]
    expert_ps: NDArray[np.int64]
    expert_compute_ps: NDArray[np.int64]
    host_work: int
    host_free_rate: NDArray[np.int64]
    host_shared_rate: NDArray[np.int64]
    host_groups: int
    host_before_ps: int
    host_after_ps: int
    host_token_ps: int
    may_fetch: bool
    may_compute: bool
    has_values: bool
    values_at_step_end: bool
    values: NDArray[np.int32]
    has_predictions: bool
    distances: NDArray[np.int64]
    predicted: NDArray[np.int16]
    chances: NDArray[np.int32]


class State(NamedTuple):
    """What changes.

    Attributes:
        numbers: of ``NUMBERS``.
        step_ps: i64 ``[steps]``, the answer.
        answer_ps, answer_event: i64, of the answers asked of the prefetch engine: when they come; (step, layer + 1,
            whether it is of values) as one number.
        paused: i64, keys that were stopped and hold a place.
        chunks: i64 ``[keys]``, chunks that a paused key has.
        began: u8 ``[keys]``, how its transfer began: ``NOT``, ``FOR_A_GATE`` or ``AHEAD``.
        awaited: i64 ``[keys]``, of an expert that the layer waits for: tokens, and whether it was queued or moving at
            the gate (2 · tokens + that); 0 for others.
        host: i64, tokens of each expert that the host computes, or that its group with the most to do does.
        host_experts: i64 ``[experts]``, scratch: the experts that the host computes.
        demanded: i64 ``[experts]``, scratch: what the layer demanded.
        scratch, scratch_chances: i64 ``[experts]``.
        worth, missing_tokens, missing_at: i64 ``[experts]``; chosen: bool ``[experts]``: scratch.
    """

    numbers: Any
    step_ps: NDArray[np.int64]
    answer_ps: NDArray[np.int64]
    answer_event: NDArray[np.int64]
    paused: NDArray[np.int64]
    chunks: NDArray[np.int64]
    began: NDArray[np.uint8]
    awaited: NDArray[np.int64]
    host: NDArray[np.int64]
    host_experts: NDArray[np.int64]
    demanded: NDArray[np.int64]
    scratch: NDArray[np.int64]
    scratch_chances: NDArray[np.int64]
    worth: NDArray[np.int64]
    missing_tokens: NDArray[np.int64]
    missing_at: NDArray[np.int64]
    chosen: NDArray[np.bool_]


NOT, FOR_A_GATE, AHEAD = 0, 1, 2
