"""``forestage system compare``: every policy on a machine, by share of experts held: what to build."""

from collections.abc import Sequence
from itertools import product
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog.config import StrictModel
from perfmodel.comparison import Comparison, compare
from perfmodel.config import SimulationConfig
from perfmodel.costs_of import check_fits
from predictor.measure.bootstrap import Bootstrap
from predictor.next_layer.predictor import NextLayerPredictor
from predictor.next_use.predictor import NextUsePredictor
from predictor.policies.material import has_decode
from predictor.policies.parts import Predictors
from predictor.policies.rows import BASELINES, IN_MEMORY
from study.commands.command import refuse_unused
from study.commands.opening import open_trace, require_test_sequences
from study.commands.options import JsonOption, ModelOption, ResamplesOption, ScopeOption, TraceOption
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
from study.numbers import count, percent, seconds, tokens_of
from study.output import emit, progress_bar
from study.system.parts import TUNING_TOKENS, check_kind, system_parts, training_of
from study.system.words import gain_text, gains_told, in_words, listed, memory_in_words, row_name


class SystemComparison(StrictModel):
    """What the command prints.

    Attributes:
        trace, model: the file's name, and the model whose routing it holds.
        synthetic: whether a generator made it.
        sequences, tokens: of the test part that is simulated.
        tuning_tokens: of the training part, on which each row's policy was chosen.
        distances: layers ahead that the learned and the perfect predictions look; ST-MoE's tables look one ahead.
        batch: sequences served at once.
        drafted: tokens of one sequence that are verified together; 1: plain decoding.
        prompts_decoded: whether prompt tokens are simulated as if they were decoded, as the trace has no others.
        next_use, next_layer: what the learned predictors were trained on; ``None``: left out.
        bootstrap: of the intervals.
        points: one for each machine, link, host memory and share of experts held.
    """

    trace: str
    model: str
    synthetic: bool
    sequences: int
    tokens: int
    tuning_tokens: int
    distances: tuple[int, ...]
    batch: int
    drafted: int
    prompts_decoded: bool
    next_use: str | None
    next_layer: str | None
    bootstrap: Bootstrap
    points: list[Comparison]


