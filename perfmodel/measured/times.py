"""The times of a part's steps on a measured machine.

What of the runtime is stated, and how:

* *Before a gate*: the fixed part of this layer, and what the runtime takes of the host for a layer, one after the
  other. The host waits for the gate, so the device is idle until it launches again: a layer takes no less than the host
  needs for it. The runtime's part is the way of the chosen ids to the host, the stager's decision and its own work on
  them, and the sum of the outputs of the layer before (of the first layer: of the last one of the step before). The
  first layer also has the end of a step: its output matrix, and the way of the next tokens' ids to the host.
* What the runtime takes for an expert that is missing is not counted: it is done while the link moves, but for what is
  before the first chunk and after the last one.
* *After it*: shared experts, and what the host takes to ask and tell what is known ahead; nothing is launched
  meanwhile, and the link moves. Both are the mean over the layers. Assumption: a layer waits for the host; where the
  device has more to do than the host, telling is hidden, and the prediction too slow by that much.
* What is known ahead is told once the layer's experts are launched, one after the other; what is known before the first
  layer before anything of the step is launched.
* A transfer takes its chunks, queued after each other. Not stated: that the first one on an idle link is launched and
  seen later than one that follows another.
* The host's processor is slower while the link moves; the link is not slower while the processor reads.
* The device's kernels are not slowed by the copies.

All of a kernel's time counts as computing: what its bytes take is not measured apart.
"""

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from perfmodel.durations import LARGEST_EXPERT, MOST_CHUNKS, RATE, times_array
from perfmodel.measured.constants import HostConstants, MeasuredConstants
from perfmodel.times import Times
from perfmodel.units import PS_PER_S
from perfmodel.workload import Durations, Workload
from perfmodel.workload_of import check_times
from predictor.policies.parts import Part


def measured_times(part: Part, contexts: NDArray[np.int64], constants: MeasuredConstants) -> Times:
    """The times of ``part`` on the machine of ``constants``.

    Args:
        part: what is simulated.
        contexts: i64 ``[tokens of the trace]``, tokens in the cache that each looks at, itself among them.
        constants: as measured.

    Raises:
        ForestageError: where something is needed that was not measured, naming it.
        ValueError: if the constants are of another number of layers, or ``contexts`` of another trace.
    """
    work = _workload(part, contexts, constants)
    taken = _durations(_most_timed_tokens(part), constants)
    check_times(work, taken)
    rate = min(constants.copy.bytes_per_s, constants.throttle_bytes_per_s or float("inf"))
    return Times(workload=work, durations=taken, model=constants.model, link_gb_per_s=rate / 1e9)


def _workload(part: Part, contexts: NDArray[np.int64], constants: MeasuredConstants) -> Workload:
    trace, steps = part.trace, part.steps
    if len(constants.layers) != trace.layers or contexts.shape != (trace.tokens,):
        raise ValueError(f"{len(constants.layers)} layers and {contexts.shape} contexts for {trace!r}")
    sizes = np.diff(steps.offsets)
    longest = np.maximum.reduceat(contexts[steps.tokens], steps.offsets[:-1])
    rows = _rows(np.where(steps.timed, longest, 0), constants.buckets)
    before, after = np.zeros((len(steps), trace.layers)), np.zeros(len(steps))
    asked = np.zeros((len(steps), trace.layers))
    uses = np.diff(part.needed.offsets).reshape(len(steps), trace.layers)
    # Layers of one kind share their constants, and many steps are alike.
    found: dict[tuple[int, int, int], float] = {}
    of_step: dict[int, tuple[float, float]] = {}
    for step in np.flatnonzero(steps.timed).tolist():
        tokens, context = int(sizes[step]), int(rows[step])
        if tokens not in of_step:
            of_step[tokens] = _around(tokens, constants)
        around, after[step] = of_step[tokens]
        for layer, of_layer in enumerate(constants.layers):
            key = (id(of_layer), tokens, context)
            if key not in found:
                found[key] = of_layer.fixed_s.at(tokens, context) + around
            more = max(0, int(uses[step, layer]) - trace.top_k) * constants.runtime_expert_s
            before[step, layer] = found[key] + more
        before[step, 0] += constants.end_s.at(tokens) + constants.gate_s.at(tokens * trace.top_k) + constants.begin_s
        asked[step] = constants.expert_launch_s * uses[step] + constants.foresight_s
    before_ps, after_ps = _ps("a layer", before), _ps("what follows a gate", after)
    return Workload(
        layers=trace.layers,
        model_experts=trace.experts,
        experts=part.needed.experts,
        tokens_of=part.needed.tokens_of,
        offsets=part.needed.offsets,
        timed=steps.timed,
        tokens=sizes,
        before_gate_ps=before_ps,
        before_gate_compute_ps=before_ps,
        shared_ps=after_ps,
        shared_compute_ps=after_ps,
        prefetch_engine_ps=_ps("what is known ahead", asked),
        values_engine_ps=_ps("what is known ahead", asked),
        begin_engine_ps=_ps("what is known before a step", np.where(steps.timed, constants.begin_s, 0.0)),
    )


