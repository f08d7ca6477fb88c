"""Options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

from traces import RoutingTrace
from traces.importers import import_trace

TraceOption = Annotated[Path, typer.Option("--trace", help="A routing trace, in any format that `trace import` reads")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Catalogue model, for a trace file that names none")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document on stdout")]


def open_trace(path: Path, model: str | None = None) -> RoutingTrace:
    """The trace at ``path``.

    Raises:
        ForestageError: naming the file and the fault.
    """
    return import_trace(path, model=model)
