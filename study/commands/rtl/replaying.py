"""``forestage rtl replay``: a trace through the hardware, in lock-step with its twin."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog.errors import ForestageError
from predictor.base import check_lookahead
from predictor.engine.settings import Mode
from predictor.next_layer.predictor import NextLayerPredictor
from predictor.next_use.predictor import NextUsePredictor
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
    from cocotb_tests.prefetch_engine.trace_replay import TraceReplayResult
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
    mode: Annotated[
        str | None,
        typer.Option("--mode", help="The whole engine, predicting by tables, learned or off; else the tables alone"),
    ] = None,
    predictor: Annotated[
        Path | None, typer.Option("--predictor", help="Mode learned: a file of `forestage predictor train`")
    ] = None,
    next_use: Annotated[
        Path | None, typer.Option("--next-use", help="Mode learned: a file of `forestage predictor train-next-use`")
    ] = None,
    slots: Annotated[int, typer.Option("--slots", min=1, help="The whole engine: sequences that run together")] = 1,
    places: Annotated[
        int, typer.Option("--places", min=1, help="The whole engine: experts of a layer that the staging buffer keeps")
    ] = 8,
    waves: Annotated[
        Path | None,
        typer.Option("--waves", help="The whole engine: where to write its waveforms, .vcd or .fst"),
    ] = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stream a trace through engine and twin, and compare every request, table write and, without waits, cycle.

    With --mode that is the whole engine between memories that hold experts: it predicts, and moves their bytes. Without
    it is the table predictor alone. Exit status 1 if they differ.
    """
    if mode is not None:
        _replay_whole(
            trace, tokens, mode, predictor, next_use, model, waves, as_json=as_json,
            slots=slots, distance=lookahead, places_per_layer=places, waits=100 if waits else 0, seed=seed,
        )  # fmt: skip
        return
    if predictor or next_use or waves or slots > 1:
        raise ForestageError("--predictor, --next-use, --slots and --waves are the whole engine's; give --mode too")
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


def _replay_whole(
    path: Path,
    tokens: int,
    mode: str,
    predictor: Path | None,
    next_use: Path | None,
    model: str | None,
    waves: Path | None,
    *,
    as_json: bool,
    **config: Any,
) -> None:
    """Replay through the whole engine.

    Raises:
        ForestageError: naming the option or the file, and the remedy.
    """
    if mode.upper() not in Mode.__members__:
        raise ForestageError(f"--mode {mode}: give {', '.join(known.name.lower() for known in Mode)}")
    recorded = open_trace(path, model)
    require_test_sequences(recorded, path)
    check_lookahead(config["distance"], recorded.layers)
    from cocotb_tests.build import require_tools  # needs the extra, as does the next
    from cocotb_tests.prefetch_engine.trace_replay import ReplayConfig, replay_trace

    require_tools()
    with progress_bar("lock-step replay") as progress:
        result = replay_trace(
            recorded,
            tokens,
            ReplayConfig(mode=Mode[mode.upper()], **config),
            next_layer=None if predictor is None else NextLayerPredictor.load(predictor, config["distance"]),
            next_use=None if next_use is None else NextUsePredictor.load(next_use, 0),
            progress=progress,
            waves=waves,
        )
    emit(result, as_json=as_json, render=lambda console: _render_whole(console, path.name, result))
    if result.mismatches:
        sys.exit(1)


def _render_whole(console: Console, name: str, result: "TraceReplayResult") -> None:
    """Print the comparison, the speed and the counters."""
    verdict = "[green]equal[/green]" if result.mismatches == 0 else f"[red]{result.mismatches} differences[/red]"
    console.print(
        f"[bold]{escape(name)}[/bold], mode {result.mode}: {count(result.tokens)} tokens, "
        f"{count(result.events)} events, "
        f"{count(result.cycles)} cycles: RTL and twin {verdict}",
        highlight=False,
    )
    if result.first_mismatch:
        console.print(escape(result.first_mismatch), highlight=False)
    table = Table(box=None, show_header=False)
    table.add_row("cycles simulated a second", count(round(result.cycles_per_s)))
    table.add_row("tokens a second", f"{result.tokens_per_s:.1f}")
    table.add_row("of that with the comparison", f"{result.checked_share:.0%}")
    for what, compared in result.compared.items():
        table.add_row(f"compared: {escape(what)}", count(compared))
    for counter, value in result.counters.items():
        table.add_row(counter, count(value))
    console.print(table, highlight=False)


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
