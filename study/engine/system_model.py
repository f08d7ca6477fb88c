"""The system model and the prefetch engine, with the same policy and times: what they count, and how long they take.

The engine is its twin (``run_twin``), or the hardware itself (``study.engine.system_rtl``).

The system model runs whole policies of any kind, over picoseconds; its stager answers at once. In the engine the stager
takes cycles for each command, one command at a time, and the front end, notices and link some more. A cycle is 1,000 ps
here. The model is told of the constant ones: what a gate's look-up takes is part of the kernels before the next gate
(``LOOK_UP_CYCLES``), the commands at both ends of a transfer are part of it (``_load_cycles``), and predictions and
values come when the networks give them. What is left is the order of
commands that come within a few cycles of each other, by chance:

* At a machine's own times (a transfer of some 400,000 cycles) they decide alike: loads, hits and evictions are equal.
* Scaled down to a replay's (some 4,000 cycles), the stager's cycles weigh a hundred times as much: with background
  loads, which it looks for in all layers, some transfers differ.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from perfmodel.compiled import simulation
from perfmodel.config import SimulationConfig
from perfmodel.times import catalogue_times
from perfmodel.workload import Durations, Workload
from predictor.engine.counters import EngineCounter
from predictor.engine.cycles import FIRST_EXPERT_CYCLES, NOTICE_CYCLES, URGENT_CYCLES
from predictor.engine.environment import Environment, LayerTimes
from predictor.engine.events import EventArrays, trace_events
from predictor.engine.heads import Heads
from predictor.engine.limits import HeadsLimits, PrefetchEngineLimits
from predictor.engine.predictors import LearnedPredictor
from predictor.engine.scale import MachineTimes
from predictor.engine.settings import LinkSettings, Mode, PrefetchEngineSettings
from predictor.engine.timing import SteadyLink, SteadyPredictor
from predictor.engine.twin import EngineTwin
from predictor.policies.parts import Part, Predictors
from predictor.policies.plan import Missing, Plan
from predictor.policies.policy import Eviction, Policy, Prefetch, plan_of
from predictor.row_network.twin import RowNetwork
from rtl.prefetch.limits import nets_for
from staging.stager.twin import Stager
from staging.static import hottest

PS = 1000
"""In a cycle."""
LOOK_UP_CYCLES = URGENT_CYCLES + FIRST_EXPERT_CYCLES + NOTICE_CYCLES
"""From a gate to its first expert's being known to be here."""


@dataclass(frozen=True, kw_only=True)
class EngineTimes:
    """In cycles.

    Attributes:
        layers: of whoever runs the layers.
        link: of transfers.
        networks: of predictions and values.
    """

    layers: LayerTimes
    link: SteadyLink
    networks: SteadyPredictor


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What both found.

    Attributes:
        model, engine: experts, by name of ``predictor.policies.counts.Counts``.
        model_cycles, engine_cycles: of a step, mean over all but the last.
        steps: how many.
    """

    model: dict[str, int]
    engine: dict[str, int]
    model_cycles: float
    engine_cycles: float
    steps: int

    @property
    def differences(self) -> dict[str, int]:
        """Of the counts that are not equal, the engine's less the model's."""
        return {name: self.engine[name] - count for name, count in self.model.items() if self.engine[name] != count}

    @property
    def relative_time(self) -> float:
        """By how much of the model's time the engine's steps are longer."""
        return self.engine_cycles / self.model_cycles - 1


EngineRunner = Callable[[Part, Plan, Policy, Predictors, EngineTimes], tuple[Mapping[EngineCounter, int], list[int]]]
"""Runs an engine; returns its counters, and the cycle in which it took each step's first TOKEN."""


def compare(
    part: Part,
    policy: Policy,
    predictors: Predictors,
    uses: NDArray[np.int64],
    times: EngineTimes,
    *,
    share: int,
    run_engine: EngineRunner | None = None,
) -> Agreement:
    """Run both.

    Args:
        part: whose steps are single tokens, all timed, with what the policy knows ahead.
        policy: recency or learned values, learned prefetch or none, and what is missing is fetched.
        predictors: those that ``part`` was made with.
        uses: i64 ``[layers, experts]``: the most used are there at the start.
        times: of the engine and of those about it.
        share: experts that each layer may keep.
        run_engine: which engine; the twin where None.

    Raises:
        ForestageError: for another policy, or steps of several tokens.
    """
    _check(part, policy, predictors)
    trace = part.trace
    plan = plan_of(
        policy,
        layers=trace.layers,
        experts=trace.experts,
        most_needed=part.most_needed,
        places=share * trace.layers,
        scope="layer",
        hottest=hottest(uses, share, "layer"),
        values=part.values,
        predictions=part.predictions,
    )
    model, model_steps = _run_model(part, plan, times)
    counters, starts = (run_engine or run_twin)(part, plan, policy, predictors, times)
    return Agreement(
        model=model,
        engine={name: sum(int(counters[counter]) for counter in of) for name, of in _SAME.items()},
        model_cycles=float(model_steps[:-1].mean()) / PS,
        engine_cycles=float(np.diff(starts).mean()),
        steps=len(part.steps),
    )


