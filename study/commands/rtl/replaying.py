"""``forestage rtl replay``: a trace through the hardware, in lock-step with its twin."""

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog.errors import ForestageError, unknown_name
from catalog.progress import Progress
from predictor.base import check_lookahead
from predictor.engine.settings import Mode
from predictor.st_moe.parameters import EngineLimits, StMoeParameters
from study.commands.command import refuse_unused
from study.commands.opening import open_trace, require_test_sequences
from study.commands.options import (
    JsonOption,
    LookaheadOption,
    ModelOption,
    TraceOption,
    parse_parameters,
)
from study.commands.rtl.heads import NextLayerOption, NextUseOption, load_heads, parse_mode
from study.commands.rtl.limits import (
    DEFAULTS,
    OPTIONS,
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
from study.stages import file_fingerprint
from traces import RoutingTrace, split

if TYPE_CHECKING:
    from cocotb_tests.prefetch_engine.pieces import PiecesResult
    from cocotb_tests.prefetch_engine.trace_replay import TraceReplayResult
    from cocotb_tests.replay import ReplayResult

WHOLE, TABLES = "prefetch-engine", "table-engine"
WHOLE_TOKENS, TABLE_TOKENS = 100, 500
"""Replayed where nothing is said."""
WHOLE_OPTIONS = {
    "mode": "--mode",
    "predictor": "--predictor",
    "next_use": "--next-use",
    "slots": "--slots",
    "places": "--places",
    "waves": "--waves",
    "pieces": "--pieces",
    "piece_tokens": "--piece-tokens",
}
"""Parameter → option, of the whole engine alone."""


def replay_command(
    trace: TraceOption,
    unit: Annotated[
        str, typer.Option("--unit", help="prefetch-engine: the whole one; table-engine: ST-MoE's tables by themselves")
    ] = WHOLE,
    mode: Annotated[
        str | None,
        typer.Option(
            "--mode",
            help="Who predicts: learned, tables or off; default: learned where a predictor is given, else tables",
        ),
    ] = None,
    predictor: NextLayerOption = None,
    next_use: NextUseOption = None,
    tokens: Annotated[
        int | None,
        typer.Option("--tokens", min=1, help="Tokens of the test sequences; default: 100, of the tables alone 500"),
    ] = None,
    slots: Annotated[int, typer.Option("--slots", min=1, help="The whole engine: sequences that run together")] = 1,
    places: Annotated[
        int, typer.Option("--places", min=1, help="The whole engine: experts of a layer that the staging buffer keeps")
    ] = 8,
    waves: Annotated[
        Path | None, typer.Option("--waves", help="The whole engine: where to write its waveforms, .vcd or .fst")
    ] = None,
    pieces: Annotated[
        Path | None,
        typer.Option(
            "--pieces",
            help="The whole engine: a folder that keeps the replay piece by piece; an interrupted one goes on",
        ),
    ] = None,
    piece_tokens: Annotated[
        int, typer.Option("--piece-tokens", min=1, help="The whole engine, with --pieces: tokens of a piece")
    ] = 1000,
    waits: Annotated[
        bool,
        typer.Option("--waits", help="Every channel waits at random; when commands begin is then not compared"),
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
    """Stream a trace through hardware and twin, and compare all that they do: the whole prefetch engine by default.

    It predicts, decides, and moves bytes between models of memories; it is generated for the trace's model. Its
    simulation takes minutes to build, once. ``--unit table-engine`` replays the unit of ST-MoE's tables alone, whose
    limits are the options ``--…-max``. Exit status 1 if anything differs.
    """
    parameters = parse_parameters(parameter or [])
    if unit == WHOLE:
        refuse_unused(
            f"the engine is generated for the trace's model; leave it out, or give --unit {TABLES}", **OPTIONS
        )
        chosen = _mode(mode, predictor is not None or next_use is not None)
        if chosen is not Mode.TABLES:
            refuse_unused(f"mode is {chosen.name.lower()}; leave it out, or give --mode tables", parameter="--set")
        st_moe = StMoeParameters.parse(parameters, origin="--set")
        _replay_whole(
            trace, model, tokens or WHOLE_TOKENS, chosen, predictor, next_use, waves, pieces, piece_tokens,
            as_json=as_json,
            slots=slots, distance=lookahead, places_per_layer=places, waits=100 if waits else 0, seed=seed,
            st_moe=st_moe,
        )  # fmt: skip
    elif unit == TABLES:
        refuse_unused(f"it is the whole engine's; leave it out, or give --unit {WHOLE}", **WHOLE_OPTIONS)
        limits = engine_limits(experts_max, layers_max, top_k_max, candidates_max, slots_max, domains_max)
        _replay_tables(
            trace, model, tokens or TABLE_TOKENS, limits, parameters, as_json=as_json,
            lookahead=lookahead, waits=waits, seed=seed,
        )  # fmt: skip
    else:
        raise unknown_name("unit", unit, (WHOLE, TABLES))


def _mode(name: str | None, learned: bool) -> Mode:
    """Who predicts.

    Raises:
        ForestageError: there is no such mode, or predictors are given that it does not ask.
    """
    if name is None:
        return Mode.LEARNED if learned else Mode.TABLES
    mode = parse_mode(name)
    if mode is not Mode.LEARNED:
        refuse_unused(
            f"mode is {name}; leave it out, or give --mode learned", predictor="--predictor", next_use="--next-use"
        )
    return mode


def _opened(path: Path, model: str | None, lookahead: int) -> RoutingTrace:
    """The trace, of some test sequences and layers enough.

    Raises:
        ForestageError: naming the file or the option.
    """
    recorded = open_trace(path, model)
    require_test_sequences(recorded, path)
    check_lookahead(lookahead, recorded.layers)
    return recorded


def _replay_tables(
    path: Path,
    model: str | None,
    tokens: int,
    limits: EngineLimits,
    parameters: dict[str, Any],
    *,
    as_json: bool,
    lookahead: int,
    **options: Any,
) -> None:
    """Replay through the engine of ST-MoE's tables.

    Raises:
        ForestageError: naming the option or the file, and the remedy.
    """
    candidates = StMoeParameters.parse(parameters, origin="--set").candidates
    recorded = open_trace(path, model)
    limits.check_trace(recorded, candidates=candidates, origin=str(path))
    check_lookahead(lookahead, recorded.layers)
    require_test_sequences(recorded, path)
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
            progress=progress,
            **options,
        )
    emit(result, as_json=as_json, render=lambda console: render_replay(console, path.name, result))
    if result.mismatches:
        sys.exit(1)


def _replay_whole(
    path: Path,
    model: str | None,
    tokens: int,
    mode: Mode,
    predictor: Path | None,
    next_use: Path | None,
    waves: Path | None,
    pieces: Path | None,
    piece_tokens: int,
    *,
    as_json: bool,
    **config: Any,
) -> None:
    """Replay through the whole engine.

    Raises:
        ForestageError: naming the option or the file, and the remedy.
    """
    recorded = _opened(path, model, config["distance"])
    from cocotb_tests.build import require_tools  # needs the extra, as does the next
    from cocotb_tests.prefetch_engine.pieces import PiecesResult, replay_pieces
    from cocotb_tests.prefetch_engine.trace_replay import (
        ReplayConfig,
        TraceReplayResult,
        profiled_tables,
        replay_trace,
    )
    from cocotb_tests.replay import first_tokens

    if pieces is None:
        refuse_unused("it is of --pieces; leave it out, or give --pieces", piece_tokens="--piece-tokens")
    elif waves is not None:
        raise ForestageError("--waves: of a replay in pieces none are written; leave it out, or leave out --pieces")
    else:
        first_tokens(recorded, split(recorded)[1], tokens)  # refused now, not when the pieces before are done
    require_tools()
    next_layer, values = load_heads(recorded, predictor, next_use, config["distance"])
    how = ReplayConfig(mode=mode, **config)
    tables = cache(lambda: profiled_tables(recorded, how))  # once for all pieces

    def replay(first: int, last: int, progress: Progress | None) -> TraceReplayResult:
        return replay_trace(
            recorded,
            last - first,
            how,
            first=first,
            next_layer=next_layer,
            next_use=values,
            progress=progress,
            waves=waves,
            tables=tables() if pieces is not None and mode is Mode.TABLES else None,
        )

    result: TraceReplayResult | PiecesResult
    with progress_bar("lock-step replay") as progress:
        if pieces is None:
            result = replay(0, tokens, progress)
        else:
            files = {"trace": path, "predictor": predictor, "next-use": next_use}
            inputs = {name: file_fingerprint(file) for name, file in files.items() if file is not None}
            result = replay_pieces(
                replay, tokens, piece_tokens, pieces, {**inputs, "config": how.model_dump_json()}, progress=progress
            )
    emit(result, as_json=as_json, render=lambda console: render_whole(console, path.name, result))
    if result.mismatches:
        sys.exit(1)


def render_whole(console: Console, name: str, result: "TraceReplayResult | PiecesResult") -> None:
    """Print the comparison, the speed and, of a replay in one piece, the counters."""
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
    table.add_row("cycles in which commands begin", result.start_cycles)
    table.add_row("(token, layer) steps", count(result.steps))
    table.add_row("cycles simulated a second", count(round(result.cycles / result.running_s)))
    table.add_row("tokens a second", f"{result.tokens_per_s:.1f}")
    table.add_row("of that with the comparison", f"{result.checked_share:.0%}")
    for what, compared in result.compared.items():
        table.add_row(f"compared: {escape(what)}", count(compared))
    for counter, value in getattr(result, "counters", {}).items():
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
