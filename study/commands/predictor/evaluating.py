"""``forestage predictor evaluate``: recall, precision and issued experts of one predictor."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from catalog.errors import ForestageError
from predictor.evaluate import EvaluationResult, SplitName, evaluate
from study.commands.options import JsonOption, ModelOption, TraceOption, open_trace, parse_parameters
from study.numbers import fixed
from study.output import emit, progress_bar


def evaluate_predictor(
    trace: TraceOption,
    predictor: Annotated[str, typer.Option("--predictor", help="A name of `forestage predictor list`")],
    issue: Annotated[list[int] | None, typer.Option("--issue", help="Issue limit; give it several times")] = None,
    lookahead: Annotated[int, typer.Option("--lookahead", help="Layers between known gate and target")] = 1,
    split: Annotated[str, typer.Option("--split", help="train, test or all")] = "test",
    parameter: Annotated[list[str] | None, typer.Option("--set", help="name=value, a parameter of the kind")] = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Recall, precision and issued experts of one predictor; the profile is of the training sequences."""
    parameters = parse_parameters(parameter or [])
    recorded = open_trace(trace, model)
    with progress_bar(f"evaluating {predictor}") as progress:
        result = evaluate(
            recorded,
            predictor,
            issue=tuple(issue or (4, 6, 8)),
            lookahead=lookahead,
            split=split_name(split),
            parameters=parameters,
            trace_name=trace.name,
            progress=progress,
        )
    emit(result, as_json=as_json, render=lambda console: render_evaluation(console, result))


def split_name(text: str) -> SplitName:
    """``text`` as the name of a part of a trace.

    Raises:
        ForestageError: if there is no such part.
    """
    if text in ("train", "test", "all"):
        return text  # type: ignore[return-value]
    raise ForestageError(f"--split {text}: choose train, test or all")


def render_evaluation(console: Console, result: EvaluationResult) -> None:
    """The result as a table, an issue limit a row."""
    console.print(
        f"[bold]{result.predictor}[/bold] on {result.trace}: {result.split} part, {result.sequences} sequences, "
        f"{result.tokens} tokens, lookahead {result.lookahead}",
        highlight=False,
    )
    table = Table("issued at most", "recall", "precision", "issued a layer", box=None)
    for key in result.recall:
        label = "own threshold" if key == "own" else key
        table.add_row(label, fixed(result.recall[key]), fixed(result.precision[key]), fixed(result.issued[key], 2))
    console.print(table, highlight=False)