def _check(part: Part, policy: Policy, predictors: Predictors) -> None:
    if part.largest_step > 1 or not part.steps.timed.all() or len(part.steps) < 2:
        raise ForestageError("engine and system model: give steps of one token each, all timed, two or more")
    if policy.missing is not Missing.FETCH or policy.eviction not in (Eviction.LRU, Eviction.LEARNED):
        raise ForestageError(f"policy {policy.name}: the engine fetches what is missing, by recency or learned values")
    if policy.prefetch not in (Prefetch.NONE, Prefetch.LEARNED) or len(predictors.distances) != 1:
        raise ForestageError(f"policy {policy.name}: the engine is asked for learned prefetches at one distance")


def _run_model(part: Part, plan: Plan, times: EngineTimes) -> tuple[dict[str, int], NDArray[np.int64]]:
    steps, layers = len(part.steps), part.trace.layers
    shape = (steps, layers)
    before = np.full(shape, PS * (times.layers.before_gate_cycles + LOOK_UP_CYCLES + times.layers.layer_cycles))
    before[:, 0] += PS * times.layers.token_cycles
    expert = np.array([0, PS * times.layers.expert_cycles], np.int64)
    none = np.zeros(2, np.int64)
    link, networks = times.link, times.networks
    latency = link.latency + _load_cycles(plan)
    passed = [0, *(latency + chunk * link.chunk_cycles for chunk in range(1, link.chunks + 1))]
    work = Workload(
        layers=layers,
        model_experts=part.trace.experts,
        experts=part.needed.experts,
        tokens_of=part.needed.tokens_of,
        offsets=part.needed.offsets,
        timed=part.steps.timed,
        tokens=np.diff(part.steps.offsets),
        before_gate_ps=before,
        before_gate_compute_ps=np.zeros(shape, np.int64),
        shared_ps=np.zeros(steps, np.int64),
        shared_compute_ps=np.zeros(steps, np.int64),
        prefetch_engine_ps=np.full(shape, PS * networks.prefetch),
        values_engine_ps=np.full(shape, PS * networks.values),
        begin_engine_ps=np.full(steps, PS * networks.prefetch),
    )
    takes = Durations(
        expert_bytes=64 * link.chunks,
        chunk_bytes=64,
        chunk_ps=PS * np.array(passed, np.int64),
        expert_ps=expert,
        expert_compute_ps=none,
        host_work=0,
        host_free_rate=none,
        host_shared_rate=none,
        host_groups=1,
        host_before_ps=0,
        host_after_ps=0,
        host_token_ps=0,
    )
    run = simulation.simulate(work, takes, plan)
    counts = run.counts
    return {name: getattr(counts, name) for name in _SAME}, run.step_ps


def _load_cycles(plan: Plan) -> int:
    """Cycles of the stager's two commands about a transfer that takes a resident's place: GRANT and ARRIVE."""
    stager = Stager(plan.limits, plan.settings)
    held = plan.settings.shares[0]
    if not 0 < held < plan.limits.experts:
        return 0
    stager.preload(0, list(range(held)))
    stager.demand(0, [held])
    return stager.grant().cycles + stager.arrive(0).cycles


@dataclass(frozen=True, kw_only=True)
class EngineSetup:
    """An engine that does what a plan says.

    Attributes:
        limits, settings: of it.
        next_layer, next_use: networks that it asks.
        events: that it is told.
    """

    limits: PrefetchEngineLimits
    settings: PrefetchEngineSettings
    next_layer: RowNetwork | None
    next_use: RowNetwork | None
    events: EventArrays


