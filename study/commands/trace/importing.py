"""``forestage trace import``: convert a foreign file or folder."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from study.commands.opening import tell_warnings
from study.commands.options import JsonOption, check_destination
from study.commands.trace.info import describe_recording, render_recording
from study.output import Document, emit, jsonable, progress_bar
from traces import RoutingTrace
from traces.batch import BatchSchedule
from traces.batch_file import load_schedule, save_batched
from traces.importers import FORMATS, OWN_TRACE, Imported, ImportOptions, import_recording
from traces.importers.options import parse_columns, parse_layers

MODEL = "Which model, where the source does not say"
ROUTER = "How a router chooses, for router logits"
TABLE = "What a table's columns and files are"
LABELS = "Labels and provenance"


def import_command(
    source: Annotated[Path, typer.Argument(help="The file, or the folder of files, that another program recorded")],
    out: Annotated[Path, typer.Option("--out", help="The trace file to write (.safetensors)")],
    format: Annotated[
        str | None, typer.Option("--format", help=f"One of {', '.join(FORMATS)}; default: recognised by the content")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", rich_help_panel=MODEL, help="Name of the model; needed where the source names none"),
    ] = None,
    experts: Annotated[
        int | None,
        typer.Option(
            "--experts",
            rich_help_panel=MODEL,
            help="Routed experts in each layer; needed where neither source nor catalogue says",
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k",
            rich_help_panel=MODEL,
            help="Experts that a token uses in a layer; needed where the source does not say, or keeps fewer",
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            rich_help_panel=MODEL,
            help="Which of the model's layers were recorded, as 3-60 or 0,2,5-7 (first layer: 0)",
        ),
    ] = None,
    expert_map: Annotated[
        Path | None,
        typer.Option(
            "--expert-map",
            rich_help_panel=MODEL,
            help="File that maps physical experts, which the source counts, to logical ones",
        ),
    ] = None,
    gate_weights: Annotated[
        str | None,
        typer.Option(
            "--gate-weights",
            rich_help_panel=ROUTER,
            help="What the gate weights are: normalised (over the chosen experts), softmax or sigmoid (both raw)",
        ),
    ] = None,
    select: Annotated[
        str | None,
        typer.Option(
            "--select",
            rich_help_panel=ROUTER,
            help="What the router takes the top-k of: its logits, their softmax or their sigmoid",
        ),
    ] = None,
    selection_bias: Annotated[
        Path | None,
        typer.Option(
            "--selection-bias",
            rich_help_panel=ROUTER,
            help="File with the bias that the router adds before it chooses, a row for each layer; or none",
        ),
    ] = None,
    groups: Annotated[
        int | None,
        typer.Option(
            "--groups", rich_help_panel=ROUTER, help="Number of groups into which the router divides the experts"
        ),
    ] = None,
    top_groups: Annotated[
        int | None,
        typer.Option(
            "--top-groups", rich_help_panel=ROUTER, help="Number of groups from which the router chooses for a token"
        ),
    ] = None,
    phase: Annotated[
        str | None,
        typer.Option("--phase", help="Phase of all tokens, prefill or decode; needed where the source does not say"),
    ] = None,
    domain: Annotated[
        str | None, typer.Option("--domain", rich_help_panel=LABELS, help="Domain to give to sequences that have none")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            rich_help_panel=LABELS,
            help="Data set to give to sequences that have none; the split into training and test is stratified by it",
        ),
    ] = None,
    recorded_at: Annotated[
        str | None,
        typer.Option("--source", rich_help_panel=LABELS, help="Where the recording comes from; kept in the metadata"),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--licence",
            rich_help_panel=LABELS,
            help="Licence of the recording, as its SPDX identifier; kept in the metadata",
        ),
    ] = None,
    drop_constant: Annotated[
        int | None, typer.Option("--drop-constant", help="Leave out every run of at least this many identical rows")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            rich_help_panel=TABLE,
            help="What a table's column holds, as ids=expert_ids (role=column); give it once for each column",
        ),
    ] = None,
    separator: Annotated[
        str | None,
        typer.Option(
            "--separator", rich_help_panel=TABLE, help="Character between the columns of a table; default: recognised"
        ),
    ] = None,
    files: Annotated[
        str | None,
        typer.Option(
            "--files",
            rich_help_panel=TABLE,
            help="What each file of the folder holds: one sequence, one layer or one rank",
        ),
    ] = None,
    stack: Annotated[
        str | None, typer.Option("--stack", help="Which half of an encoder-decoder model to import: encoder or decoder")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Convert SOURCE to the project's own format and check all of it; what looks suspicious is printed on stderr."""
    given = {
        "model": model,
        "experts": experts,
        "top_k": top_k,
        "layers": None if layers is None else parse_layers(layers),
        "expert_map": expert_map,
        "gate_weights": gate_weights,
        "select": select,
        "selection_bias": selection_bias,
        "groups": groups,
        "top_groups": top_groups,
        "phase": phase,
        "domain": domain,
        "dataset": dataset,
        "source": recorded_at,
        "licence": licence,
        "drop_constant": drop_constant,
        "columns": parse_columns(column or ()),
        "separator": separator,
        "files": files,
        "stack": stack,
    }
    options = ImportOptions.parse_settings(given)
    check_destination(out, source)
    with progress_bar("reading") as progress:
        imported = import_recording(source, format, options, progress)
    schedule = _save(imported, source, out)
    tell_warnings(imported.warnings)
    info = describe_recording(imported.recording, out, schedule)
    document: Document = {**jsonable(info), "format": imported.format, "warnings": list(imported.warnings)}

    def render(console: Console) -> None:
        render_recording(console, str(out), info)

    emit(document, as_json=as_json, render=render)


def _save(imported: Imported, source: Path, out: Path) -> BatchSchedule | None:
    """Write what was imported, with the batch schedule of an own trace, which is returned."""
    recording = imported.recording
    if isinstance(recording, RoutingTrace) and imported.format == OWN_TRACE:
        schedule = load_schedule(source)
        if schedule is not None and np.array_equal(schedule.sequence_offsets, recording.sequence_offsets):
            save_batched(out, recording, schedule)
            return schedule
        if schedule is not None:
            tell_warnings([f"{source}: its batch schedule is of tokens left out, so it is not copied; make it again"])
    recording.save(out)
    return None
