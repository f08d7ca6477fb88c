"""``forestage trace import``: convert a foreign file."""

from pathlib import Path
from typing import Annotated

import typer

from study.commands.options import JsonOption, ModelOption
from study.commands.trace.info import render_info
from study.output import emit
from traces.describe import describe
from traces.importers import FORMATS, import_trace


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
