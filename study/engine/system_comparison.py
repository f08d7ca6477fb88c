"""The prefetch engine beside the system model on a trace, policy by policy: what ``forestage rtl compare-system`` does.

At a *machine's* times an expert is as long as it is there, and a cycle is a nanosecond. At a *replay's* it is so short
that a layer takes ``LEAST_LAYER_CYCLES``, in the machine's proportion of transfer and layer; that is short enough for
the hardware itself to run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from catalog.config import StrictModel
from catalog.errors import ForestageError
from catalog.progress import Progress
from cocotb_tests.replay import first_tokens
from perfmodel.config import SimulationConfig
from predictor.engine.environment import LayerTimes
from predictor.engine.limits import BEAT_BYTES, PrefetchEngineLimits
from predictor.engine.scale import MachineTimes, replay_times
from predictor.engine.settings import LinkSettings, PrefetchEngineSettings
from predictor.engine.timing import DmaLink, SteadyLink, SteadyPredictor
from predictor.policies.parts import Part, Predictors, part_of
from predictor.policies.policy import Eviction, Prefetch
from staging.stager.limits import StagerSettings
from staging.steps import decode_steps
from staging.transfer.timing import MemoryTiming
from study.engine.latency import net_latency
from study.engine.system_model import POLICIES, EngineTimes, compare, machine_times
from study.system.parts import training_of
from traces import RoutingTrace, split

if TYPE_CHECKING:
    from study.engine.system_rtl import RtlRunner

Scale = Literal["machine", "replay"]
LATENCY_CYCLES = {"machine": 500, "replay": 20}
"""Of a transfer, from its command on (assumption: some 0.5 µs; the replay's memories answer after 20 cycles)."""
LEAST_LAYER_CYCLES = 600


class SystemRun(StrictModel):
    """One policy in both.

    Attributes:
        policy: its name in ``POLICIES``.
        engine, model: experts, by name of ``predictor.policies.counts.Counts``; ``differences``, the engine's less the
            model's, of those that are not equal.
        engine_cycles, model_cycles: of a token, mean over all but the last.
        relative_time: by how much of the model's time the engine's tokens are longer.
        compared_with_twin: values of the hardware that were compared with its twin's, all equal; 0: the engine is the
            twin.
    """

    policy: str
    engine: dict[str, int]
    model: dict[str, int]
    differences: dict[str, int]
    engine_cycles: float
    model_cycles: float
    relative_time: float
    compared_with_twin: int


class SystemComparison(StrictModel):
    """The document of ``forestage rtl compare-system``.

    Attributes:
        trace, model: the file's name, whose routing it is; ``synthetic``: whether a generator made it.
        tokens: of the test part, each a step.
        engine: which engine ran: its ``twin``, whose link and nets take constant times here; or the ``RTL``.
        times: whose; see the module's description.
        config: machine, link and experts held.
        transfer_cycles, before_gate_cycles, expert_cycles: of an expert over the link with its latency; of a layer
            before its gate; of an expert's computing.
        prefetch_cycles, values_cycles: of the nets, from a gate.
        runs: of each policy.
        left_out: policies that were not asked for by name, as a predictor is missing.
    """

    trace: str
    model: str
    synthetic: bool
    tokens: int
    engine: Literal["twin", "RTL"]
    times: Scale
    config: SimulationConfig
    transfer_cycles: int
    before_gate_cycles: int
    expert_cycles: int
    prefetch_cycles: int
    values_cycles: int
    runs: tuple[SystemRun, ...]
    left_out: tuple[str, ...]

    @property
    def is_equal(self) -> bool:
        """Whether every count of every policy is."""
        return not any(run.differences for run in self.runs)


def chosen_policies(names: Sequence[str], predictors: Predictors) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(policies to compare, policies left out); all that the predictors allow where none is named.

    Raises:
        ForestageError: a name is unknown, or its policy asks a predictor that is not given.
    """
    lacking = {name: lack for name in POLICIES if (lack := _lacks(name, predictors))}
    for name in names:
        if name not in POLICIES:
            raise ForestageError(f"--policy {name}: give {', '.join(POLICIES)}")
        if name in lacking:
            raise ForestageError(f"--policy {name}: asks a trained predictor; give {lacking[name]}")
    if names:
        return tuple(name for name in POLICIES if name in names), ()
    return tuple(name for name in POLICIES if name not in lacking), tuple(lacking)


def _lacks(name: str, predictors: Predictors) -> str:
    policy = POLICIES[name]
    options = []
    if policy.prefetch is Prefetch.LEARNED and predictors.next_layer is None:
        options.append("--predictor")
    if policy.eviction is Eviction.LEARNED and predictors.next_use is None:
        options.append("--next-use")
    return " and ".join(options)


@dataclass(frozen=True, kw_only=True)
class ScaledTimes:
    """In cycles.

    Attributes:
        layers, link: of whoever runs the layers, of transfers.
        settings: of the hardware's link that takes these times; ``None``: it would take too long to run.
    """

    layers: LayerTimes
    link: SteadyLink
    settings: LinkSettings | None


def scaled_times(machine: MachineTimes, scale: Scale, *, top_k: int) -> ScaledTimes:
    """The machine's times, or a replay's in their proportion.

    Raises:
        ForestageError: a time is not positive.
    """
    latency = LATENCY_CYCLES[scale]
    if scale == "machine":
        layers = LayerTimes(before_gate_cycles=max(1, round(machine.before_gate)), expert_cycles=round(machine.expert))
        link = SteadyLink(chunks=1, chunk_cycles=max(1, round(machine.transfer)), latency=latency)
        return ScaledTimes(layers=layers, link=link, settings=None)
    # So long that the whole bandwidth gives the machine's proportion: then no burst waits for the link's share.
    layer = machine.before_gate + top_k * machine.expert
    beats = max(1, -int(-LEAST_LAYER_CYCLES * machine.transfer // layer))
    size = beats * BEAT_BYTES
    times = replay_times(machine, top_k=top_k, replay_expert_bytes=size, least_layer_cycles=LEAST_LAYER_CYCLES)
    settings = LinkSettings(
        expert_bytes=size,
        expert_stride=size,
        staging_stride=size,
        chunk_bytes=1 << (size - 1).bit_length(),
        share=times.share,
    )
    return ScaledTimes(layers=times.layers, link=_steady(settings, beats, latency), settings=settings)


def _steady(settings: LinkSettings, beats: int, latency: int) -> SteadyLink:
    """A link that takes as long for a transfer as the hardware's whose memories answer after ``latency``."""
    limits = PrefetchEngineLimits()
    of = PrefetchEngineSettings(layers=2, experts=2, top_k=1, stager=StagerSettings(shares=(0,)), link=settings)
    (there,) = DmaLink(limits, of, MemoryTiming(latency=latency)).serve(0, 0, 0, 0).there
    return SteadyLink(chunks=1, chunk_cycles=beats, latency=there - beats)


def compare_system(
    trace: RoutingTrace,
    tokens: int,
    predictors: Predictors,
    config: SimulationConfig,
    names: Sequence[str],
    *,
    times: Scale,
    rtl: bool = False,
    left_out: Sequence[str] = (),
    progress: Progress | None = None,
) -> SystemComparison:
    """Run the first ``tokens`` test tokens through engine and system model, once for each policy.

    Args:
        trace: split by ``traces.split``; the most used experts of its training sequences are resident at the start.
        tokens: each a step, prompts included.
        predictors: trained on the training sequences; at one distance.
        config: machine and link; ``capacity_experts``: those held in all, the same of each layer.
        names: policies, of ``POLICIES``.
        times: the machine's, or a replay's.
        rtl: run the hardware itself, and compare it with its twin besides.
        left_out: for the document.
        progress: called with (policies done, policies); with ``rtl``, (events done, events) of each.

    Raises:
        ForestageError: where these do not fit each other, or hardware and twin differ.
        SimulationError: the simulation failed.
    """
    part = first_part(trace, tokens, predictors)
    uses = training_of(trace, predictors, tables_ahead=None, activation=False).uses
    scaled = scaled_times(machine_times(part, config), times, top_k=trace.top_k)
    networks = _networks(predictors)
    of = EngineTimes(layers=scaled.layers, link=scaled.link, networks=networks)
    hardware: RtlRunner | None = None
    if rtl:
        if scaled.settings is None:
            raise ForestageError("--rtl: at a machine's times a run would take weeks; give --times replay")
        from study.engine import system_rtl  # Amaranth takes a second

        hardware = system_rtl.RtlRunner(scaled.settings, MemoryTiming(latency=LATENCY_CYCLES[times]), progress)
    share = (config.capacity_experts or 0) // trace.layers
    runs = []
    for done, name in enumerate(names):
        if progress is not None and not rtl:
            progress(done, len(names))
        found = compare(part, POLICIES[name], predictors, uses, of, share=share, run_engine=hardware)
        result = None if hardware is None else hardware.result
        runs.append(
            SystemRun(
                policy=name,
                engine=found.engine,
                model=found.model,
                differences=found.differences,
                engine_cycles=found.engine_cycles,
                model_cycles=found.model_cycles,
                relative_time=found.relative_time,
                compared_with_twin=0 if result is None else sum(result.compared.values()),
            )
        )
    return SystemComparison(
        trace=trace.origin,
        model=trace.metadata.model,
        synthetic=trace.metadata.synthetic,
        tokens=tokens,
        engine="RTL" if rtl else "twin",
        times=times,
        config=config,
        transfer_cycles=scaled.link.chunk_cycles + scaled.link.latency,
        before_gate_cycles=scaled.layers.before_gate_cycles,
        expert_cycles=scaled.layers.expert_cycles,
        prefetch_cycles=networks.prefetch,
        values_cycles=networks.values,
        runs=tuple(runs),
        left_out=tuple(left_out),
    )


def first_part(trace: RoutingTrace, tokens: int, predictors: Predictors) -> Part:
    """The first test tokens, each a step, with what the policies know ahead.

    Raises:
        ForestageError: there are not so many, or a predictor does not fit the trace.
    """
    stimulus = first_tokens(trace, split(trace)[1], tokens)
    return part_of(stimulus, decode_steps(stimulus, prompts_decoded=True), predictors, oracles=False)


def _networks(predictors: Predictors) -> SteadyPredictor:
    """Cycles of the hardware's nets, by their formula: the most of any gate."""
    (distance,) = predictors.distances
    networks = {}
    if predictors.next_layer is not None:
        networks["next-layer"] = predictors.next_layer.at(distance).network
    if predictors.next_use is not None:
        networks["next-use"] = predictors.next_use.network
    if not networks:
        return SteadyPredictor(prefetch=1, values=1, next=1)
    found = net_latency(networks, distance=distance, lanes=PrefetchEngineLimits().net.lanes)
    return SteadyPredictor(
        prefetch=max(1, found["prefetch"]), values=max(1, found["values"]), next=found["next"], targets=distance
    )
