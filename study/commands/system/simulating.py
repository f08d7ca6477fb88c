"""``forestage system simulate``: one policy on a machine: the time per token, its parts, and what moved."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog.config import StrictModel
from catalog.errors import ForestageError
from perfmodel.config import SimulationConfig
from perfmodel.costs_of import check_fits
from perfmodel.outcome import Outcome
from perfmodel.simulator import Simulator
from predictor.next_layer.predictor import NextLayerPredictor
from predictor.next_use.predictor import NextUsePredictor
from predictor.policies.material import has_decode
from predictor.policies.parts import Predictors
from predictor.policies.plan import Missing
from predictor.policies.policy import Eviction, Policy, Prefetch
from study.commands.command import refuse_unused
from study.commands.opening import open_trace, require_test_sequences
from study.commands.options import JsonOption, ModelOption, ScopeOption, TraceOption
from study.commands.system.options import (
    CAPACITY_FRACTION,
    DEVICE_LINK,
    HOST_MEMORY,
    LINK,
    MACHINE,
    PIM_DRAM,
    PIM_STACKS,
    WITHIN_A_DRAFT,
    BatchOption,
    DraftedOption,
    HostLatencyOption,
    HostTflopsOption,
    NextUseOption,
    PimFormatOption,
    PimLatencyOption,
    PimOption,
    PimPartialSumsOption,
    PimPseudoChannelsOption,
    PimRefreshOption,
    PimStackGbOption,
    PimTokensPerReadOption,
    PredictorOption,
    SizesOfOption,
    TestTokensOption,
    configuration,
    host_computes,
    in_memory_settings,
    kind_of_steps,
)
from study.numbers import count, percent, seconds, size, tokens_of
from study.output import emit, progress_bar
from study.system.parts import one_policys_part
from study.system.words import memory_in_words
from traces import RoutingTrace


class EngineChoice(StrictModel):
    """Which engine simulates: the fast one, or the one that it is tested against."""

    engine: Literal["compiled", "reference"]


class SystemSimulation(StrictModel):
    """What the command prints.

    Attributes:
        trace, model: the file's name, and the model whose routing it holds.
        sizes_of: the model whose weight sizes are used.
        synthetic: whether a generator made the trace.
        config: machine, link, host and share of experts.
        policy: what was simulated.
        sequences, tokens: of the test part that is simulated.
        batch: sequences served at once.
        drafted: tokens of one sequence that are verified together; 1: plain decoding.
        prompts_decoded: whether prompt tokens are simulated as if they were decoded, as the trace has no others.
        next_use, next_layer: what the learned predictors were trained on; ``None``: not used.
        distances: layers ahead that are prefetched; empty without prefetch.
        engine: which simulated.
        places: experts held, in all; at the start those most used in the training sequences.
        expert_bytes: of one.
        link_gb_per_s: of the host link.
        outcome: time, parts and averages.
        counts: sums over the run, in experts (see `predictor.policies.counts.Counts`).
        all_resident_s: mean step with every expert on the device.
        link_roofline_s: no policy that fetches what is missing is faster (see `perfmodel.simulator.Simulator`);
            ``None`` where it is not known, or the host may compute.
    """

    trace: str
    model: str
    sizes_of: str
    synthetic: bool
    config: SimulationConfig
    policy: Policy
    sequences: int
    tokens: int
    batch: int
    drafted: int
    prompts_decoded: bool
    next_use: str | None
    next_layer: str | None
    distances: tuple[int, ...]
    engine: str
    places: int
    expert_bytes: int
    link_gb_per_s: float
    outcome: Outcome
    counts: dict[str, int]
    all_resident_s: float
    link_roofline_s: float | None


def simulate_command(
    trace: TraceOption,
    eviction: Annotated[
        str,
        typer.Option(
            "--eviction",
            help="What the device keeps: static (the most used in training), lru, decayed-frequency, activation (what "
            "the sequence has used most so far), learned (with --next-use); knowing the future: oracle, "
            "oracle-uses, belady",
        ),
    ] = "lru",
    prefetch: Annotated[
        str,
        typer.Option(
            "--prefetch",
            help="What is fetched for coming layers: none, st-moe, activation, learned (with --predictor); knowing the "
            "future: perfect",
        ),
    ] = "none",
    missing: Annotated[
        str,
        typer.Option(
            "--missing",
            help="A missing expert: fetch; host (its processor computes it); sooner (what ends first); in-memory (the "
            "memory computes it, see --pim); sooner-in-memory; fetch-from-memory (it computes nothing)",
        ),
    ] = "fetch",
    background: Annotated[
        bool, typer.Option("--background", help="Move what is worth more than what gives way while nothing waits")
    ] = False,
    price: Annotated[
        int,
        typer.Option(
            "--price",
            help="What a background load or prefetch must be worth beyond what gives way. Units: decayed-frequency: "
            "counters of at most 65,535; activation: 65,535 for an expert that every token "
            "chose; learned, oracle: 65,535 for each horizon (2, 4, 8, 16 tokens, unless trained "
            "for others) within which a use is certain; oracle-uses: 65,535 for each of the next 16 steps that need "
            "the expert; belady: (step, layer) pairs; a prediction: 65,535 for certainty, times --chance-scale",
        ),
    ] = 0,
    chance_scale: Annotated[
        int, typer.Option("--chance-scale", help="Worth of a prediction's chance, against the values of --eviction")
    ] = 1,
    next_use: NextUseOption = None,
    predictor: PredictorOption = None,
    distance: Annotated[
        list[int] | None,
        typer.Option("--distance", min=1, help="Layers ahead that are prefetched; several times; default: 1"),
    ] = None,
    issue_limit: Annotated[
        int | None,
        typer.Option(
            "--issue-limit",
            help="Most experts to prefetch for each token and layer; default: st-moe 6, learned and activation 8",
        ),
    ] = None,
    machine: Annotated[str, typer.Option("--machine", help=MACHINE)] = "A100-80GB",
    capacity_fraction: Annotated[float, typer.Option("--capacity-fraction", help=CAPACITY_FRACTION)] = 0.5,
    link_gb_per_s: Annotated[float | None, typer.Option("--link-gb-per-s", help=LINK)] = None,
    host_gb_per_s: Annotated[float | None, typer.Option("--host-gb-per-s", help=HOST_MEMORY)] = None,
    host_tflops: HostTflopsOption = None,
    host_latency_us: HostLatencyOption = None,
    pim: PimOption = None,
    pim_dram: Annotated[str | None, typer.Option("--pim-dram", help=PIM_DRAM)] = None,
    pim_stacks: Annotated[int | None, typer.Option("--pim-stacks", help=PIM_STACKS)] = None,
    device_link_gb_per_s: Annotated[float | None, typer.Option("--device-link-gb-per-s", help=DEVICE_LINK)] = None,
    pim_stack_gb: PimStackGbOption = None,
    pim_pseudo_channels: PimPseudoChannelsOption = None,
    pim_format: PimFormatOption = None,
    pim_tokens_per_read: PimTokensPerReadOption = None,
    pim_refresh: PimRefreshOption = None,
    pim_latency_us: PimLatencyOption = None,
    pim_partial_sums: PimPartialSumsOption = None,
    engine_cycles: Annotated[
        int | None, typer.Option("--engine-cycles", help="Cycles of the prefetch engine for each gate; default: 0")
    ] = None,
    sizes_of: SizesOfOption = None,
    scope: ScopeOption = "global",
    batch: BatchOption = 1,
    drafted: DraftedOption = 1,
    tokens: TestTokensOption = None,
    engine: Annotated[
        str, typer.Option("--engine", help="compiled, or reference (the same times, hundreds of times as slow)")
    ] = "compiled",
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate one policy: time per output token, its parts, what moved, and the bounds beside it."""
    policy = Policy.parse_settings(
        {
            "eviction": eviction, "prefetch": prefetch, "missing": missing, "background": background,
            "price": price, "chance_scale": chance_scale,
        },
        origin=f"--eviction {eviction}",
    )  # fmt: skip
    chosen_engine = EngineChoice.parse_settings({"engine": engine}).engine
    _refuse_what_has_no_effect(policy)
    distances = tuple(sorted(set(distance or [1])))
    _check_prefetch(policy, distances, drafted)
    memory = in_memory_settings(
        pim,
        {
            "dram": pim_dram, "stacks": pim_stacks, "device_link_gb_per_s": device_link_gb_per_s,
            "stack_gb": pim_stack_gb, "pseudo_channels_per_expert": pim_pseudo_channels, "weight_format": pim_format,
            "tokens_per_read": pim_tokens_per_read, "refresh": pim_refresh, "latency_us": pim_latency_us,
            "partial_sums": pim_partial_sums,
        },
    )  # fmt: skip
    config = configuration(
        {
            "machine": machine, "capacity_fraction": capacity_fraction, "link_gb_per_s": link_gb_per_s,
            "host_gb_per_s": host_gb_per_s, "host_tflops": host_tflops, "host_latency_us": host_latency_us,
            "engine_cycles": engine_cycles, "sizes_of": sizes_of, "scope": scope, "in_memory": memory,
        }
    )  # fmt: skip
    by_host = policy.missing.may_compute and not policy.missing.in_memory
    if policy.missing.in_memory and memory is None:
        raise ForestageError(f"--missing {missing}: no memory computes; give --pim device or host")
    if by_host and not host_computes(config):
        raise ForestageError(
            f"--missing {missing}: the host of {config.machine} is not in the catalogue; give --host-gb-per-s and "
            "--host-tflops"
        )
    asked = _predictors(policy, next_use, predictor, distances, issue_limit)
    recorded = open_trace(trace, model)
    require_test_sequences(recorded, trace)
    check_fits(recorded, config)
    _check_shape(recorded, policy, distances, issue_limit)
    with progress_bar("reading ahead") as progress:
        part, uses = one_policys_part(
            recorded, policy, asked, batch=batch, drafted=drafted, tokens=tokens, progress=progress
        )
    simulator = Simulator.of(part, config, uses, host=by_host)
    with progress_bar(f"simulating {policy.name}") as progress:
        run = (
            simulator.run(policy) if chosen_engine == "compiled" else simulator.run_reference(policy, progress=progress)
        )
    result = SystemSimulation(
        trace=trace.name,
        model=recorded.metadata.model,
        sizes_of=simulator.model,
        synthetic=recorded.metadata.synthetic,
        config=config,
        policy=policy,
        sequences=part.trace.sequences,
        tokens=part.timed_tokens,
        batch=batch,
        drafted=drafted,
        prompts_decoded=not has_decode(recorded),
        next_use=None if asked.next_use is None else asked.next_use.provenance.trained_on,
        next_layer=None if asked.next_layer is None else asked.next_layer.provenance.trained_on,
        distances=() if policy.prefetch is Prefetch.NONE else distances,
        engine=chosen_engine,
        places=simulator.places,
        expert_bytes=simulator.durations.expert_bytes,
        link_gb_per_s=simulator.link_gb_per_s,
        outcome=simulator.outcome(policy, run),
        counts=vars(run.counts),
        all_resident_s=simulator.all_resident_s,
        link_roofline_s=simulator.link_roofline_s if policy.missing is Missing.FETCH else None,
    )
    emit(result, as_json=as_json, render=lambda console: _render(console, result))