def compare_command(
    trace: TraceOption,
    next_use: NextUseOption = None,
    predictor: PredictorOption = None,
    distance: Annotated[
        list[int] | None,
        typer.Option(
            "--distance", min=1, help="Layers ahead that --predictor and the oracle look; several times; default: 1"
        ),
    ] = None,
    machine: Annotated[list[str] | None, typer.Option("--machine", help=f"{MACHINE}; several times")] = None,
    capacity_fraction: Annotated[
        list[float] | None, typer.Option("--capacity-fraction", help=f"{CAPACITY_FRACTION}; several times")
    ] = None,
    link_gb_per_s: Annotated[list[float] | None, typer.Option("--link-gb-per-s", help=f"{LINK}; several times")] = None,
    host_gb_per_s: Annotated[
        list[float] | None, typer.Option("--host-gb-per-s", help=f"{HOST_MEMORY}; several times")
    ] = None,
    host_tflops: HostTflopsOption = None,
    host_latency_us: HostLatencyOption = None,
    pim: PimOption = None,
    pim_dram: Annotated[list[str] | None, typer.Option("--pim-dram", help=f"{PIM_DRAM}; several times")] = None,
    pim_stacks: Annotated[list[int] | None, typer.Option("--pim-stacks", help=f"{PIM_STACKS}; several times")] = None,
    device_link_gb_per_s: Annotated[
        list[float] | None, typer.Option("--device-link-gb-per-s", help=f"{DEVICE_LINK}; several times")
    ] = None,
    pim_stack_gb: PimStackGbOption = None,
    pim_pseudo_channels: PimPseudoChannelsOption = None,
    pim_format: PimFormatOption = None,
    pim_tokens_per_read: PimTokensPerReadOption = None,
    pim_refresh: PimRefreshOption = None,
    pim_latency_us: PimLatencyOption = None,
    pim_partial_sums: PimPartialSumsOption = None,
    sizes_of: SizesOfOption = None,
    scope: ScopeOption = "global",
    batch: BatchOption = 1,
    drafted: DraftedOption = 1,
    tokens: TestTokensOption = None,
    tuning_tokens: Annotated[
        int,
        typer.Option(
            "--tuning-tokens",
            min=1,
            help="Choose each row's free settings (the price of a transfer, ...) on the last training sequences, about "
            "so many tokens, however few --tokens are simulated; more where a --batch needs them",
        ),
    ] = TUNING_TOKENS,
    resamples: ResamplesOption = 1000,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare policies by time per token, and say which is best at each machine, link and share of experts held."""
    if drafted > 1:
        refuse_unused(f"{WITHIN_A_DRAFT}; leave it out", predictor="--predictor")
    drams: Sequence[str | None] = pim_dram or [None]
    stacks_of: Sequence[int | None] = pim_stacks or [None]
    device_links: Sequence[float | None] = device_link_gb_per_s or [None]
    memories = [
        in_memory_settings(
            pim,
            {
                "dram": dram,
                "stacks": stacks,
                "device_link_gb_per_s": device_link,
                "stack_gb": pim_stack_gb,
                "pseudo_channels_per_expert": pim_pseudo_channels,
                "weight_format": pim_format,
                "tokens_per_read": pim_tokens_per_read,
                "refresh": pim_refresh,
                "latency_us": pim_latency_us,
                "partial_sums": pim_partial_sums,
            },
        )
        for dram, stacks, device_link in product(drams, stacks_of, device_links)
    ]
    configs = _configs(
        machine or ["A100-80GB"], capacity_fraction or [0.25, 0.5], link_gb_per_s or [None], host_gb_per_s or [None],
        memories,
        {"sizes_of": sizes_of, "scope": scope, "host_tflops": host_tflops, "host_latency_us": host_latency_us},
    )  # fmt: skip
    asked = Predictors(
        next_use=None if next_use is None else NextUsePredictor.load(next_use),
        next_layer=None if predictor is None else NextLayerPredictor.load(predictor),
        distances=tuple(sorted(set(distance or [1]))),
    )
    recorded = open_trace(trace, model)
    require_test_sequences(recorded, trace)
    for config in configs:
        check_fits(recorded, config)
    check_kind(batch, drafted, prompts_decoded=not has_decode(recorded))
    with progress_bar("reading ahead") as progress:
        training = training_of(recorded, asked)
        tuning, test = system_parts(
            training, batch=batch, drafted=drafted, tokens=tokens, tuning_tokens=tuning_tokens, progress=progress
        )
    bootstrap = Bootstrap(resamples=resamples)
    points = []
    with progress_bar("simulating") as progress:
        for done, config in enumerate(configs):
            progress(done, len(configs))
            points.append(compare(tuning, test, config, training.uses, host=host_computes(config), bootstrap=bootstrap))
    result = SystemComparison(
        trace=trace.name,
        model=recorded.metadata.model,
        synthetic=recorded.metadata.synthetic,
        sequences=test.trace.sequences,
        tokens=test.timed_tokens,
        tuning_tokens=tuning.timed_tokens,
        distances=asked.distances,
        batch=batch,
        drafted=drafted,
        prompts_decoded=training.prompts_decoded,
        next_use=None if asked.next_use is None else asked.next_use.provenance.trained_on,
        next_layer=None if asked.next_layer is None else asked.next_layer.provenance.trained_on,
        bootstrap=bootstrap,
        points=points,
    )
    emit(result, as_json=as_json, render=lambda console: _render(console, result))


def _configs(
    machines: list[str],
    fractions: list[float],
    links: list[float] | list[None],
    hosts: list[float] | list[None],
    memories: list[dict[str, Any] | None],
    rest: dict[str, Any],
) -> list[SimulationConfig]:
    """A configuration for each combination."""
    return [
        configuration(
            {
                "machine": machine,
                "link_gb_per_s": link,
                "host_gb_per_s": host,
                "in_memory": memory,
                "capacity_fraction": fraction,
                **rest,
            }
        )
        for machine, link, host, memory, fraction in product(machines, links, hosts, memories, fractions)
    ]


def _render(console: Console, result: SystemComparison) -> None:
    """Print what to build, a table of times by share held for each machine, and how it was measured."""
    kind = kind_of_steps(
        result.batch, result.drafted, prompts_decoded=result.prompts_decoded, synthetic=result.synthetic
    )
    console.print(
        f"[bold]{escape(result.trace)}[/bold]: {tokens_of(result.tokens, result.sequences)} of the test part, {kind}",
        highlight=False,
        soft_wrap=True,
    )
    for point in result.points:
        _render_point(console, point, "step" if result.drafted > 1 else "token")
    console.print(
        f"each row's free settings were chosen on {count(result.tuning_tokens)} training tokens"
        + ("; ranges: 95 % intervals over sequences" if result.batch == 1 else ""),
        style="dim",
        highlight=False,
        soft_wrap=True,
    )
    for told, option, command in (
        (result.next_use, "--next-use", "train-next-use"),
        (result.next_layer, "--predictor", "train"),
    ):
        if told is None and not (option == "--predictor" and result.drafted > 1):
            console.print(
                f"without learned rows: give a file that `forestage predictor {command}` wrote as {option}",
                style="dim",
                highlight=False,
                soft_wrap=True,
            )


def _render_point(console: Console, point: Comparison, timed: str) -> None:
    config = point.config
    host = "" if config.host_gb_per_s is None else f", host memory {config.host_gb_per_s:g} GB/s"
    if config.in_memory is not None:
        host += f", {memory_in_words(config.in_memory)}"
    console.print(
        f"\n{config.machine}, host link {point.link_gb_per_s:g} GB/s{host}: {count(point.places)} experts held "
        f"({percent(config.capacity_fraction, 0)})",
        highlight=False,
        soft_wrap=True,
    )
    table = Table("policy", "time", "gain", "hits", "moved", "computed", box=None, pad_edge=False)
    for line in point.lines:
        table.add_row(
            f"[bold]{line.name} ←[/bold]" if line.name == point.recommended else row_name(line),
            seconds(line.outcome.tpot.mean_s),
            "baseline" if line.gain is None else gain_text(line.gain),
            percent(line.outcome.hit_rate),
            f"{line.outcome.moved:.1f}",
            f"{line.outcome.computed:.1f}",
            style="dim" if line.is_oracle else None,
        )
    console.print(table, highlight=False)
    for text, style in ((_what_to_build(point), None), (_columns(point, timed), "dim"), (_bounds(point), "dim")):
        console.print(text, style=style, highlight=False)


def _what_to_build(point: Comparison) -> str:
    gains = gains_told(point)
    text = f"← what to build: it {in_words(point.line(point.recommended))}"
    return f"{text}; it is {listed(gains)}" if gains else text


def _columns(point: Comparison, timed: str) -> str:
    """What the table's columns say."""
    families = {line.family for line in point.lines}
    who = "the host or the memory" if IN_MEMORY in families else "the host"
    baselines = " or ".join(name for family, name in BASELINES.items() if family in families)
    return (
        f"time: of a {timed}; gain: over the baseline of the row's kind ({baselines}); moved, computed: experts a step "
        f"over the link, and by {who}; oracles know what has not happened yet"
    )


def _bounds(point: Comparison) -> str:
    least = point.link_roofline_s
    fetching = "" if least is None else f"; a policy that only fetches cannot take less than {seconds(least)}"
    return f"with every expert on the device: {seconds(point.all_resident_s)}{fetching}"
