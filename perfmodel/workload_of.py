"""The workload of a trace's steps: how long the device runs before each gate, and the shared experts after it.

Weights are read once a step, operations and caches count by token. In a step whose tokens are of different sequences,
each reads its own key-value cache (or state). In one whose tokens follow each other in one sequence (verification), the
cache is read once, by the token that sees most of it; assumption: a window, which moves with the tokens, would add one
token of cache for each further one, which is not counted.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from catalog.attention import LayerAttention
from catalog.errors import ForestageError
from perfmodel.costs import CostModel, Kernel, SimulatedLayers
from perfmodel.durations import times_array
from perfmodel.units import PS_PER_S
from perfmodel.workload import Durations, Workload
from staging.steps import StepExperts, Steps
from traces import RoutingTrace

LONGEST_RUN_PS = 2**61
"""What the parts of a simulation may add up to; a quarter of what 64 bits hold."""


def workload(
    trace: RoutingTrace,
    steps: Steps,
    experts: StepExperts,
    costs: CostModel,
    layers: SimulatedLayers,
    prefetch_engine_ps: NDArray[np.int64],
) -> Workload:
    """The steps of ``trace`` with the times of their kernels.

    Args:
        trace: the routing; a token's context is its position + 1.
        steps: which tokens run together.
        experts: what each step and layer needs.
        costs: of the model on the machine.
        layers: which of the model's layers run; as many routed ones as the trace has.
        prefetch_engine_ps: i64 ``[steps, layers]``, how long the prefetch engine works on the event of a gate, which
            tells predictions and values at once; on the beginning of a step as long as on that of its first gate.

    Raises:
        ValueError: if the shapes do not agree, a step has no token, or a time is negative.
    """
    _check_shapes(trace, steps, experts, layers, prefetch_engine_ps)
    before_ps, before_compute_ps, shared_ps, shared_compute_ps = _kernel_times(trace, steps, costs, layers)
    return Workload(
        layers=trace.layers,
        model_experts=trace.experts,
        experts=experts.experts,
        tokens_of=experts.tokens_of,
        offsets=experts.offsets,
        timed=steps.timed,
        tokens=np.diff(steps.offsets),
        before_gate_ps=before_ps,
        before_gate_compute_ps=before_compute_ps,
        shared_ps=shared_ps,
        shared_compute_ps=shared_compute_ps,
        prefetch_engine_ps=np.ascontiguousarray(prefetch_engine_ps, np.int64),
        values_engine_ps=np.ascontiguousarray(prefetch_engine_ps, np.int64),
        begin_engine_ps=np.array(prefetch_engine_ps[:, 0], np.int64),
    )


def check_times(work: Workload, times: Durations) -> None:
    """Refuse a simulation whose times could add up to more than 64-bit integers hold.

    The estimate takes every needed expert to be fetched, computed by the host and by the device, all one after the
    other.

    Raises:
        ForestageError: if that is more than `LONGEST_RUN_PS`.
    """
    layer_timed = np.repeat(work.timed, work.layers)
    uses = int(np.diff(work.offsets)[layer_timed].sum())
    rates = [int(rate) for rates in (times.host_free_rate, times.host_shared_rate) for rate in rates if rate > 0]
    host_ps = -(-times.host_work // min(rates)) if rates else 0
    host_ps += (len(times.expert_ps) - 1) * times.host_token_ps
    each_ps = int(times.chunk_ps[-1]) + int(times.expert_ps.max()) + host_ps
    engine = (np.maximum(work.prefetch_engine_ps, work.values_engine_ps), work.begin_engine_ps)
    kernels = (work.before_gate_ps, work.shared_ps * work.layers, *engine)
    total = sum(int(part.sum(dtype=np.float64)) for part in kernels)
    total += uses * each_ps + int(layer_timed.sum()) * (times.host_before_ps + times.host_after_ps)
    if total > LONGEST_RUN_PS:
        raise ForestageError(
            f"simulation: the steps could take {total / PS_PER_S:.3g} s, more than the "
            f"{LONGEST_RUN_PS / PS_PER_S:.3g} s that can be counted; give fewer tokens or a faster link and host"
        )


def _kernel_times(
    trace: RoutingTrace, steps: Steps, costs: CostModel, layers: SimulatedLayers
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Kernels before each gate and shared experts: whole and operations alone; 0 for steps that are not timed."""
    count = len(steps)
    timed = np.flatnonzero(steps.timed)
    tokens = np.diff(steps.offsets)[timed].tolist()
    gate, shared = cache(costs.gate), cache(costs.shared_experts)
    gates = _times([gate(n) for n in tokens])
    before = np.zeros((2, count, trace.layers), np.int64)
    attention_times: dict[int, NDArray[np.int64]] = {}
    attention_kernels: dict[int, list[Kernel]] = {}

    def attentions(layer: int) -> list[Kernel]:
        kind = costs.attention_kind(layer)
        if id(kind) not in attention_kernels:
            attention_kernels[id(kind)] = _attention_kernels(trace, steps, timed, costs, layer)
        return attention_kernels[id(kind)]

    for index, layer in enumerate(layers.routed):
        kind = id(costs.attention_kind(layer))
        if kind not in attention_times:
            attention_times[kind] = _times(attentions(layer)) + gates
        before[:, timed, index] = attention_times[kind]
    dense_of: Callable[[Kernel, int], Kernel] = cache(costs.dense_of_tokens)
    for layer in layers.dense:
        before[:, timed, 0] += _times([dense_of(one, n) for one, n in zip(attentions(layer), tokens, strict=True)])
    after = np.zeros((2, count), np.int64)
    shareds = [shared(n) for n in tokens]
    after[:, timed] = _times([one for one in shareds if one is not None]) if costs.model.shared_weights else 0
    return before[0], before[1], after[0], after[1]