def engine_setup(
    part: Part,
    plan: Plan,
    policy: Policy,
    predictors: Predictors,
    link: LinkSettings,
    net: HeadsLimits | None = None,
) -> EngineSetup:
    """Generated alike for every policy of a trace, and set as ``plan`` says.

    Args:
        part, plan, policy, predictors: as of ``compare``.
        link: of transfers.
        net: that the engine is generated with; the default one's, or larger for a larger model, where None.
    """
    trace = part.trace
    predicts, values = policy.prefetch is Prefetch.LEARNED, policy.eviction is Eviction.LEARNED
    next_layer = None
    if predicts and predictors.next_layer is not None:
        next_layer = predictors.next_layer.at(predictors.distances[0]).network
    next_use = predictors.next_use.network if values and predictors.next_use is not None else None
    default = PrefetchEngineLimits()
    limits = PrefetchEngineLimits(
        slots_max=1,
        layers_max=trace.layers,
        experts_max=1 << (trace.experts - 1).bit_length(),
        top_k_max=trace.top_k,
        candidates_max=1,
        places=plan.limits.places,
        spare=plan.limits.spare,
        queue_depth=plan.limits.queue_depth,
        value_bits=max(default.value_bits, plan.limits.value_bits),
        scale_bits=plan.limits.scale_bits,
        deadline_bits=48,
        net=net or nets_for(layers=trace.layers, experts=trace.experts),
    )
    rows, identity_rows = None, 0
    if next_layer is not None and next_layer.config.identities and trace.token_hash is not None:
        rows = next_layer.identity_index(np.asarray(trace.token_hash).astype(np.int64))
        identity_rows = len(next_layer.tables.identity_rows)
    settings = PrefetchEngineSettings(
        mode=Mode.LEARNED if predicts or values else Mode.OFF,
        layers=trace.layers,
        experts=trace.experts,
        top_k=trace.top_k,
        next_layer=predicts,
        next_use=values,
        distance=predictors.distances[0],
        prefetched=min(predictors.prefetched, trace.experts),
        identity_rows=identity_rows,
        stager=plan.settings,
        link=link,
    )
    return EngineSetup(
        limits=limits,
        settings=settings,
        next_layer=next_layer,
        next_use=next_use,
        events=trace_events(trace, rows=rows),
    )


def run_twin(
    part: Part, plan: Plan, policy: Policy, predictors: Predictors, times: EngineTimes
) -> tuple[Mapping[EngineCounter, int], list[int]]:
    """The engine's twin, in its own time; see ``EngineRunner``."""
    size = 64 * times.link.chunks
    link = LinkSettings(expert_bytes=size, expert_stride=size, staging_stride=size, chunk_bytes=64)
    of = engine_setup(part, plan, policy, predictors, link)
    predictor = None
    if of.settings.mode is Mode.LEARNED:
        predictor = LearnedPredictor(Heads(of.settings, 1, of.next_layer, of.next_use), times.networks)
    twin = EngineTwin(
        of.limits,
        of.settings,
        of.events,
        Environment(of.events, times.layers),
        predictor=predictor,
        link_timing=times.link,
    )
    twin.preload(plan.resident, part.trace.experts, fixed=False, asks=True)
    for _ in twin.run():
        pass
    return {counter: int(twin.counters[counter]) for counter in EngineCounter}, twin.step_starts


_SAME = {
    "hits": (EngineCounter.HITS,),
    "fetched": (EngineCounter.WAITS, EngineCounter.PROMOTED),
    "demands": (EngineCounter.LOADS_DEMANDED,),
    "late": (EngineCounter.LOADS_LATE,),
    "ahead": (EngineCounter.LOADS_AHEAD,),
    "useful": (EngineCounter.USEFUL,),
    "wasted": (EngineCounter.USELESS,),
    "dropped": (EngineCounter.CANCELLED,),
    "refused": (EngineCounter.REFUSED,),
    "evicted": (EngineCounter.EVICTED,),
}
"""The engine's counters that each of the model's counts is."""


def machine_times(part: Part, config: SimulationConfig) -> MachineTimes:
    """Of the catalogue's machine, in cycles of 1,000 ps: the median layer's.

    Raises:
        ForestageError: where configuration, trace and catalogue do not fit each other.
    """
    times = catalogue_times(part, config, host=False)
    timed = times.workload.timed
    return MachineTimes(
        transfer=float(times.durations.chunk_ps[-1]) / PS,
        before_gate=float(np.median(times.workload.before_gate_ps[timed] + times.workload.shared_ps[timed, None])) / PS,
        expert=float(times.durations.expert_ps[1]) / PS,
    )


def policies() -> Iterator[Policy]:
    """Those that are compared, as ``POLICIES``."""
    yield from POLICIES.values()


POLICIES = {
    "recency": Policy(eviction=Eviction.LRU),
    "values": Policy(eviction=Eviction.LEARNED),
    "prefetch": Policy(eviction=Eviction.LEARNED, prefetch=Prefetch.LEARNED, chance_scale=4),
    "background": Policy(
        eviction=Eviction.LEARNED, prefetch=Prefetch.LEARNED, chance_scale=4, background=True, price=2 * 65535
    ),
}
"""By name: the least recently used gives way; learned values; learned prefetch too; background loads too."""
