"""``forestage predictor calibration``: measure whether a learned predictor's probabilities are true."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog.errors import ForestageError
from predictor.next_layer.predictor import NextLayerPredictor
from study.calibration import calibration
from study.commands.opening import open_trace, require_test_sequences
from study.commands.options import JsonOption, ModelOption, TraceOption
from study.figures.files import check_figure_path, write_figure
from study.numbers import count, fixed, percent
from study.output import emit
from traces import split


def calibration_of(
    trace: TraceOption,
    predictor: Annotated[Path, typer.Option("--predictor", help="The file of a trained predictor")],
    part: Annotated[
        str,
        typer.Option("--split", help="Sequences to use: test, or all if the predictor was not trained on this trace"),
    ] = "test",
    lookahead: Annotated[
        int | None,
        typer.Option(
            "--lookahead",
            help="How many layers ahead to predict; default: the fewest that the predictor was trained for",
        ),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="Also draw the reliability to this file (.svg, .pdf or .png)")
    ] = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the calibration of a trained predictor's chances: reliability and expected calibration error."""
    if part not in ("test", "all"):
        raise ForestageError(f"--split {part}: choose test or all")
    if figure is not None:
        check_figure_path(figure)
    learned = NextLayerPredictor.load(predictor, lookahead)
    recorded = open_trace(trace, model)
    if part == "test":
        require_test_sequences(recorded, trace)
    chosen = split(recorded)[1] if part == "test" else np.arange(recorded.sequences)
    document = {
        **calibration(learned, recorded, chosen, name=predictor.stem, trace_name=trace.name),
        "split": part,
        "lookahead": learned.lookahead,
    }
    if figure is not None:
        from study.figures.learned import reliability_diagram  # Matplotlib takes half a second

        write_figure(reliability_diagram(document), figure)
    emit(document, as_json=as_json, render=lambda console: render_calibration(console, document))


def render_calibration(console: Console, document: dict[str, object]) -> None:
    """Print the calibration error, and the reliability as a table."""
    console.print(
        f"[bold]{escape(str(document['predictor']))}[/bold] on {escape(str(document['trace']))}, "
        f"{document['split']} part, lookahead {document['lookahead']}: "
        f"expected calibration error {document['calibration_error']:.4f}",
        highlight=False,
    )
    table = Table("probability", "was chosen", "predictions", box=None)
    points = document["reliability"]
    assert isinstance(points, list)
    for point in points:
        if point["count"]:
            table.add_row(fixed(point["probability"]), percent(point["frequency"]), count(point["count"]))
    console.print(table, highlight=False)
