"""Options that several commands take."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from catalog.errors import ForestageError
from traces import RoutingTrace, split
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


def require_test_sequences(trace: RoutingTrace, path: Path) -> None:
    """Raise unless the split of ``trace``, read from ``path``, leaves something to test on.

    Raises:
        ForestageError: naming the file.
    """
    if not len(split(trace)[1]):
        raise ForestageError(f"{path}: no test sequences: a fifth of a dataset's; give a trace of more sequences")


def parse_parameters(settings: list[str]) -> dict[str, Any]:
    """``name=value`` texts as a dictionary; values are JSON where they parse as such, else text.

    Raises:
        ForestageError: for a text without ``=``.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator or not name:
            raise ForestageError(f"--set {setting}: write name=value")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values
