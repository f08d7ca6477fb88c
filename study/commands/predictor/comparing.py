"""``forestage predictor evaluate --compare``: all predictors on one trace, as tables and a figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from predictor import registry
from predictor.measure.compare import Comparison, EqualTraffic, compare
from predictor.measure.evaluate import Bounds
from predictor.measure.results import OWN, ByLimit
from predictor.predictions.file import Predictions
from study.commands.predictor.intervals import with_interval
from study.figures.files import check_figure_path, write_figure
from study.numbers import counted, fixed, percent, size
from study.output import emit, progress_bar, tell
from study.synthetic import plain_mark
from traces import RoutingTrace

POPULARITY = "popularity (null)"


def run_comparison(
    trace: RoutingTrace,
    given: Sequence[str | Predictions],
    settings: dict[str, Any],
    *,
    trace_name: str,
    figure: Path | None,
    as_json: bool,
) -> None:
    """Compare predictors, print the tables, draw ``figure``.

    ``given`` are files, predictions and names of kinds; if no kind is named, all kinds that are profiled in seconds are
    compared.

    Raises:
        ForestageError: as ``predictor.measure.compare.compare``, and for a figure with an unknown format.
    """
    if figure is not None:
        check_figure_path(figure)
    named = [name for name in given if not isinstance(name, Predictions)]
    kinds = [registry.kind(name).name for name in named if not registry.is_saved(name)] or registry.profiled_names()
    predictors = [
        *dict.fromkeys(kinds),
        *(name for name in given if isinstance(name, Predictions) or registry.is_saved(name)),
    ]
    with progress_bar(f"comparing {len(predictors)} predictors") as progress:
        result = compare(trace, predictors, trace_name=trace_name, progress=progress, **settings)
    if figure is not None:
        from study.figures.predictors import recall_against_issued  # Matplotlib takes half a second

        write_figure(recall_against_issued(result.model_dump(mode="json")), figure)
        tell(f"drawn to {figure}")
    for note in dict.fromkeys(note for evaluation in result.evaluations for note in evaluation.notes):
        tell(f"note: {note}")
    emit(result, as_json=as_json, render=lambda console: render_comparison(console, result))


def render_comparison(console: Console, result: Comparison) -> None:
    """Print recall with intervals, then traffic; a row per predictor."""
    mark = plain_mark(result.synthetic)
    console.print(
        f"[bold]{len(result.evaluations)} predictors[/bold] on {escape(result.trace)}{mark}: {result.split} part, "
        f"{counted(result.sequences, 'sequence')}, {counted(result.tokens, 'token')}, "
        f"lookahead {result.lookahead}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(_recall_table(result))
    if has_weights(result.bounds):
        console.print()
        console.print(_gate_mass_table(result))
    console.print()
    console.print(_traffic_table(result))
    partly = {e.predictor: e.answered for e in result.evaluations if e.answered is not None and e.answered < 1}
    if partly:
        shares = ", ".join(f"{name} in {percent(share, 2)}" for name, share in partly.items())
        console.print(
            f"not every row is answered: {shares}", style="dim", highlight=False, markup=False, soft_wrap=True
        )
    for equal in result.equal_traffic:
        console.print()
        console.print(_equal_table(equal))


def _recall_table(result: Comparison) -> Table:
    """Recall at every limit with intervals, and exact sets; the bounds come last."""
    table = Table(box=None)
    table.add_column("predictor", no_wrap=True)
    limits = list(result.bounds.perfect)
    for head in (*(f"recall@{limit}" for limit in limits), "exact set"):
        table.add_column(head, justify="right")
    for evaluation in result.evaluations:
        recalls = (with_interval(evaluation.recall[m], evaluation.intervals.recall[m]) for m in limits)
        table.add_row(
            evaluation.predictor, *recalls, with_interval(evaluation.exact_set, evaluation.intervals.exact_set)
        )
    _add_bounds(table, result)
    return table


def _gate_mass_table(result: Comparison) -> Table:
    """Gate-mass recall at every limit with intervals; the bounds come last."""
    table = Table(box=None)
    table.add_column("predictor", no_wrap=True)
    for limit in result.bounds.perfect:
        table.add_column(f"gate mass@{limit}", justify="right")
    for evaluation in result.evaluations:
        masses = (
            with_interval(evaluation.gate_mass[m], evaluation.intervals.gate_mass[m]) for m in result.bounds.perfect
        )
        table.add_row(evaluation.predictor, *masses)
    _add_bounds(table, result, gate_mass=True)
    return table


def has_weights(bounds: Bounds) -> bool:
    """Whether the trace has gate weights, so that there is a gate-mass recall to show."""
    return any(value is not None for value in bounds.perfect_gate_mass.values())


def _add_bounds(table: Table, result: Comparison, *, gate_mass: bool = False) -> None:
    """Add the floors and the bound as rows; not popularity, if it is one of the predictors."""
    rows = bound_cells(result.bounds, gate_mass=gate_mass)
    if any(evaluation.predictor == "popularity" and evaluation.file is None for evaluation in result.evaluations):
        rows.pop(POPULARITY, None)
    for name, values in rows.items():
        table.add_row(name, *values, style="dim")


def bound_cells(bounds: Bounds, *, gate_mass: bool = False) -> dict[str, list[str]]:
    """Name of a floor or bound → its cells by limit."""
    rows: dict[str, ByLimit] = {"random (floor)": {**bounds.random}}
    if bounds.popularity is not None:
        rows[POPULARITY] = bounds.popularity.gate_mass if gate_mass else bounds.popularity.recall
    rows["perfect (bound)"] = bounds.perfect_gate_mass if gate_mass else {**bounds.perfect}
    return {name: [fixed(values[limit]) for limit in bounds.perfect] for name, values in rows.items()}


def _traffic_table(result: Comparison) -> Table:
    """Bytes moved at the middle limit, and uncapped for a predictor with a threshold."""
    limits = list(result.bounds.perfect)
    shown = limits[(len(limits) - 1) // 2]
    table = Table(box=None)
    table.add_column("predictor", no_wrap=True)
    for head in ("at most", "recall", "precision", "issued", "moved a token", "wasted"):
        table.add_column(head, justify="right")
    for evaluation in result.evaluations:
        for key in (shown, *([OWN] if OWN in evaluation.recall else [])):
            traffic = evaluation.traffic
            volumes = (traffic.moved_bytes_per_token[key], traffic.wasted_bytes_per_token[key])
            table.add_row(
                evaluation.predictor,
                key,
                fixed(evaluation.recall[key]),
                with_interval(evaluation.precision[key], evaluation.intervals.precision[key]),
                fixed(evaluation.issued[key], 2),
                *("–" if volume is None else size(volume) for volume in volumes),
            )
    return table


def _equal_table(equal: EqualTraffic) -> Table:
    """Recall of all predictors if they issue as many experts as one of them does uncapped."""
    table = Table(box=None)
    table.add_column(f"at the {equal.issued:.2f} issued of {equal.reference}", no_wrap=True)
    table.add_column("recall", justify="right")
    table.add_column("gain", justify="right")
    for label, recall in equal.recall.items():
        gain = (
            "" if label == equal.reference else with_interval(equal.gain[label], equal.gain_intervals[label], sign="+")
        )
        table.add_row(label, fixed(recall), gain)
    return table
