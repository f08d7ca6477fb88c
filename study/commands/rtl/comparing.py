"""``forestage rtl compare-system``: the prefetch engine beside the system model."""

import sys
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog.errors import ForestageError
from perfmodel.costs_of import check_fits
from predictor.base import check_lookahead
from predictor.policies.parts import Predictors
from study.commands.opening import open_trace, require_test_sequences
from study.commands.options import JsonOption, LookaheadOption, ModelOption, TraceOption
from study.commands.rtl.heads import NextLayerOption, NextUseOption, load_heads
from study.commands.system.options import LINK, MACHINE, SizesOfOption, configuration
from study.numbers import count, seconds
from study.output import emit, progress_bar

if TYPE_CHECKING:
    from study.engine.system_comparison import SystemComparison

COUNTED = {
    "hits": "hits",
    "fetched": "fetched",
    "demands": "loads demanded",
    "late": "loads late",
    "ahead": "loads ahead",
    "useful": "of these useful",
    "wasted": "wasted",
    "dropped": "given up",
    "refused": "refused",
    "evicted": "evictions",
}
"""Count → in words."""


def compare_system_command(
    trace: TraceOption,
    predictor: NextLayerOption = None,
    next_use: NextUseOption = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            help="recency (the least recently used gives way), values (learned, --next-use), prefetch (learned too, "
            "--predictor), background (loads too); several times; default: all that the predictors allow",
        ),
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", min=2, help="Tokens of the test sequences")] = 200,
    places: Annotated[int, typer.Option("--places", min=1, help="Experts of a layer that are kept")] = 8,
    times: Annotated[
        str,
        typer.Option("--times", help="machine: its own; replay: scaled down, so that the hardware itself can run"),
    ] = "machine",
    rtl: Annotated[
        bool, typer.Option("--rtl", help="Run the hardware under Verilator, not its twin; with --times replay")
    ] = False,
    machine: Annotated[str, typer.Option("--machine", help=MACHINE)] = "A100-80GB",
    link_gb_per_s: Annotated[float | None, typer.Option("--link-gb-per-s", help=LINK)] = None,
    sizes_of: SizesOfOption = None,
    lookahead: LookaheadOption = 1,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the prefetch engine and the system model with the same trace, policies and times; compare what they count.

    The engine is its twin, with a link and nets of constant times, or with --rtl the hardware itself. Every token is a
    step; the experts most used in training are there at the start. Exit status 1 where a count differs.
    """
    recorded = open_trace(trace, model)
    require_test_sequences(recorded, trace)
    check_lookahead(lookahead, recorded.layers)
    from study.engine.system_comparison import Scale, chosen_policies, compare_system  # needs the extra

    if times not in get_args(Scale):
        raise ForestageError(f"--times {times}: give {' or '.join(get_args(Scale))}")
    if rtl and times != "replay":
        raise ForestageError("--rtl: at a machine's times a run would take weeks; give --times replay")
    if places > recorded.experts:
        raise ForestageError(f"--places {places}: choose 1 to {recorded.experts}, the experts of a layer")
    config = configuration(
        {
            "machine": machine,
            "link_gb_per_s": link_gb_per_s,
            "sizes_of": sizes_of,
            "capacity_experts": places * recorded.layers,
        }
    )
    check_fits(recorded, config)
    if rtl:
        from cocotb_tests.build import require_tools

        require_tools()
    next_layer, values = load_heads(recorded, predictor, next_use, lookahead)
    predictors = Predictors(next_layer=next_layer, next_use=values, distances=(lookahead,))
    names, left_out = chosen_policies(policy or [], predictors)
    with progress_bar("engine and system model") as progress:
        result = compare_system(
            recorded,
            tokens,
            predictors,
            config,
            names,
            times="replay" if times == "replay" else "machine",
            rtl=rtl,
            left_out=left_out,
            progress=progress,
        )
    emit(result, as_json=as_json, render=lambda console: render_comparison(console, trace.name, result))
    if not result.is_equal:
        sys.exit(1)


def render_comparison(console: Console, name: str, result: "SystemComparison") -> None:
    """Print each policy's counts and times, of both, and where they differ."""
    engine = "the hardware (RTL)" if result.engine == "RTL" else "the engine's twin"
    console.print(
        f"[bold]{escape(name)}[/bold]: {count(result.tokens)} tokens, "
        f"{count(result.config.capacity_experts or 0)} experts held; {engine} beside the system model",
        highlight=False,
        soft_wrap=True,
    )
    scaled = "" if result.times == "machine" else ", scaled down for a replay"
    console.print(
        f"{result.config.machine}{scaled}: a transfer takes {count(result.transfer_cycles)} cycles of 1 ns, a layer "
        f"{count(result.before_gate_cycles)} before its gate and {count(result.expert_cycles)} an expert; nets: "
        f"prediction {count(result.prefetch_cycles)}, values {count(result.values_cycles)}",
        highlight=False,
        soft_wrap=True,
    )
    for run in result.runs:
        table = Table(run.policy, result.engine, "system model", "difference", box=None)
        for column in table.columns[1:]:
            column.justify = "right"
        for key, words in COUNTED.items():
            differs = f"[red]{run.differences[key]:+,}[/red]" if key in run.differences else "0"
            table.add_row(words, count(run.engine[key]), count(run.model[key]), differs)
        table.add_row(
            "time a token",
            seconds(run.engine_cycles * 1e-9),
            seconds(run.model_cycles * 1e-9),
            f"{run.relative_time:+.3%}",
        )
        console.print(table, highlight=False)
        if run.compared_with_twin:
            console.print(f"RTL and twin: equal in {count(run.compared_with_twin)} values", highlight=False)
    for name in result.left_out:
        console.print(f"{name}: left out, as a predictor is missing", style="dim", highlight=False)
    verdict = "[green]every count is equal[/green]" if result.is_equal else "[red]counts differ[/red]"
    console.print(verdict, highlight=False)
