"""``forestage trace``: import, describe and measure routing traces."""

from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from study.commands.options import JsonOption, ModelOption, open_trace
from study.numbers import count, fixed, percent, size
from study.output import emit, progress_bar
from traces.describe import LabelCount, TraceInfo, describe
from traces.importers import FORMATS, import_trace
from traces.statistics import DomainStatistics, RoutingStatistics, TraceStatistics, statistics

app = typer.Typer(help="What was routed: import, describe and measure traces.", no_args_is_help=True)

Label = TypeVar("Label", LabelCount, DomainStatistics)

LABELS_SHOWN = 12
"""Labels that a table on the terminal shows, the largest first; ``--json`` gives all."""

TraceArgument = Annotated[Path, typer.Argument(help="A trace, in any known format")]


@app.command("import")
def import_command(
    source: Annotated[Path, typer.Argument(help="The foreign file")],
    out: Annotated[Path, typer.Option("--out", help="The trace file to write (.safetensors)")],
    format: Annotated[str | None, typer.Option("--format", help=f"One of {', '.join(FORMATS)}; else sniffed")] = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Convert SOURCE to the project's own format, checked whole."""
    trace = import_trace(source, format, model=model)
    trace.save(out)
    info = describe(trace, out)
    emit(info, as_json=as_json, render=lambda console: render_info(console, str(out), info))


@app.command("info")
def info_command(trace: TraceArgument, model: ModelOption = None, as_json: JsonOption = False) -> None:
    """Shape, labels and provenance."""
    info = describe(open_trace(trace, model), trace)
    emit(info, as_json=as_json, render=lambda console: render_info(console, str(trace), info))


@app.command("stats")
def stats_command(trace: TraceArgument, model: ModelOption = None, as_json: JsonOption = False) -> None:
    """Temporal overlap and expert load, overall and by domain."""
    recorded = open_trace(trace, model)
    with progress_bar("statistics") as progress:
        figures = statistics(recorded, progress)
    emit(figures, as_json=as_json, render=lambda console: render_statistics(console, figures))


def render_info(console: Console, name: str, info: TraceInfo) -> None:
    """The description as a two-column table, then the labels."""
    meta = info.metadata
    table = Table(box=None, show_header=False, title=name, title_justify="left", title_style="bold")
    table.add_row("model", meta.model + (" [red](synthetic)[/red]" if meta.synthetic else ""))
    table.add_row("shape", f"{info.layers} MoE layers, {info.experts} experts, top-{info.top_k}")
    table.add_row("tokens", f"{count(info.prefill_tokens)} prefill, {count(info.decode_tokens)} decode")
    table.add_row("sequences", f"{count(info.sequences)} of {info.shortest} to {info.longest} tokens")
    table.add_row("ids", "in rank order" if meta.ranked else "in no order")
    table.add_row("gate weights", meta.gate_weight_kind if info.gate_weights else "not recorded")
    table.add_row("token identity", "recorded" if info.token_hash else "not recorded")
    if info.unrecorded_rows:
        table.add_row("not recorded", f"{count(info.unrecorded_rows)} rows (token, layer)")
    table.add_row("size", size(info.array_bytes))
    table.add_row("source", f"{meta.source} ({meta.licence})")
    console.print(table, highlight=False)
    labels = Table("domain", "sequences", "tokens", box=None)
    for label, part in largest(info.domains):
        labels.add_row(label, count(part.sequences), count(part.tokens))
    console.print(labels, highlight=False)
    tell_omitted(console, len(info.domains))


def largest(labels: dict[str, Label]) -> list[tuple[str, Label]]:
    """The labels with the most tokens, as many as are shown."""
    return sorted(labels.items(), key=lambda item: -item[1].tokens)[:LABELS_SHOWN]


def tell_omitted(console: Console, labels: int) -> None:
    """Say how many labels the table above leaves out, if any."""
    if labels > LABELS_SHOWN:
        console.print(f"[dim]… and {labels - LABELS_SHOWN} smaller domains; --json lists all[/dim]", highlight=False)


def render_statistics(console: Console, figures: TraceStatistics) -> None:
    """The figures overall and by domain, means over layers."""
    console.print(
        f"[bold]{figures.model}[/bold]: {count(figures.tokens)} tokens; independent choices would share "
        f"K²/N = {figures.random_overlap:.3f} experts between consecutive tokens",
        highlight=False,
    )
    table = Table("", "shared experts", "× random", "load entropy", "hottest / mean", box=None)

    def add(label: str, part: RoutingStatistics) -> None:
        table.add_row(
            label,
            fixed(part.temporal_overlap),
            fixed(part.overlap_ratio, 2),
            percent(part.load_entropy),
            fixed(part.hottest_over_mean, 2),
        )

    add("all", figures.overall)
    for label, part in largest(figures.by_domain):
        add(label, part)
    console.print(table, highlight=False)
    tell_omitted(console, len(figures.by_domain))
