"""``forestage predictor sweep``: train and measure a grid of recipes."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from catalog.files import check_folder
from predictor.measure.evaluate import evaluate
from predictor.next_layer.sweep import Measured, grid_names, read_grid, run_grid
from study.commands.opening import open_trace
from study.commands.options import JsonOption, ModelOption, TraceOption
from study.commands.predictor.intervals import with_interval
from study.figures.files import check_figure_path, write_figure
from study.numbers import fixed, size
from study.output import emit, messages, progress_bar
from traces import RoutingTrace


def sweep_predictors(
    trace: TraceOption,
    grid: Annotated[str, typer.Option("--grid", help=f"One of {', '.join(grid_names())}, or a TOML file")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder for predictors and results; run again, a sweep goes on from it")
    ],
    figure: Annotated[
        Path | None, typer.Option("--figure", help="Also draw recall over SRAM to this file (.svg, .pdf or .png)")
    ] = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train every variant of a grid on the training sequences and measure it on the test sequences."""
    if figure is not None:
        check_figure_path(figure)
    chosen = read_grid(grid)
    check_folder(out)
    recorded = open_trace(trace, model)
    results: list[Measured] = []
    with progress_bar(grid) as progress:
        for measured in run_grid(
            recorded,
            chosen,
            out,
            trace_name=trace.name,
            begin=lambda name: messages.print(f"variant {name}", highlight=False),
            progress=progress,
        ):
            results.append(measured)
    document = {
        "grid": chosen.model_dump(mode="json"),
        "trace": trace.name,
        "model": recorded.metadata.model,
        "synthetic": recorded.metadata.synthetic,
        "results": [measured.model_dump(mode="json") for measured in results],
    }
    if figure is not None:
        from study.figures.learned import recall_against_sram  # Matplotlib takes half a second

        write_figure(recall_against_sram(document, _rival(recorded, chosen.issue, trace.name)), figure)
    emit(document, as_json=as_json, render=lambda console: render_sweep(console, chosen.about, results))


def _rival(trace: RoutingTrace, issue: tuple[int, ...], name: str) -> dict[str, Any]:
    """The evaluation of the training-free tables on the same test sequences."""
    return evaluate(trace, "st-moe", issue=issue, trace_name=name).model_dump(mode="json")


def render_sweep(console: Console, about: str, results: list[Measured]) -> None:
    """Print size and recall with its interval, a row per variant; ``--json`` also has bursts, exact sets and times."""
    console.print(f"[bold]{about}[/bold]", highlight=False)
    limits = list(results[0].recall)
    table = Table("variant", box=None)
    for head in ("SRAM", *(f"recall@{limit}" for limit in limits), "layer 0"):
        table.add_column(head, justify="right")
    for measured in results:
        cells = [with_interval(measured.recall[key], measured.intervals[key]) for key in limits]
        table.add_row(measured.name, size(measured.sram_bytes), *cells, fixed(measured.first_layer[limits[0]]))
    validations = [(item.validation.int8, item.validation.floating_point) for item in results]
    lost = [100 * (floating[key] - int8[key]) for int8, floating in validations for key in int8]
    table.caption_justify = "left"
    table.caption = (
        f" SRAM of the largest layer; layer 0 at {limits[0]}; ±: 95 % over sequences; int8 instead of floating point "
        f"costs {min(lost):+.2f} to {max(lost):+.2f} points of recall on the validation sequences"
    )
    console.print(table, highlight=False)
