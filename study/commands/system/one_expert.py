"""``forestage system expert``: one expert by tokens, in memory, on the device, fetched, and on the host."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from catalog.errors import ForestageError
from perfmodel.expert_times import MOST_TOKENS, SHOWN, ExpertTimes, expert_times
from study.commands.options import JsonOption
from study.commands.system.options import (
    DEVICE_LINK,
    HOST_MEMORY,
    LINK,
    MACHINE,
    PIM_DRAM,
    PIM_STACKS,
    HostLatencyOption,
    HostTflopsOption,
    PimFormatOption,
    PimLatencyOption,
    PimPartialSumsOption,
    PimPseudoChannelsOption,
    PimRefreshOption,
    PimStackGbOption,
    PimTokensPerReadOption,
    configuration,
    in_memory_settings,
)
from study.numbers import seconds, size
from study.output import emit
from study.system.expert_tables import COLUMNS, cells, lost_in_words
from study.system.words import memory_in_words


def expert_command(
    model: Annotated[str, typer.Option("--model", help="Catalogue model")] = "gpt-oss-20b",
    tokens: Annotated[
        list[int] | None,
        typer.Option("--tokens", min=1, max=MOST_TOKENS, help="Tokens that chose the expert; several times"),
    ] = None,
    machine: Annotated[str, typer.Option("--machine", help=MACHINE)] = "A100-80GB",
    link_gb_per_s: Annotated[float | None, typer.Option("--link-gb-per-s", help=LINK)] = None,
    host_gb_per_s: Annotated[float | None, typer.Option("--host-gb-per-s", help=HOST_MEMORY)] = None,
    host_tflops: HostTflopsOption = None,
    host_latency_us: HostLatencyOption = None,
    pim: Annotated[
        str, typer.Option("--pim", help="Where the memory that computes is: device, or host (see `system compare`)")
    ] = "device",
    pim_dram: Annotated[str | None, typer.Option("--pim-dram", help=PIM_DRAM)] = None,
    pim_stacks: Annotated[int | None, typer.Option("--pim-stacks", help=PIM_STACKS)] = None,
    device_link_gb_per_s: Annotated[float | None, typer.Option("--device-link-gb-per-s", help=DEVICE_LINK)] = None,
    pim_stack_gb: PimStackGbOption = None,
    pim_pseudo_channels: PimPseudoChannelsOption = None,
    pim_format: PimFormatOption = None,
    pim_tokens_per_read: PimTokensPerReadOption = None,
    pim_refresh: PimRefreshOption = None,
    pim_latency_us: PimLatencyOption = None,
    pim_partial_sums: PimPartialSumsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time one expert by the number of tokens that chose it, and say from how many on it is better elsewhere."""
    asked = tuple(tokens or SHOWN)
    if len(set(asked)) < len(asked):
        raise ForestageError("--tokens: give each number once")
    config = configuration(
        {
            "machine": machine, "link_gb_per_s": link_gb_per_s, "host_gb_per_s": host_gb_per_s,
            "host_tflops": host_tflops, "host_latency_us": host_latency_us,
            "in_memory": in_memory_settings(
                pim,
                {
                    "dram": pim_dram, "stacks": pim_stacks, "device_link_gb_per_s": device_link_gb_per_s,
                    "stack_gb": pim_stack_gb, "pseudo_channels_per_expert": pim_pseudo_channels,
                    "weight_format": pim_format, "tokens_per_read": pim_tokens_per_read, "refresh": pim_refresh,
                    "latency_us": pim_latency_us, "partial_sums": pim_partial_sums,
                },
            ),
        }
    )  # fmt: skip
    result = expert_times(model, config, tokens=asked)
    emit(result, as_json=as_json, render=lambda console: _render(console, result))


def _render(console: Console, result: ExpertTimes) -> None:
    """Print a table by tokens, and from how many on another place is faster."""
    console.print(
        f"One expert of [bold]{result.model}[/bold] ({size(result.expert_bytes)}), {result.machine}, "
        f"{memory_in_words(result.in_memory)}, {result.link_gb_per_s:g} GB/s between them; a pass of "
        f"{result.tokens_per_read} token{'s' * (result.tokens_per_read > 1)} takes {seconds(result.pass_s[-1])} on "
        f"{result.pseudo_channels} pseudo-channels",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for row in result.times:
        table.add_row(*cells(row))
    console.print(table, highlight=False)
    for line in lost_in_words(result):
        console.print(line, highlight=False, soft_wrap=True)
