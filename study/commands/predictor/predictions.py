"""``forestage predictor predictions``: write a predictor's predictions to a file that anybody can score."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from catalog.errors import ForestageError
from predictor import registry
from predictor.measure.evaluate import EvaluationSettings, load_or_fit, select_parts
from predictor.predictions.export import export_predictions
from predictor.predictions.file import open_predictions
from predictor.predictions.writer import check_suffix
from predictor.requests import check_request
from study.commands.opening import open_trace
from study.commands.options import JsonOption, ModelOption, TraceOption, check_destination, parse_parameters
from study.numbers import count, counted, size
from study.output import emit, progress_bar


def write_predictions(
    trace: TraceOption,
    predictor: Annotated[
        str, typer.Option("--predictor", help="A name from `forestage predictor list`, or the file of a trained one")
    ],
    out: Annotated[Path, typer.Option("--out", help="The file to write: .npz, .safetensors or .parquet")],
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", help="Most experts to write for each token and layer; default: all that the predictor issues"
        ),
    ] = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="Write the scores of all experts in place of ranked ids")
    ] = False,
    lookahead: Annotated[
        int | None,
        typer.Option(
            "--lookahead", help="How many layers ahead to predict; default: what a file was trained for, else 1"
        ),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Sequences to predict: train, test or all")] = "test",
    parameter: Annotated[
        list[str] | None,
        typer.Option("--set", help="name=value, a parameter from `forestage predictor list`; several times"),
    ] = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a predictor's predictions to a file, for `forestage predictor evaluate --predictions` or other programs.

    A predictor given by name is first profiled on the training sequences, as by `forestage predictor evaluate`.
    """
    if limit is not None and scores:
        raise ForestageError(f"--limit {limit}: scores are of every expert; leave out --scores or --limit")
    parameters = parse_parameters(parameter or [])
    check_suffix(out)
    check_destination(out, trace)
    recorded = open_trace(trace, model)
    check_request(recorded, [predictor], limits=() if limit is None else (limit,), lookahead=lookahead)
    parts = select_parts(
        recorded, EvaluationSettings.parse_settings({"lookahead": lookahead, "split": split}, origin="--split")
    )
    chosen = load_or_fit(parts, predictor, parameters)
    source = _source(chosen, predictor, parameters, parts.settings, trace.name, len(parts.train))
    with progress_bar(f"predicting with {predictor}") as progress:
        export_predictions(
            out, chosen, parts.evaluated, whole=recorded, sequences=parts.chosen, source=source, limit=limit,
            scores=scores, progress=progress,
        )  # fmt: skip
    written = open_predictions(out)
    document: dict[str, Any] = {
        "out": str(out),
        **written.header.model_dump(mode="json"),
        "holds": "scores" if scores else "ids",
        "width": written.arrays.width,
        "split": split,
        "sequences": parts.evaluated.sequences,
        "tokens": parts.evaluated.tokens,
        "bytes": out.stat().st_size,
    }
    emit(document, as_json=as_json, render=lambda console: _render(console, document))


def _source(
    chosen: Any, name: str, parameters: dict[str, Any], settings: EvaluationSettings, trace: str, train: int
) -> str:
    """Who predicted and how, in a sentence."""
    if registry.is_saved(name):
        made = f"{Path(name).name}, trained on {chosen.trained_on},"
    else:
        given = "".join(f", {key}={value}" for key, value in parameters.items())
        made = f"{name}{given}, profiled on {train} training sequences (split seed 0),"
    return f"forestage predictor predictions: {made} on the {settings.split} part of {trace}"


def _render(console: Console, document: dict[str, Any]) -> None:
    each = "the scores of" if document["holds"] == "scores" else "at most"
    console.print(
        f"[bold]{escape(document['out'])}[/bold]: {each} {count(document['width'])} experts a layer for "
        f"{counted(document['tokens'], 'token')} of {counted(document['sequences'], 'sequence')}, lookahead "
        f"{document['lookahead']}, {size(document['bytes'])}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(escape(document["source"]), style="dim", highlight=False, soft_wrap=True)