def _refuse_what_has_no_effect(policy: Policy) -> None:
    """Options that the policy does not look at, and a host beside which nothing would ever be loaded.

    Raises:
        ForestageError: naming the first.
    """
    prefetches = policy.prefetch is not Prefetch.NONE
    if policy.eviction is not Eviction.LEARNED:
        refuse_unused(f"--eviction {policy.eviction.value} asks no predictor; leave it out", next_use="--next-use")
    if policy.prefetch is not Prefetch.LEARNED:
        refuse_unused(f"--prefetch {policy.prefetch.value} asks no trained predictor; leave it out",
                      predictor="--predictor")  # fmt: skip
    if not prefetches:
        refuse_unused(
            "nothing is prefetched; leave it out, or choose --prefetch",
            distance="--distance",
            chance_scale="--chance-scale",
        )
    if policy.prefetch not in (Prefetch.ST_MOE, Prefetch.ACTIVATION, Prefetch.LEARNED):
        refuse_unused(
            f"--prefetch {policy.prefetch.value} issues nothing that could be limited; leave it out",
            issue_limit="--issue-limit",
        )
    if not prefetches and not policy.background:
        refuse_unused(
            "nothing moves but what a gate waits for; leave it out, or give --background or --prefetch",
            price="--price",
        )
    if not prefetches and policy.eviction in (Eviction.STATIC, Eviction.LRU):
        refuse_unused("the prefetch engine is asked nothing; leave it out", engine_cycles="--engine-cycles")
    if not policy.missing.may_compute or policy.missing.in_memory:
        refuse_unused(
            "the host's processor computes nothing; leave it out, or choose --missing host or sooner",
            host_tflops="--host-tflops",
            host_latency_us="--host-latency-us",
        )
    if not policy.missing.in_memory:
        refuse_unused("experts lie in the host's memory; leave it out, or choose --missing in-memory", pim="--pim")
    loads = policy.missing.may_fetch or prefetches or policy.background
    if not loads and policy.eviction is not Eviction.STATIC:
        raise ForestageError(
            f"--eviction {policy.eviction.value}: has no effect: with --missing {policy.missing.value} nothing is "
            "ever loaded; give --background or --prefetch, or choose --eviction static"
        )


