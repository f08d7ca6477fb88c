"""``forestage pim``: compare the PIM unit with its twins and PyTorch; stream from memory."""

import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from gpu_reference.files import SHIPPED_TRACE
from study.commands.options import JsonOption
from study.commands.pim_gemv import Format, expert, gemv
from study.commands.pim_pictures import roofline_command, shapes, timeline
from study.commands.pim_stream import stream_command
from study.numbers import count, counted, size
from study.output import emit, progress_bar
from study.subjects.memory import stream_expert
from study.subjects.unit import LAYER, TOKENS, check_unit
from traces import RoutingTrace

app = typer.Typer()
app.command("stream")(stream_command)
app.command("gemv")(gemv)
app.command("expert")(expert)
app.command("shapes")(shapes)
app.command("roofline")(roofline_command)
app.command("timeline")(timeline)


@app.command("check")
def check_command(
    layer: Annotated[
        int, typer.Option("--layer", help="MoE layer of the shipped checkpoint whose most used expert runs")
    ] = LAYER,
    tokens: Annotated[
        int, typer.Option("--tokens", min=1, help="Tokens to run, of those that chose the expert")
    ] = TOKENS,
    weight_formats: Annotated[
        list[Format] | None, typer.Option("--format", help="Format of the weights; repeat for several; default: all")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the simulator")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Run a layer's most used expert in the unit under Verilator, in its twins and in PyTorch.

    Exit status 1 if anything differs, a timing rule is broken, or BF16 is further from float64 than 2^-7.
    """
    with progress_bar("PIM unit") as progress:
        result = check_unit(
            RoutingTrace.load(SHIPPED_TRACE),
            layer=layer,
            tokens=tokens,
            formats=[wanted.weights for wanted in dict.fromkeys(weight_formats or Format)],
            seed=seed,
            progress=progress,
        )

    def render(console: Console) -> None:
        console.print(
            f"Expert {result['expert']} of layer {layer}, {result['hidden']} × {result['intermediate']}, "
            f"{counted(tokens, 'token')}, {result['device']}",
            highlight=False,
        )
        table = Table("", *(check["format"] for check in result["formats"]), box=None)
        for name in result["formats"][0]:
            if name not in ("format", "counters"):
                table.add_row(name.replace("_", " "), *(_shown(check[name]) for check in result["formats"]))
        for name in result["formats"][0]["counters"]:
            table.add_row(
                f"counter {name.lower().replace('_', ' ')}", *(count(c["counters"][name]) for c in result["formats"])
            )
        console.print(table, highlight=False)

    emit(result, as_json=as_json, render=render)
    if not result["agrees"]:
        sys.exit(1)


def _shown(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


@app.command("expert-stream")
def expert_stream_command(
    model: Annotated[str, typer.Option("--model", help="Catalogue model")] = "gpt-oss-20b",
    as_json: JsonOption = False,
) -> None:
    """Print the cycles, rate and energy of streaming one expert's weights from one stack of each memory device."""
    result = stream_expert(model)

    def render(console: Console) -> None:
        console.print(f"One expert of [bold]{model}[/bold]: {size(result['expert_bytes'])}", highlight=False)
        table = Table("device", "read", "cycles", "time", "rate", "energy", box=None)
        for s in result["streams"]:
            table.add_row(
                s["device"],
                s["access"],
                count(s["cycles_ck"]),
                f"{1e6 * s['time_s']:.1f} µs",
                f"{s['gb_per_s']:.0f} GB/s",
                f"{1e3 * s['energy_j']:.2f} mJ",
            )
        console.print(table, highlight=False)

    emit(result, as_json=as_json, render=render)
