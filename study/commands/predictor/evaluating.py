"""``forestage predictor evaluate``: measure one predictor, or compare several."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog.errors import ForestageError
from predictor.measure.evaluate import EvaluationResult, evaluate
from predictor.measure.results import OWN
from predictor.predictions.file import Predictions, open_predictions
from study.commands.command import refuse_unused
from study.commands.opening import open_trace
from study.commands.options import (
    DatasetOption,
    DomainOption,
    JsonOption,
    ModelOption,
    ResamplesOption,
    SplitOption,
    TraceOption,
    parse_parameters,
)
from study.commands.predictor.comparing import bound_cells, has_weights, run_comparison
from study.commands.predictor.intervals import with_interval
from study.numbers import count, counted, fixed, percent, size
from study.output import emit, progress_bar, tell
from study.synthetic import plain_mark

SHOWN_GROUPS = 12
"""Most domains in the printed table, the largest first."""


def evaluate_predictor(
    trace: TraceOption,
    predictor: Annotated[
        list[str] | None,
        typer.Option(
            "--predictor",
            help="A name from `forestage predictor list`, or the file of a trained one; with --compare several or none",
        ),
    ] = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option("--predictions", help="A file of predictions to evaluate (docs/predictions.md)"),
    ] = None,
    only_covered: Annotated[
        bool,
        typer.Option(
            "--only-covered", help="Evaluate everything only on sequences that the --predictions cover from end to end"
        ),
    ] = False,
    issue: Annotated[
        list[int] | None,
        typer.Option(
            "--issue", help="Most experts to issue for each token and layer (the m of recall@m); several times"
        ),
    ] = None,
    lookahead: Annotated[
        int | None,
        typer.Option(
            "--lookahead", help="How many layers ahead to predict; default: what a file was trained for, else 1"
        ),
    ] = None,
    split: SplitOption = "test",
    domain: DomainOption = None,
    dataset: DatasetOption = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--set", help="name=value, a parameter from `forestage predictor list`; several times"),
    ] = None,
    expert_bytes: Annotated[
        int | None, typer.Option("--expert-bytes", min=1, help="Bytes of one expert; default: the catalogue's")
    ] = None,
    resamples: ResamplesOption = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the bootstrap resamples")] = 0,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Compare all predictors (or those that --predictor names) and the given files side by side",
        ),
    ] = False,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="With --compare: also draw recall to this file (.svg, .pdf or .png)")
    ] = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a predictor's recall, precision, exact sets and traffic, with 95 % intervals over sequences.

    A predictor given by name is first profiled on the training sequences; a trained one comes from a file.
    """
    if not resamples:
        refuse_unused("--resamples 0 draws nothing; leave it out", seed="--seed")
    given: list[str | Predictions] = [*(predictor or []), *map(open_predictions, predictions or [])]
    parameters = parse_parameters(parameter or [])
    _check_request(given, compare=compare, figure=figure, parameters=parameters)
    settings: dict[str, Any] = {
        "issue": tuple(issue or (4, 6, 8)),
        "lookahead": lookahead,
        "split": split,
        "domains": tuple(domain or ()),
        "datasets": tuple(dataset or ()),
        "only_covered": only_covered,
        "expert_bytes": expert_bytes,
        "bootstrap": {"resamples": resamples, "seed": seed},
    }
    recorded = open_trace(trace, model)
    if compare:
        run_comparison(recorded, given, settings, trace_name=trace.name, figure=figure, as_json=as_json)
        return
    name = given[0].path.name if isinstance(given[0], Predictions) else given[0]
    with progress_bar(f"evaluating {name}") as progress:
        result = evaluate(
            recorded, given[0], parameters=parameters, trace_name=trace.name, progress=progress, **settings
        )
    for note in result.notes:
        tell(f"note: {note}")
    emit(result, as_json=as_json, render=lambda console: render_evaluation(console, result))


def _check_request(
    given: Sequence[str | Predictions], *, compare: bool, figure: Path | None, parameters: dict[str, Any]
) -> None:
    """Raise ForestageError for options that do not go together."""
    if not compare and len(given) != 1:
        raise ForestageError(
            f"--predictor: {len(given)} given; give one, or --compare (--predictions count); see forestage predictor "
            "evaluate --help"
        )
    if not compare and figure is not None:
        raise ForestageError(f"--figure {figure}: only a comparison is drawn; add --compare")
    if compare and parameters:
        raise ForestageError(f"--set {next(iter(parameters))}: a parameter of one kind; evaluate that kind by itself")


