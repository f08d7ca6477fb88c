"""``forestage trace export``: write a recording for other simulators and servers to read."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from catalog.files import bytes_at
from study.commands.opening import open_recording, tell_warnings
from study.commands.options import JsonOption, ModelOption, check_destination
from study.commands.trace.info import schedule_in
from study.commands.trace.labels import TraceArgument
from study.numbers import size
from study.output import emit, progress_bar
from traces import RoutingTrace
from traces.exporters import FORMATS, ExportOptions, check_export, export_recording, find_exporter

FORMAT_HELP = "; ".join(f"{name}: {exporter.description}" for name, exporter in FORMATS.items())


def export_command(
    trace: TraceArgument,
    format: Annotated[str, typer.Option("--format", help=FORMAT_HELP)],
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="The file to write; where a format can be written in several ways, the ending selects one"
        ),
    ],
    ids: Annotated[
        str | None,
        typer.Option(
            "--ids", help="Expert ids of a table: list (all in one column) or wide (a column for each); default: list"
        ),
    ] = None,
    model_layers: Annotated[
        int | None,
        typer.Option(
            "--model-layers",
            help="All layers of the model, dense ones included; needed where the catalogue does not know it",
        ),
    ] = None,
    devices: Annotated[
        int | None, typer.Option("--devices", help="For a placement: number of devices that hold experts")
    ] = None,
    redundant: Annotated[
        int | None,
        typer.Option("--redundant", help="For a placement: replicas in each layer, beyond one copy of every expert"),
    ] = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write TRACE, or expert loads, in another program's format; what that cannot hold is refused or told on stderr."""
    given = {"ids": ids, "model_layers": model_layers, "devices": devices, "redundant": redundant}
    options = ExportOptions.parse_settings(given)
    find_exporter(format, out, options)
    check_destination(out, trace)
    recording = open_recording(trace, model)
    schedule = schedule_in(trace) if isinstance(recording, RoutingTrace) else None
    exporter, source = check_export(recording, format, out, options, schedule=schedule)
    with progress_bar("writing") as progress:
        exported = export_recording(recording, format, out, options, schedule=schedule, progress=progress)
    tell_warnings([exported.warning] if exported.warning else [])
    reader = None if exporter.reader is None else exporter.reader(source, out, options)
    document: dict[str, Any] = {
        "format": format,
        "model": recording.metadata.model,
        "synthetic": recording.metadata.synthetic,
        "files": [{"path": str(file), "bytes": bytes_at(file)} for file in exported.files],
        "lost": list(exported.lost),
        "read_back": None if reader is None else f"forestage trace import {shlex.join((str(out), *reader))}",
    }
    emit(document, as_json=as_json, render=lambda console: render(console, document))


def render(console: Console, document: dict[str, Any]) -> None:
    """Print the files, and the command that reads them back."""
    for file in document["files"]:
        console.print(f"written: {escape(file['path'])} ({size(file['bytes'])})", highlight=False, soft_wrap=True)
    if document["read_back"] is not None:
        console.print(f"to read it back: {escape(document['read_back'])} --out TRACE", highlight=False, soft_wrap=True)
