"""``forestage pim stream``: reads of a pattern from one pseudo-channel, scheduled command by command."""

from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pim_model.dram.controller import QUEUE
from pim_model.dram.devices import find_device
from pim_model.dram.patterns import ROWS, Pattern, PatternStream, stream_pattern
from study.commands.options import JsonOption
from study.numbers import count, percent
from study.output import emit

DeviceOption = Annotated[
    str, typer.Option("--device", help="DRAM device of the catalogue, or a .toml file with one [[dram]]")
]


class Switch(StrEnum):
    """On or off."""

    ON = "on"
    OFF = "off"


RefreshOption = Annotated[Switch, typer.Option("--refresh", help="Whether all banks are refreshed every tREFI")]

BANK_ORDER = {
    Pattern.SEQUENTIAL: "bank groups in turn; the next bank of every group after a row; then the next stack ID",
    Pattern.BANK_GROUP: "the banks of group 0 in turn",
    Pattern.ONE_BANK: "bank 0",
    Pattern.CONFLICT: "bank 0",
    Pattern.RANDOM: "uniform",
    Pattern.ROTATE: "bank groups in turn; the next bank of every group after a round; then the next stack ID",
}
"""Which bank the next read goes to, for the reader."""


def stream_command(
    device: DeviceOption,
    pattern: Annotated[Pattern, typer.Option("--pattern", help="Where consecutive reads go")] = Pattern.SEQUENTIAL,
    size_bytes: Annotated[int, typer.Option("--bytes", help="Bytes to read from one pseudo-channel")] = 1_000_000,
    refresh: RefreshOption = Switch.ON,
    queue: Annotated[int, typer.Option("--queue", min=1, max=4096, help="Requests that the controller holds")] = QUEUE,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the random pattern")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Count the cycles in which an open-page FR-FCFS controller reads a pattern from one pseudo-channel."""
    record = find_device(device)
    result = stream_pattern(record, pattern, size_bytes, refresh=refresh is Switch.ON, queue=queue, seed=seed)

    def render(console: Console) -> None:
        table = Table(box=None, show_header=False)
        for name, value in (
            ("device, pattern", f"{result.device}, {result.pattern.value}: {BANK_ORDER[result.pattern]}"),
            ("refresh", refresh.value),
            ("reads", count(result.reads)),
            ("cycles", count(result.cycles_ck)),
            ("cycles a read", f"{result.cycles_per_read:.3f}"),
            ("of peak", percent(result.fraction_of_peak)),
            ("rate", f"{result.gb_per_s:.2f} GB/s"),
        ):
            table.add_row(name, value)
        console.print(table, highlight=False)

    emit(_document(result), as_json=as_json, render=render)


def _document(result: PatternStream) -> dict[str, Any]:
    return {
        "device": result.device,
        "pattern": result.pattern.value,
        "bank_order": BANK_ORDER[result.pattern],
        "rows": ROWS,
        "bytes": result.size_bytes,
        "refresh": (Switch.ON if result.refresh else Switch.OFF).value,
        "queue": result.queue,
        "seed": result.seed,
        "pseudo_channels": 1,
        "reads": result.reads,
        "cycles": result.cycles_ck,
        "cycles_per_read": result.cycles_per_read,
        "fraction_of_peak": result.fraction_of_peak,
        "gb_per_s": result.gb_per_s,
        "time_ns": result.cycles_ck * result.tck_ns,
        "activations": result.activations,
        "refreshes": result.refreshes,
    }
