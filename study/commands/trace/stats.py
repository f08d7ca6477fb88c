"""``forestage trace stats``: temporal overlap and expert load."""

from rich.console import Console
from rich.table import Table

from study.commands.options import JsonOption, ModelOption, open_trace
from study.commands.trace.labels import TraceArgument, largest, tell_omitted
from study.numbers import count, fixed, percent
from study.output import emit, progress_bar
from traces.statistics import RoutingStatistics, TraceStatistics, statistics


def stats_command(trace: TraceArgument, model: ModelOption = None, as_json: JsonOption = False) -> None:
    """Temporal overlap and expert load, overall and by domain."""
    recorded = open_trace(trace, model)
    with progress_bar("statistics") as progress:
        figures = statistics(recorded, progress)
    emit(figures, as_json=as_json, render=lambda console: render_statistics(console, figures))


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
