"""``forestage pim gemv`` and ``forestage pim expert``: products and whole experts in memory."""

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pim_model.dram.devices import find_device
from pim_model.energy import DEFAULT_ENERGY
from pim_model.gemv.product import Kernel, product
from pim_model.unit.program import WeightFormat
from study.commands.options import JsonOption
from study.commands.pim_stream import DeviceOption, RefreshOption, Switch
from study.numbers import count, counted, percent, seconds, size
from study.output import emit
from study.subjects.memory_expert import expert_in_memory


class Format(StrEnum):
    """Formats of weights, as they are typed."""

    BF16 = "bf16"
    INT8 = "int8"
    MXFP4 = "mxfp4"

    @property
    def weights(self) -> WeightFormat:
        """The unit's format."""
        return WeightFormat[self.name]


def gemv(
    out_features: Annotated[int, typer.Option("--out-features", help="Rows of the matrix")],
    in_features: Annotated[int, typer.Option("--in-features", help="Columns of the matrix")],
    device: DeviceOption = "HBM2-PIM",
    kernel: Annotated[
        Kernel, typer.Option("--kernel", help="samsung: the published part's; pingpong: this project's unit")
    ] = Kernel.PINGPONG,
    pseudo_channels: Annotated[
        int, typer.Option("--pseudo-channels", help="Pseudo-channels of one stack over which the rows are split")
    ] = 1,
    weight_format: Annotated[Format, typer.Option("--format", help="Format of the weights")] = Format.BF16,
    tokens: Annotated[int, typer.Option("--tokens", help="Vectors that are multiplied with the matrix")] = 1,
    refresh: RefreshOption = Switch.ON,
    as_json: JsonOption = False,
) -> None:
    """Print the clocks of a matrix-vector product in memory, and the share of the blocks' limit that it reaches."""
    result = product(
        find_device(device),
        kernel,
        out_features=out_features,
        in_features=in_features,
        pseudo_channels=pseudo_channels,
        weight_format=weight_format.weights,
        tokens=tokens,
        refresh=refresh is Switch.ON,
    )

    def render(console: Console) -> None:
        table = Table(box=None, show_header=False)
        for name, value in asdict(result).items():
            text = percent(value, 2) if "fraction" in name else count(value) if type(value) is int else str(value)
            table.add_row(name.replace("_", " "), text)
        console.print(table, highlight=False)

    emit(asdict(result), as_json=as_json, render=render)


def expert(
    model: Annotated[str, typer.Option("--model", help="Catalogue model")] = "gpt-oss-20b",
    device: DeviceOption = "HBM2-PIM",
    weight_format: Annotated[
        Format | None, typer.Option("--format", help="Format of the weights; by default the model's")
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", help="Tokens that chose the expert")] = 1,
    refresh: RefreshOption = Switch.ON,
    energy: Annotated[str, typer.Option("--energy", help="Energy set of the catalogue")] = DEFAULT_ENERGY,
    as_json: JsonOption = False,
) -> None:
    """Print what one expert costs in one memory stack, over its pins to the device, and on the host's processor."""
    result = expert_in_memory(
        model,
        device,
        None if weight_format is None else weight_format.weights,
        tokens,
        refresh=refresh is Switch.ON,
        energy=energy,
    )

    def render(console: Console) -> None:
        _render_expert(result, console)

    emit(result, as_json=as_json, render=render)


def _render_expert(result: dict[str, Any], console: Console) -> None:
    memory = result["in_memory"]
    console.print(
        f"One expert of [bold]{result['model']}[/bold] in {result['format']} ({size(result['weight_bytes'])}), "
        f"{result['tokens']} token{'' if result['tokens'] == 1 else 's'}, one stack of {result['device']}",
        highlight=False,
    )
    table = Table("", "time", "reads weights at", "energy", box=None)
    for row in (memory, memory["bound"], result["over_pins"], result["over_pins"]["bound"], *result["host"]):
        energy = row.get("energy_j")
        table.add_row(
            row["name"],
            seconds(row["time_s"]),
            f"{row['gb_per_s']:.0f} GB/s",
            "–" if energy is None else f"{1e3 * energy:.3f} mJ",
        )
    console.print(table, highlight=False)
    reads = counted(memory["weight_reads"], "time")
    parts = ", ".join(f"{part} {count(memory[f'{part}_cycles'])}" for part in ("input", "compute", "readout", "output"))
    console.print(
        f"In memory, clocks: {parts}; {percent(memory['fraction_of_limit'])} of the blocks' limit (no order of "
        f"commands exceeds {percent(memory['bound_fraction'])}); weights read {reads}.",
        highlight=False,
    )
    lost = result["slower_than_pins_from_tokens"]
    console.print(
        "Reading the weights over the pins is faster "
        + (f"from {lost} tokens on." if lost else f"at no number of tokens up to {result['tokens_searched']}."),
        highlight=False,
    )
