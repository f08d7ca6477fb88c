"""``forestage pim shapes``, ``roofline`` and ``timeline``: what the PIM expert unit reaches, as table and pictures."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from catalog.errors import SettingError
from pim_model.dram.devices import find_device
from pim_model.gemv.product import Kernel, unit_for
from pim_model.unit.program import gemv_program
from pim_model.unit.schedule import UnitCommand, schedule
from study.commands.options import JsonOption
from study.commands.pim_gemv import Format
from study.commands.pim_stream import DeviceOption
from study.figures.files import check_figure_path, write_figure
from study.numbers import count, counted, percent
from study.output import emit
from study.subjects.memory_expert import roofline
from study.subjects.memory_shapes import shapes_in_memory

FigureOption = Annotated[Path | None, typer.Option("--figure", help="Also draw it to this file (.svg, .pdf or .png)")]

MOST_CLOCKS = 4000
"""Of a timeline: more cannot be distinguished in a picture."""


def shapes(
    devices: Annotated[
        list[str] | None, typer.Option("--device", help="DRAM device; several times; by default all that have blocks")
    ] = None,
    pseudo_channels: Annotated[
        int, typer.Option("--pseudo-channels", min=1, help="Pseudo-channels over which rows are split")
    ] = 1,
    as_json: JsonOption = False,
) -> None:
    """Print what products of published experts' shapes reach: by device, kernel, format and tokens."""
    result: dict[str, Any] = {"shapes": shapes_in_memory(devices or None, pseudo_channels)}

    def render(console: Console) -> None:
        for name in dict.fromkeys(row["device"] for row in result["shapes"]):
            rows = [row for row in result["shapes"] if row["device"] == name]
            bound = next(row for row in rows if row["kernel"] == Kernel.PINGPONG.value)
            console.print(
                f"[bold]{name}[/bold], {counted(rows[0]['pseudo_channels'], 'pseudo-channel')}; bound of pingpong "
                f"{percent(bound['bound_fraction'])}, with refresh {percent(bound['refreshed_bound_fraction'])}",
                highlight=False,
            )
            table = Table("kernel", "format", "tokens", "matrix", box=None)
            for head in ("compute", "readout", "of limit", "refreshed"):
                table.add_column(head, justify="right")
            for row in rows:
                table.add_row(
                    row["kernel"],
                    row["format"],
                    str(row["tokens"]),
                    f"{row['out_features']} × {row['in_features']}",
                    count(row["compute_cycles"]),
                    count(row["readout_cycles"]),
                    percent(row["fraction_of_limit"], 2),
                    percent(row["refreshed_mean_fraction"], 2),
                )
            console.print(table, highlight=False)

    emit(result, as_json=as_json, render=render)


def roofline_command(
    model: Annotated[str, typer.Option("--model", help="Catalogue model whose expert runs")] = "gpt-oss-20b",
    devices: Annotated[
        list[str] | None, typer.Option("--device", help="DRAM device, a picture each; several times")
    ] = None,
    figure: FigureOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the rates of one expert over operations per byte, beside the limits of pins, banks and lanes."""
    if figure is not None:
        check_figure_path(figure)
    stacks = [roofline(model, name) for name in devices or ["HBM2-PIM", "HBM3"]]
    if figure is not None:
        from study.figures import pim  # takes half a second

        write_figure(pim.roofline(stacks), figure)

    def render(console: Console) -> None:
        table = Table("device", "format", "tokens", "weight reads", "operations/byte", "10⁹ operations/s", box=None)
        for stack in stacks:
            for point in stack["points"]:
                table.add_row(
                    stack["device"],
                    point["format"],
                    str(point["tokens"]),
                    str(point["weight_reads"]),
                    f"{point['operations_per_byte']:.2f}",
                    f"{point['gop_per_s']:.0f}",
                )
        console.print(table, highlight=False)

    emit({"stacks": stacks}, as_json=as_json, render=render)


def timeline(
    out_features: Annotated[int, typer.Option("--out-features", help="Rows of the matrix")] = 128,
    in_features: Annotated[int, typer.Option("--in-features", help="Columns of the matrix")] = 256,
    device: DeviceOption = "HBM2-PIM",
    weight_format: Annotated[Format, typer.Option("--format", help="Format of the weights")] = Format.BF16,
    tokens: Annotated[int, typer.Option("--tokens", help="Vectors of one read of the weights")] = 2,
    refresh_in: Annotated[
        int | None, typer.Option("--refresh-in", min=0, help="Clock in which the first refresh is due; else none is")
    ] = None,
    figure: FigureOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the commands of a product in one pseudo-channel, clock by clock, and draw them by bank."""
    if figure is not None:
        check_figure_path(figure)
    unit = unit_for(find_device(device), in_features, 1, 0)
    program = gemv_program(unit, out_features, in_features, weight_format.weights, tokens=tokens)
    result = schedule(program, unit, refresh_in_ck=refresh_in)
    if figure is not None:
        if result.done_ck > MOST_CLOCKS:
            raise SettingError(
                "figure", f"the product takes {result.done_ck} clocks; a picture shows {MOST_CLOCKS}: take fewer rows"
            )
        from study.figures import pim  # takes half a second

        title = f"{out_features} × {in_features}, {weight_format.value.upper()}, {tokens} tokens, {device}"
        write_figure(pim.timeline(result, unit, title), figure)
    rows = zip(result.clock_ck, result.command, result.half, result.block, result.number, strict=True)
    commands = [
        {
            "clock": int(clock),
            "command": UnitCommand(command).name,
            "half": None if half < 0 else int(half),
            "block": None if block < 0 else int(block),
            "number": int(number),
        }
        for clock, command, half, block, number in rows
    ]

    def render(console: Console) -> None:
        table = Table("clock", "command", "half", "block", "number", box=None)
        for row in commands:
            table.add_row(*("" if value is None else str(value) for value in row.values()))
        console.print(table, highlight=False)

    emit(
        {"compute_cycles": result.compute_ck, "readout_cycles": result.readout_ck, "commands": commands},
        as_json=as_json,
        render=render,
    )