def _most_timed_tokens(part: Part) -> int:
    """Tokens of one timed step that choose one expert, at most: prompts' steps take no time."""
    timed = np.repeat(np.repeat(part.steps.timed, part.trace.layers), np.diff(part.needed.offsets))
    return int(part.needed.tokens_of[timed].max())


def _around(tokens: int, constants: MeasuredConstants) -> tuple[float, float]:
    """Of a step of so many tokens, in every layer: s before its gate beside the layer's own, and s after it."""
    shared = [layer.shared_s.at(tokens) for layer in constants.layers if layer.shared_s is not None]
    return constants.runtime_s.at(tokens), sum(shared) / len(constants.layers) + constants.foresight_s


def _rows(longest: NDArray[np.int64], buckets: tuple[int, ...]) -> NDArray[np.int64]:
    """Rows of the cache that a step reads, by its longest sequence.

    Raises:
        ForestageError: for a longer one than the largest bucket.
    """
    if longest.max() > buckets[-1]:
        raise ForestageError(
            f"context: a step looks at {longest.max()} tokens, the cache has {buckets[-1]}; measure with a longer one"
        )
    return np.array(buckets, np.int64)[np.searchsorted(buckets, longest)]


def _durations(most_tokens: int, constants: MeasuredConstants) -> Durations:
    size, chunk = constants.expert_bytes, constants.chunk_bytes
    if not 0 < size <= LARGEST_EXPERT or not chunk > 0 or size > MOST_CHUNKS * chunk:
        raise ForestageError(
            f"expert_bytes: {size} in chunks of {chunk}; the simulation takes up to 10¹² in 2²² chunks"
        )
    experts = np.array([0.0, *(constants.expert_s.at(tokens) for tokens in range(1, most_tokens + 1))])
    expert_ps = _ps("an expert", experts)
    free_rate, shared_rate = _host_rates(most_tokens, size, constants.host)
    before_s, after_s = (0.0, 0.0) if constants.host is None else (constants.host.before_s, constants.host.after_s)
    return Durations(
        expert_bytes=size,
        chunk_bytes=chunk,
        chunk_ps=_chunk_ps(constants),
        expert_ps=expert_ps,
        expert_compute_ps=expert_ps,
        host_work=size * RATE,
        host_free_rate=free_rate,
        host_shared_rate=shared_rate,
        host_groups=1,
        host_before_ps=int(_ps("the way to the host", np.array(before_s))),
        host_after_ps=int(_ps("the way from the host", np.array(after_s))),
        host_token_ps=0,
    )


def _chunk_ps(constants: MeasuredConstants) -> NDArray[np.int64]:
    """When so many chunks of a transfer have passed: queued after each other, no faster than the throttle."""
    size, chunk = constants.expert_bytes, constants.chunk_bytes
    ends = np.array([0, *range(chunk, size, chunk), size], np.float64)
    passed = np.arange(len(ends)) * constants.copy.latency_s + ends / constants.copy.bytes_per_s
    if constants.throttle_bytes_per_s is not None:
        passed = np.maximum(passed, ends / constants.throttle_bytes_per_s)
    return _ps("a transfer", passed)


def _host_rates(most_tokens: int, size: int, host: HostConstants | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rates of `Durations`, free and shared: the bytes of an expert over the time that computing it took.

    Its arithmetic and its memory are not told apart: while the link is idle the memory bounds nothing, and while it
    moves the memory gives no more than an expert of one token, which needs it most, was seen to get.
    """
    free = np.zeros(most_tokens + 1, np.int64)
    if host is None:
        return free, free
    free[1:] = [round(size / RATE / host.expert_s.at(tokens)) for tokens in range(1, most_tokens + 1)]
    shared = round(int(free[1]) / host.while_copying)
    if free[1:].min() < 1 or shared < 1:
        raise ForestageError("host expert: less than 1 MB/s of an expert; the simulation cannot count so slow a host")
    return free, np.minimum(free, shared)


def _ps(what: str, seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole picoseconds."""
    return times_array(what, np.rint(seconds * PS_PER_S).astype(np.int64).ravel().tolist()).reshape(seconds.shape)
