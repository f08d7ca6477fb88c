"""``forestage rtl replay``: a trace through the hardware, in lock-step with its twin."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from predictor.base import check_lookahead
from predictor.st_moe.parameters import StMoeParameters
from study.commands.opening import open_trace, require_test_sequences
from study.commands.options import (
    JsonOption,
    LookaheadOption,
    ModelOption,
    TraceOption,
    parse_parameters,
)
from study.commands.rtl.limits import (
    DEFAULTS,
    CandidatesMax,
    DomainsMax,
    ExpertsMax,
    LayersMax,
    SlotsMax,
    TopKMax,
    engine_limits,
)
from study.numbers import count
from study.output import emit, progress_bar

if TYPE_CHECKING:
    from cocotb_tests.replay import ReplayResult


def replay_command(
    trace: TraceOption,
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Tokens of the test sequences to replay")] = 500,
    waits: Annotated[
        bool, typer.Option("--waits", help="Make both streams and the bus wait at random; cycles are then not compared")
    ] = False,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed of the waits, and of the event bits that the engine must ignore")
    ] = 0,
    lookahead: LookaheadOption = 1,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--set", help="name=value, a parameter of st-moe from `forestage predictor list`; several times"),
    ] = None,
    experts_max: ExpertsMax = DEFAULTS.experts_max,
    layers_max: LayersMax = DEFAULTS.layers_max,
    top_k_max: TopKMax = DEFAULTS.top_k_max,
    candidates_max: CandidatesMax = DEFAULTS.candidates_max,
    slots_max: SlotsMax = DEFAULTS.slots_max,
    domains_max: DomainsMax = DEFAULTS.domains_max,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stream a trace through engine and twin, and compare every request, table write and, without waits, cycle.

    Exit status 1 if they differ.
    """
    parameters = parse_parameters(parameter or [])
    candidates = StMoeParameters.parse(parameters, origin="--set").candidates
    limits = engine_limits(experts_max, layers_max, top_k_max, candidates_max, slots_max, domains_max)
    recorded = open_trace(trace, model)
    limits.check_trace(recorded, candidates=candidates, origin=str(trace))
    check_lookahead(lookahead, recorded.layers)
    require_test_sequences(recorded, trace)
    from cocotb_tests.build import require_tools  # needs the extra, as does the next
    from cocotb_tests.replay import replay

    require_tools()
    with progress_bar("lock-step replay") as progress:
        result = replay(
            recorded,
            tokens,
            limits=limits,
            parameters=parameters,
            lookahead=lookahead,
            waits=waits,
            seed=seed,
            progress=progress,
        )
    emit(result, as_json=as_json, render=lambda console: render_replay(console, trace.name, result))
    if result.mismatches:
        sys.exit(1)


def render_replay(console: Console, name: str, result: "ReplayResult") -> None:
    """Print the comparison, the speed and the counters."""
    verdict = "[green]equal[/green]" if result.mismatches == 0 else f"[red]{result.mismatches} differences[/red]"
    console.print(
        f"[bold]{escape(name)}[/bold]: {count(result.tokens)} tokens, {count(result.steps)} events, "
        f"{count(result.cycles)} cycles: RTL and twin {verdict}",
        highlight=False,
    )
    table = Table(box=None, show_header=False)
    table.add_row("cycles simulated a second", count(round(result.cycles_per_s)))
    table.add_row("tokens a second", f"{result.tokens_per_s:.1f}")
    for counter, value in result.counters.items():
        table.add_row(counter, count(value))
    console.print(table, highlight=False)
