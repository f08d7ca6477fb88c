"""Options that several commands take."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from catalog.errors import ForestageError
from study.synthetic import tell_fit
from traces import RoutingTrace, split
from traces.files import check_writable
from traces.importers import Imported, ImportOptions, import_recording
from traces.load import REFUSAL, ExpertLoad

TraceOption = Annotated[Path, typer.Option("--trace", help="A routing trace, in any format that `trace import` reads")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Catalogue model, for a trace file that names none")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document on stdout")]


def open_recording(path: Path, model: str | None = None) -> RoutingTrace | ExpertLoad:
    """The trace, or the loads, at ``path``; what is suspicious is told on stderr.

    Raises:
        ForestageError: naming the file and the fault.
    """
    imported = _import(path, model)
    tell_warnings(imported.warnings)
    if isinstance(imported.recording, RoutingTrace):
        tell_fit(imported.recording.metadata)
    return imported.recording


def open_trace(path: Path, model: str | None = None) -> RoutingTrace:
    """The trace at ``path``; as ``open_recording``.

    Raises:
        ForestageError: naming the file and the fault; also for a file of loads, which say nothing of single tokens.
    """
    imported = _import(path, model)
    if isinstance(imported.recording, ExpertLoad):
        raise ForestageError(f"{path}: {REFUSAL}")
    tell_warnings(imported.warnings)
    tell_fit(imported.recording.metadata)
    return imported.recording


def _import(path: Path, model: str | None) -> Imported:
    """What is at ``path``."""
    return import_recording(path, options=ImportOptions.parse({"model": model}, origin="--model"))


def tell_warnings(warnings: Iterable[str]) -> None:
    """Print each on a line of its own on stderr."""
    for warning in warnings:
        print(f"forestage: warning: {warning}", file=sys.stderr)


def require_test_sequences(trace: RoutingTrace, path: Path) -> None:
    """Raise unless the split of ``trace``, read from ``path``, leaves something to test on.

    Raises:
        ForestageError: naming the file.
    """
    if not len(split(trace)[1]):
        raise ForestageError(f"{path}: no test sequences: a fifth of a dataset's; give a trace of more sequences")


def check_destination(path: Path, source: Path | None = None) -> None:
    """Raise before long work whose result could not be written to ``path``, or would take the place of ``source``.

    Raises:
        ForestageError: naming the path.
    """
    if source is not None and source.exists() and path.exists() and path.samefile(source):
        raise ForestageError(f"--out {path}: is the source, which would be lost; name another file")
    check_writable(path)


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
