"""TPOT of the policies that predict nothing, without the event loop, whose times they equal to the picosecond (tested).

Without prefetches the link is idle when a gate asks, so a layer's time depends on the number of missing experts alone.
"""

from perfmodel.config import SimulationConfig
from perfmodel.costs import CostModel, SimulatedLayers
from perfmodel.device_cache import DeviceCache
from perfmodel.steps import DecodeStep, PromptPass, steps_of
from perfmodel.tasks import PS_PER_S
from traces import RoutingTrace


def token_times_ps(
    trace: RoutingTrace, policy: str, config: SimulationConfig, costs: CostModel, layers: SimulatedLayers
) -> list[int]:
    """Duration of each decode token under ``on_demand``, ``lru_cache`` or ``all_resident``.

    Raises:
        ForestageError: if ``lru_cache`` is asked for and no capacity is given.
    """
    cache: DeviceCache | None = None
    if policy == "lru_cache":
        capacity = config.capacity(layers=trace.layers, experts=trace.experts, expert_bytes=costs.expert_bytes)
        cache = DeviceCache(layers=trace.layers, capacity=capacity, scope=config.scope)
    latency_ps = round(config.transfer_latency_us * 1e-6 * PS_PER_S)
    after_gate_ps = [after_gate(missing, trace.top_k, costs, latency_ps) for missing in range(trace.top_k + 1)]
    always_missing = trace.top_k if policy == "on_demand" else 0
    gate_ps = costs.gate().duration_ps
    times: list[int] = []
    for step in steps_of(trace):
        if isinstance(step, PromptPass) and cache is not None:
            for layer, experts in enumerate(step.chosen):
                cache.access(layer, experts)
        elif isinstance(step, DecodeStep):
            total_ps = sum(costs.dense_layer(step.context_tokens, layer).duration_ps for layer in layers.dense)
            attentions = costs.attentions(step.context_tokens, layers.routed)
            for layer, (experts, attention) in enumerate(zip(step.ids, attentions, strict=True)):
                missing = always_missing if cache is None else cache.access(layer, experts).count(False)
                total_ps += attention.duration_ps + gate_ps + after_gate_ps[missing]
            times.append(total_ps)
    return times


def after_gate(missing: int, top_k: int, costs: CostModel, latency_ps: int) -> int:
    """Time from a layer's gate to the end of its experts, ps; ``missing`` of them cross an idle link one by one."""
    shared = costs.shared_experts()
    expert_ps = costs.expert().duration_ps
    free_ps = (0 if shared is None else shared.duration_ps) + (top_k - missing) * expert_ps
    for nth in range(1, missing + 1):
        free_ps = max(free_ps, latency_ps + nth * costs.expert_transfer_ps) + expert_ps
    return free_ps