def _check_prefetch(policy: Policy, distances: tuple[int, ...], drafted: int) -> None:
    if policy.prefetch is Prefetch.ST_MOE and len(distances) > 1:
        raise ForestageError("--distance: --prefetch st-moe predicts at one distance; give one")
    if drafted > 1 and policy.prefetch in (Prefetch.ST_MOE, Prefetch.LEARNED):
        raise ForestageError(f"--prefetch {policy.prefetch.value}: {WITHIN_A_DRAFT}; leave one of the two out")


def _predictors(
    policy: Policy, next_use: Path | None, predictor: Path | None, distances: tuple[int, ...], issue_limit: int | None
) -> Predictors:
    """What the policy asks."""
    for needed, path, option, command in (
        (policy.eviction is Eviction.LEARNED, next_use, "--next-use", "train-next-use"),
        (policy.prefetch is Prefetch.LEARNED, predictor, "--predictor", "train"),
    ):
        if needed and path is None:
            raise ForestageError(
                f"{option}: the policy needs a trained predictor; give a file that `forestage predictor {command}` "
                "writes"
            )
    limits: dict[str, Any] = {} if issue_limit is None else {"prefetched": issue_limit, "issue_limit": issue_limit}
    asked = Predictors(
        next_use=None if next_use is None else NextUsePredictor.load(next_use),
        next_layer=None if predictor is None else NextLayerPredictor.load(predictor),
        distances=distances,
        activation_distances=distances,
        **limits,
    )
    if asked.next_layer is not None:
        for distance in distances:
            asked.next_layer.at(distance)
    return asked


