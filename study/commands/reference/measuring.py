"""``forestage reference measure``: measure a machine, and write a record."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from catalog import load_catalog
from gpu_reference.devices import check_device, default_device
from study.commands.options import JsonOption, check_destination
from study.numbers import seconds
from study.output import emit, progress_bar


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
