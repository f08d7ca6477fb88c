"""Simulate a policy on a trace: TPOT, how it was spent, bytes by kind, and the bounds to compare with.

Sequences are decoded one after the other, batch 1. Recorded prompt tokens warm the cache, in zero time and zero bytes,
and are not counted.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from catalog.catalogue import Catalog
from catalog.errors import ForestageError
from catalog.progress import Progress
from perfmodel.closed_form import token_times_ps
from perfmodel.config import SimulationConfig
from perfmodel.costs import CostModel
from perfmodel.costs_of import resolve_costs
from perfmodel.decode import DecodeLoop
from perfmodel.event_loop import EventLoop
from perfmodel.policies import System, find_policy
from perfmodel.results import Bounds, Breakdown, ExpertCounts, SimulationResult, TokenTime, TransferredBytes
from perfmodel.tasks import Resource
from perfmodel.transfers import HOST_LINK, PREFETCH_ENGINE
from perfmodel.units import PS_PER_S
from predictor.issue import IssueSets, perfect_issue_sets
from staging.simulate import simulate as simulate_cache
from traces import DECODE, RoutingTrace


def simulate(
    trace: RoutingTrace,
    policy: str,
    config: SimulationConfig,
    *,
    issue_sets: IssueSets | None = None,
    engine_cycles: NDArray[np.integer] | None = None,
    bounds: Bounds | None = None,
    progress: Progress | None = None,
    catalog: Catalog | None = None,
) -> SimulationResult:
    """Run ``trace`` through ``policy``.

    Args:
        trace: the routing; decode rows must all be recorded.
        policy: a name of `perfmodel.policies`.
        config: sizes, machine, cache, prefetching.
        issue_sets: of `predictor.issue.issue_sets`, made with ``config.lookahead`` and at least ``config.issue_limit``
            experts; for policies that prefetch a predictor's choice.
        engine_cycles: ``[tokens, layers]``, the prefetch engine's cycles for each routing event (from the twin), at
            the machine's engine clock; ``config.engine_cycles`` for all of them by default.
        bounds: to be put into the result (`compute_bounds`; they depend on trace and configuration alone).
        progress: called with (tokens done, tokens).
        catalog: the shipped one by default.

    Raises:
        ForestageError: for an unknown policy, model or machine, sizes that do not fit the trace, a missing capacity or
            one too small, issue sets missing, of the wrong shape, lookahead or limit, a trace without decode tokens or
            with unrecorded ones.
    """
    chosen = find_policy(policy)
    costs, layers = resolve_costs(trace, config, catalog)
    _check_trace(trace)
    if policy == "perfect_prefetch":
        issue_sets = perfect_issue_sets(trace)
    elif chosen.uses_issue_sets:
        given = None if issue_sets is None else issue_sets.experts
        _check_shape("issue_sets", given, trace, f"policy {policy} fetches what a predictor issues")
        if issue_sets is not None:
            limit = min(config.issue_limit or issue_sets.limit, trace.experts)
            issue_sets.check_use(lookahead=config.lookahead, limit=limit, origin="simulation")
    if engine_cycles is not None:
        _check_shape("engine_cycles", engine_cycles, trace, "one count a routing event")
    system = System(
        event_loop=_make_event_loop(costs, config),
        costs=costs,
        config=config,
        layers=trace.layers,
        experts=trace.experts,
        top_k=trace.top_k,
        issue_sets=None if issue_sets is None else issue_sets.experts,
        engine_cycles=None if engine_cycles is None else np.asarray(engine_cycles, np.int64),
    )
    loop = DecodeLoop(system, chosen(system), layers)
    loop.run(trace, progress)
    _check(loop)
    event_loop = system.event_loop
    breakdown = Breakdown.of(loop.parts)
    return SimulationResult(
        policy=policy,
        routing_of=trace.metadata.model,
        sizes_of=costs.model.name,
        synthetic=trace.metadata.synthetic,
        machine=costs.machine.name,
        config=config,
        sequences=trace.sequences,
        decode_tokens=len(loop.token_ps),
        prompt_tokens=loop.prompt_tokens,
        capacity_experts=system.capacity if chosen.has_cache else None,
        expert_bytes=costs.expert_bytes,
        link_gb_per_s=costs.link_bytes_per_s / 1e9,
        tpot=TokenTime.of(loop.token_ps),
        breakdown=breakdown,
        tpot_parts_s=breakdown.per_token_s(len(loop.token_ps)),
        bytes=TransferredBytes.of(loop.policy.link_bytes),
        experts=ExpertCounts.of(loop.policy.counts),
        utilisation={name: event_loop.busy_ps(name) / event_loop.now_ps for name in event_loop.resource_names},
        bounds=bounds,
    )


def check_simulation(
    trace: RoutingTrace, policies: Iterable[str], config: SimulationConfig, catalog: Catalog | None = None
) -> None:
    """Refuse at once, before issue sets are made, what `simulate` would refuse for any of ``policies``.

    Raises:
        ForestageError: as `simulate`, but for the issue sets.
    """
    chosen = [find_policy(policy) for policy in policies]
    costs, _ = resolve_costs(trace, config, catalog)
    _check_trace(trace)
    for policy in chosen:
        policy(
            System(
                event_loop=_make_event_loop(costs, config),
                costs=costs,
                config=config,
                layers=trace.layers,
                experts=trace.experts,
                top_k=trace.top_k,
                issue_sets=np.empty((0, trace.layers, 0), np.int16),
                engine_cycles=None,
            )
        )


def compute_bounds(
    trace: RoutingTrace,
    config: SimulationConfig,
    *,
    perfect: SimulationResult | None = None,
    progress: Progress | None = None,
    catalog: Catalog | None = None,
) -> Bounds:
    """The bounds of every policy on ``trace`` with ``config``; see `Bounds`.

    ``perfect``: the result of ``perfect_prefetch`` for the same trace and configuration, if the caller has it; all
    other bounds take little time.

    Raises:
        ForestageError: as `simulate`.
    """
    costs, layers = resolve_costs(trace, config, catalog)
    _check_trace(trace)

    def mean_s(policy: str) -> float:
        times_ps = token_times_ps(trace, policy, config, costs, layers)
        return sum(times_ps) / len(times_ps) / PS_PER_S

    on_demand_s, all_resident_s = mean_s("on_demand"), mean_s("all_resident")
    if not config.has_capacity:
        return Bounds(on_demand_s=on_demand_s, all_resident_s=all_resident_s)
    capacity = config.capacity(layers=trace.layers, experts=trace.experts, expert_bytes=costs.expert_bytes)
    each = capacity // trace.layers if config.scope == "layer" else capacity
    belady = simulate_cache(trace, capacity=each, policy="belady", scope=config.scope)
    load_s = belady.loads * costs.expert_bytes / costs.link_bytes_per_s
    if perfect is None:
        perfect = simulate(trace, "perfect_prefetch", config, progress=progress, catalog=catalog)
    if (perfect.policy, perfect.config) != ("perfect_prefetch", config):
        raise ValueError("perfect: a result of another policy or configuration")
    return Bounds(
        on_demand_s=on_demand_s,
        no_prefetch_s=mean_s("lru_cache"),
        perfect_prefetch_s=perfect.tpot.mean_s,
        all_resident_s=all_resident_s,
        link_roofline_s=load_s / perfect.decode_tokens,
        lru_hit_rate=simulate_cache(trace, capacity=each, policy="lru", scope=config.scope).hit_rate,
        belady_hit_rate=belady.hit_rate,
    )


def _check_trace(trace: RoutingTrace) -> None:
    decodes = np.asarray(trace.phase) == DECODE
    if not decodes.any():
        raise ForestageError(
            f"trace of {trace.metadata.model}: phase: no decode token to simulate; give a decode trace"
        )
    unrecorded = np.argwhere(decodes[:, None] & ~trace.recorded())
    if len(unrecorded):
        token, layer = unrecorded[0].tolist()
        raise ForestageError(
            f"trace of {trace.metadata.model}: expert_ids: decode token {token} has no recorded routing in layer "
            f"{layer}; simulate sequences that are complete"
        )


def _check_shape(field: str, array: NDArray[np.integer] | None, trace: RoutingTrace, why: str) -> None:
    expected = (trace.tokens, trace.layers)
    if array is None or array.shape[:2] != expected:
        given = "none were given" if array is None else f"the given ones are {array.shape}"
        raise ForestageError(f"simulation: {field}: {why}: give [{expected[0]}, {expected[1]}, …], {given}")


def _make_event_loop(costs: CostModel, config: SimulationConfig) -> EventLoop:
    return EventLoop(
        [
            Resource("gpu_compute"),
            Resource("hbm"),
            Resource(HOST_LINK, bandwidth_bytes_per_s=costs.link_bytes_per_s, chunk_bytes=config.chunk_bytes),
            Resource(PREFETCH_ENGINE),
        ]
    )


def _check(loop: DecodeLoop) -> None:
    """What must hold of every finished simulation, whatever the policy."""
    event_loop, counts = loop.system.event_loop, loop.policy.counts
    event_loop.check()
    assert sum(loop.token_ps) == loop.parts.total, "the parts of the tokens' time do not sum to it"
    assert loop.policy.link_bytes.total == event_loop.moved_bytes(HOST_LINK), "bytes by kind are not the link's"
    ends = counts.useful + counts.late + counts.wasted + counts.dropped
    assert counts.issued == ends, f"{counts.issued} prefetches issued, {ends} accounted for"