def _check_shape(trace: RoutingTrace, policy: Policy, distances: tuple[int, ...], issue_limit: int | None) -> None:
    """Distances that the trace's layers have, and a limit that its experts allow."""
    if policy.prefetch is not Prefetch.NONE:
        if trace.layers < 2:
            raise ForestageError(
                f"--prefetch {policy.prefetch.value}: the trace has one layer, and no coming one to prefetch for; "
                "leave it out"
            )
        for distance in distances:
            if distance >= trace.layers:
                raise ForestageError(
                    f"--distance {distance}: choose one in 1…{trace.layers - 1}: the trace has {trace.layers} layers"
                )
    if issue_limit is not None and not 1 <= issue_limit <= trace.experts:
        raise ForestageError(f"--issue-limit {issue_limit}: choose 1 to {trace.experts}, the experts of a layer")


def _render(console: Console, result: SystemSimulation) -> None:
    """Print the time and its parts, then what moved, then the bounds."""
    outcome, config = result.outcome, result.config
    host = "" if config.host_gb_per_s is None else f", host memory {config.host_gb_per_s:g} GB/s"
    kind = kind_of_steps(
        result.batch, result.drafted, prompts_decoded=result.prompts_decoded, synthetic=result.synthetic
    )
    if config.in_memory is not None:
        host += f", {memory_in_words(config.in_memory)}"
    missing = {
        Missing.FETCH: "fetched",
        Missing.HOST: "computed by the host",
        Missing.SOONER: "fetched or computed by the host, what ends sooner",
        Missing.IN_MEMORY: "computed by the memory",
        Missing.FROM_MEMORY: "fetched from that memory",
        Missing.SOONER_IN_MEMORY: "fetched or computed by the memory, what ends sooner",
    }
    for line in (
        f"[bold]{result.policy.name}[/bold], missing: {missing[result.policy.missing]}; on {escape(result.trace)}: "
        f"{tokens_of(result.tokens, result.sequences)} of the test part, {kind}",
        f"{config.machine}, sizes of {escape(result.sizes_of)}, host link {result.link_gb_per_s:g} GB/s{host}: "
        f"{count(result.places)} experts held ({percent(config.capacity_fraction, 0)})",
    ):
        console.print(line, highlight=False, soft_wrap=True)
    time = outcome.tpot
    table = Table(box=None, show_header=False)
    table.add_row(
        f"time per {'step' if result.drafted > 1 else 'token'}, mean / p50 / p95 / p99",
        " / ".join(seconds(value) for value in (time.mean_s, time.p50_s, time.p95_s, time.p99_s)),
    )
    per = "" if outcome.steps == outcome.tokens else " (of the mean step)"
    for part, value_s in outcome.parts_s.items():
        named = "memory wait" if part == "host_wait" and result.policy.missing.in_memory else part.replace("_", " ")
        table.add_row(f"  {named}{per}", seconds(value_s))
    if outcome.steps != outcome.tokens:
        table.add_row("tokens a second", f"{outcome.tokens_per_s:.1f}")
    table.add_row("hit rate", percent(outcome.hit_rate))
    table.add_row(
        "experts a step: fetched / computed / moved",
        f"{outcome.fetched:.2f} / {outcome.computed:.2f} / {outcome.moved:.2f}",
    )
    table.add_row("bytes a step over the link", size(outcome.moved_bytes))
    if outcome.useful_share is not None:
        table.add_row("of these moved ahead, used in time", percent(outcome.useful_share))
    processor = "memory" if result.policy.missing.in_memory else "host's processor"
    table.add_row(
        f"busy: link / {processor}",
        f"{percent(outcome.link_busy)} / {percent(outcome.host_busy)}",
    )
    console.print(table, highlight=False)
    roofline = (
        "" if result.link_roofline_s is None else f"; fetching cannot take less than {seconds(result.link_roofline_s)}"
    )
    console.print(
        f"every expert on the device: {seconds(result.all_resident_s)}{roofline}",
        style="dim",
        highlight=False,
        soft_wrap=True,
    )
