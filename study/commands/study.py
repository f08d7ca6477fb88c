"""``forestage study``: from one trace to one report."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from study.output import emit


def study(
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="Folder for report.html, results.json and the stages; run again, a study goes on from it"
        ),
    ],
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace", help="The trace to study, in any format that `trace import` reads; default: the shipped one"
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="A TOML file of settings (docs/study.md); default: the settings listed there"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the content of results.json on stdout")] = False,
) -> None:
    """Take a routing trace through predictor, RTL, PIM unit, system model and PyTorch to one report."""
    from study.run import run_study  # the help of the other commands does not wait for it

    document = run_study(out, trace, config)
    emit(document, as_json=as_json, render=lambda console: summary(console, out))


def summary(console: Console, out: Path) -> None:
    """Print the last lines."""
    console.print(f"[bold]Report:[/bold] {escape(str(out / 'report.html'))}", highlight=False, soft_wrap=True)
    console.print(f"Results: {out / 'results.json'}", highlight=False, markup=False, soft_wrap=True)
