"""``forestage reference compare``: measured rows of a record beside the system model's predictions of them."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gpu_reference.records import MeasurementRecord
from study.commands.options import JsonOption, ModelOption
from study.commands.reference.options import DecodedTraceOption, DistanceOption, PackageOption, TestSliceOption
from study.commands.system.options import NextUseOption, PredictorOption
from study.numbers import counted, fixed, percent, seconds
from study.output import emit, progress_bar
from study.reference.comparison import WITHIN, Beside, ComparedRow, Errors, RecordComparison, compare_record
from study.reference.material import material_at


def compare_command(
    record: Annotated[Path, typer.Option("--record", help="A record that `forestage reference measure` wrote")],
    trace: DecodedTraceOption = None,
    package: PackageOption = None,
    next_use: NextUseOption = None,
    predictor: PredictorOption = None,
    distance: DistanceOption = None,
    tokens: TestSliceOption = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict each measured row by the system model, with constants from the record's micro-measurements alone."""
    measured = MeasurementRecord.load(record)
    material = material_at(
        trace=trace,
        package=package,
        next_use=next_use,
        predictor=predictor,
        distances=distance,
        tokens=tokens,
        model=model,
    )
    with progress_bar("predicting") as progress:
        result = compare_record(measured, record.name, material, progress)
    emit(result, as_json=as_json, render=lambda console: _render(console, result))


def _render(console: Console, result: RecordComparison) -> None:
    console.print(
        f"[bold]{escape(result.record)}[/bold], {result.date}, {escape(result.device)}: {escape(result.model)}, "
        f"routing of {escape(result.trace)}",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(
        "regime", "batch", "held", "policy", "how", "measured", "predicted", "error", "mean's error", "hits", "moved",
        box=None,
        pad_edge=False,
    )  # fmt: skip
    for row in result.rows:
        table.add_row(
            row.regime,
            str(row.batch),
            percent(row.share, 0),
            row.row,
            f"{row.mode}, {row.format}",
            seconds(row.measured_tpot_s),
            "–" if row.tpot_s is None else seconds(row.tpot_s.predicted),
            _error(row.tpot_s),
            _error(row.mean_s),
            _both(row.hit_rate, 3),
            _both(row.moved, 1),
            style=_style(row),
        )
    console.print(table, highlight=False)
    for row in result.rows:
        if row.left_out is not None:
            console.print(
                f"{row.row}, {row.regime}, batch {row.batch}, {percent(row.share, 0)}: not predicted: "
                f"{escape(row.left_out)}",
                style="yellow",
                highlight=False,
                soft_wrap=True,
            )
    for text in (_summary("the model", result.tpot), _summary("the mean of a regime and batch", result.mean)):
        console.print(text, highlight=False, soft_wrap=True)
    console.print(
        "measured, predicted: time per output token, mean; hits: share of look-ups; moved: experts a step over the "
        "link; both measured / predicted; mean's error: if every row took the mean of its regime and batch",
        style="dim",
        highlight=False,
        soft_wrap=True,
    )


def _style(row: ComparedRow) -> str | None:
    """Rows beyond the aim stand out."""
    if row.tpot_s is None or row.tpot_s.error is None:
        return "dim"
    return "bold red" if abs(row.tpot_s.error) > WITHIN else None


def _error(figure: Beside | None) -> str:
    return "–" if figure is None or figure.error is None else f"{100 * figure.error:+.1f}\u202f%"


def _both(figure: Beside | None, digits: int) -> str:
    if figure is None:
        return "–"
    return f"{fixed(figure.measured, digits)} / {fixed(figure.predicted, digits)}"


def _summary(who: str, errors: Errors | None) -> str:
    if errors is None:
        return f"{who}: no row could be predicted"
    return (
        f"{who}: {counted(errors.rows, 'row')}, {errors.within} of them within {percent(WITHIN, 0)}; error: median "
        f"{percent(errors.median)}, largest {percent(errors.largest)}, mean {100 * errors.mean:+.1f}\u202f%"
    )
