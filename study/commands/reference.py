"""``forestage reference``: replay recorded routing in PyTorch, and measure a machine."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from catalog import load_catalog
from gpu_reference.devices import check_device, default_device
from study.commands.opening import open_trace
from study.commands.options import JsonOption, ModelOption, TraceOption, check_destination
from study.numbers import count, percent, seconds
from study.output import emit, progress_bar
from study.subjects.reference import check_reference

app = typer.Typer()


@app.command("check")
def check_command(trace: TraceOption, model: ModelOption = None, as_json: JsonOption = False) -> None:
    """Replay every layer's routing in PyTorch; the shipped trace is also checked against the shipped model."""
    recorded = open_trace(trace, model)
    with progress_bar("PyTorch reference") as progress:
        result = check_reference(recorded, progress)

    def render(console: Console) -> None:
        table = Table("layer of the trace", "tokens", "experts", "relative error", "tokens/s", box=None)
        for replay in result["replays"]:
            table.add_row(
                str(replay["layer"]),
                count(replay["tokens"]),
                replay["experts"],
                f"{replay['relative_error']:.1e}",
                count(round(replay["tokens_per_s"])),
            )
        console.print(table, highlight=False)
        table = Table("layer of the shipped model", "same experts", "relative error", box=None)
        for check in result["checks"]:
            table.add_row(str(check["layer"]), percent(check["same_experts"], 2), f"{check['relative_error']:.1e}")
        console.print(table, highlight=False)

    emit(result, as_json=as_json, render=render)


@app.command("measure")
def measure_command(
    out: Annotated[Path, typer.Option("--out", help="The record to write (.json)")],
    model: Annotated[str, typer.Option("--model", help="Catalogue model whose expert is measured")] = "gpt-oss-20b",
    device: Annotated[str | None, typer.Option("--device", help="cpu or cuda; default: cuda if there is one")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how long an expert's copy to the device and its matrix products take, and write a record."""
    record = load_catalog().find_model(model)
    check_destination(out)
    from gpu_reference.measure import measure_expert  # needs the extra

    where = device or default_device()
    check_device(where)
    command = f"forestage reference measure --model {record.name} --device {where} --out RECORD"
    with progress_bar("measuring") as progress:
        measured = measure_expert(record, command=command, device=where, progress=progress)
    measured.save(out)

    def render(console: Console) -> None:
        table = Table("figure", "minimum", "median", "maximum", box=None)
        for figure in measured.figures:
            table.add_row(figure.name, seconds(figure.minimum), seconds(figure.median), seconds(figure.maximum))
        console.print(table, highlight=False)

    emit(measured, as_json=as_json, render=render)
