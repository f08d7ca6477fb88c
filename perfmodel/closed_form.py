"""TPOT of the policies that predict nothing, without the event loop, whose times they equal to the picosecond (tested).

Without prefetches the link is idle when a gate asks, so a layer's time depends on the number of missing experts alone.
"""

import numpy as np

from perfmodel.config import SimulationConfig
from perfmodel.costs import CostModel, SimulatedLayers
from perfmodel.steps import DecodeStep, steps_of
from perfmodel.units import PS_PER_S
from staging.events import events_of
from staging.results import Capacity
from staging.simulate import run_policy
from traces import DECODE, RoutingTrace


def token_times_ps(
    trace: RoutingTrace, policy: str, config: SimulationConfig, costs: CostModel, layers: SimulatedLayers
) -> list[int]:
    """Duration of each decode token under ``on_demand``, ``lru_cache`` or ``all_resident``.

    Raises:
        ForestageError: if ``lru_cache`` is asked for and no capacity is given, or none of a layer's own.
    """
    missed = cache_misses(trace, config, costs) if policy == "lru_cache" else None
    latency_ps = round(config.transfer_latency_us * 1e-6 * PS_PER_S)
    after_gate_ps = [after_gate(missing, trace.top_k, costs, latency_ps) for missing in range(trace.top_k + 1)]
    always_missing = trace.top_k if policy == "on_demand" else 0
    gate_ps = costs.gate().duration_ps
    times: list[int] = []
    decode_steps = (step for step in steps_of(trace) if isinstance(step, DecodeStep))
    for nth, step in enumerate(decode_steps):
        total_ps = sum(costs.dense_layer(step.context_tokens, layer).duration_ps for layer in layers.dense)
        missing_of = [always_missing] * trace.layers if missed is None else missed[nth]
        attentions = costs.attentions(step.context_tokens, layers.routed)
        for missing, attention in zip(missing_of, attentions, strict=True):
            total_ps += attention.duration_ps + gate_ps + after_gate_ps[missing]
        times.append(total_ps)
    return times


def cache_misses(trace: RoutingTrace, config: SimulationConfig, costs: CostModel) -> list[list[int]]:
    """Experts that the least-recently-used cache lacks at each gate ``[decode tokens][layers]``."""
    capacity = config.capacity(layers=trace.layers, experts=trace.experts, expert_bytes=costs.expert_bytes)
    each = capacity // trace.layers if config.scope == "layer" else capacity
    events = events_of(trace)
    hit = run_policy(events, "lru", Capacity(each, scope=config.scope)).hit
    missed = np.add.reduceat(~hit, events.offsets[:-1], dtype=np.int64)[events.decode]
    decode_tokens = int((trace.phase == DECODE).sum())
    return missed.reshape(decode_tokens, trace.layers).tolist()


def after_gate(missing: int, top_k: int, costs: CostModel, latency_ps: int) -> int:
    """Time from a layer's gate to the end of its experts, ps; ``missing`` of them cross an idle link one by one."""
    shared = costs.shared_experts()
    expert_ps = costs.expert().duration_ps
    free_ps = (0 if shared is None else shared.duration_ps) + (top_k - missing) * expert_ps
    for nth in range(1, missing + 1):
        free_ps = max(free_ps, latency_ps + nth * costs.expert_transfer_ps) + expert_ps
    return free_ps