def _attention_kernels(
    trace: RoutingTrace, steps: Steps, timed: NDArray[np.int64], costs: CostModel, layer: int
) -> list[Kernel]:
    """The attention of the model's layer ``layer`` in each timed step."""
    sizes = np.diff(steps.offsets)
    if not len(timed):
        return []
    rows = steps.tokens[np.repeat(steps.timed, sizes)]
    contexts, inverse = np.unique(trace.position[rows].astype(np.int64) + 1, return_inverse=True)
    begins = np.cumsum(sizes[timed]) - sizes[timed]
    elements, operations = _of_contexts(costs.attention_kind(layer), contexts)
    together = np.maximum if steps.sequential else np.add
    kernel = cache(
        lambda tokens, cached, adds: costs.attention_of_tokens(layer, tokens, cache_elements=cached, multiply_adds=adds)
    )
    return [
        kernel(*step)
        for step in zip(
            sizes[timed].tolist(),
            together.reduceat(elements[inverse], begins).tolist(),
            np.add.reduceat(operations[inverse], begins).tolist(),
            strict=True,
        )
    ]


def _of_contexts(attention: LayerAttention, contexts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Elements of the cache, and multiply-adds on them, for one token at the end of each of ``contexts``."""
    listed = contexts.tolist()
    return (
        np.array([attention.cache_elements(one) for one in listed], np.int64),
        np.array([attention.multiply_adds(one) for one in listed], np.int64),
    )


def _times(kernels: list[Kernel]) -> NDArray[np.int64]:
    """``[2, kernels]``: duration, and operations alone."""
    return np.stack(
        [
            times_array("kernel", [one.duration_ps for one in kernels]),
            times_array("kernel", [one.compute_ps for one in kernels]),
        ]
    )


def _check_shapes(
    trace: RoutingTrace,
    steps: Steps,
    experts: StepExperts,
    layers: SimulatedLayers,
    prefetch_engine_ps: NDArray[np.int64],
) -> None:
    count = len(steps)
    sizes = np.diff(steps.offsets)
    for agrees, what in (
        (
            len(layers.routed) == trace.layers,
            f"{len(layers.routed)} layers are simulated, the trace has {trace.layers}",
        ),
        (steps.offsets.shape == (count + 1,) and steps.offsets[-1] == len(steps.tokens), "steps: offsets do not fit"),
        (bool((sizes > 0).all()), "steps: one has no token"),
        (experts.offsets.shape == (count * trace.layers + 1,), "experts: offsets are of other steps or layers"),
        (prefetch_engine_ps.shape == (count, trace.layers), "prefetch_engine_ps: not [steps, layers]"),
        (bool((prefetch_engine_ps >= 0).all()), "prefetch_engine_ps: negative"),
    ):
        if not agrees:
            raise ValueError(f"workload: {what}")