def render_evaluation(console: Console, result: EvaluationResult) -> None:
    """Print the result as tables: by issue limit, then by domain."""
    labels = "".join(f", {label}" for label in (*result.domains, *result.datasets))
    mark = plain_mark(result.synthetic)
    console.print(
        f"[bold]{escape(result.predictor)}[/bold] on {escape(result.trace)}{mark}: "
        f"{result.split} part{escape(labels)}, {counted(result.sequences, 'sequence')}, "
        f"{counted(result.tokens, 'token')}, "
        f"lookahead {result.lookahead}",
        highlight=False,
        soft_wrap=True,
    )
    made = "predicted by" if result.predictions else "made from"
    console.print(f"{made} {result.trained_on}", style="dim", highlight=False, markup=False, soft_wrap=True)
    if result.file is not None:
        own = ", ".join(f"{name} {value}" for name, value in result.parameters.items())
        console.print(own, style="dim", highlight=False, markup=False, soft_wrap=True)
    console.print(_by_limit(result))
    console.print()
    console.print(_beside(result))
    if result.traffic.predictor_bytes_per_token:
        fetched = size(result.traffic.predictor_bytes_per_token)
        console.print(f"the predictor itself reads and writes {fetched} of far memory a token", highlight=False)
    early = {row.layer: row for row in result.by_layer if row.early and any(row.issued.values())}
    for layer, row in early.items():
        recalls = ", ".join(f"{fixed(value)} at {limit}" for limit, value in row.recall.items())
        console.print(f"layer {layer}, below the lookahead and in no mean: recall {recalls}", highlight=False)
    if len(result.by_domain) > 1:
        console.print()
        console.print(_by_domain(result))


def _by_limit(result: EvaluationResult) -> Table:
    """Metrics with their intervals, a row per issue limit."""
    table = Table(box=None)
    sized = result.traffic.size.expert_bytes is not None
    for head in ("at most", "recall", "precision", "issued", *(("moved a token", "wasted") if sized else ())):
        table.add_column(head, justify="right")
    for key in result.recall:
        volumes = (result.traffic.moved_bytes_per_token[key], result.traffic.wasted_bytes_per_token[key])
        table.add_row(
            key,
            with_interval(result.recall[key], result.intervals.recall[key]),
            with_interval(result.precision[key], result.intervals.precision[key]),
            fixed(result.issued[key], 2),
            *(size(volume) for volume in volumes if volume is not None),
        )
    exact = with_interval(result.exact_set, result.intervals.exact_set)
    if result.answered is not None and result.answered < 1:
        exact += f"; something is issued in {percent(result.answered)} of the rows"
    resamples = f"; ±: 95 % over sequences, {count(result.bootstrap.resamples)} resamples"
    table.caption_justify = "left"
    table.caption = f" exact set {exact}" + (resamples if result.bootstrap.resamples else "")
    return table


def _beside(result: EvaluationResult) -> Table:
    """Recall and, if the trace has weights, gate-mass recall, with their bounds."""
    table = Table(box=None)
    table.add_column("", no_wrap=True)
    for key in result.recall:
        table.add_column("own" if key == OWN else f"@{key}", justify="right")
    shown = [("recall", result.recall, result.intervals.recall, False)]
    if has_weights(result.bounds):
        shown.append(("gate mass", result.gate_mass, result.intervals.gate_mass, True))
    for name, values, ends, mass in shown:
        table.add_row(name, *(with_interval(values[key], ends[key]) for key in result.recall))
        for bound, cells in bound_cells(result.bounds, gate_mass=mass).items():
            table.add_row(f"  {bound}", *cells, style="dim")
    return table


def _by_domain(result: EvaluationResult) -> Table:
    """Recall of the largest domains at the middle limit."""
    limits = list(result.recall)
    shown = limits[(len(limits) - 1) // 2]
    largest = sorted(result.by_domain.items(), key=lambda item: -item[1].tokens)
    table = Table(box=None)
    table.add_column("domain")
    weighed = (f"gate mass@{shown}",) if has_weights(result.bounds) else ()
    for head in ("sequences", "tokens", f"recall@{shown}", *weighed):
        table.add_column(head, justify="right")
    for label, group in largest[:SHOWN_GROUPS]:
        recall = with_interval(group.recall[shown], group.intervals.recall[shown])
        mass = (with_interval(group.gate_mass[shown], group.intervals.gate_mass[shown]) for _ in weighed)
        table.add_row(escape(label), count(group.sequences), count(group.tokens), recall, *mass)
    if len(largest) > SHOWN_GROUPS:
        table.caption_justify = "left"
        table.caption = f" {len(largest) - SHOWN_GROUPS} smaller domains are in --json"
    return table
