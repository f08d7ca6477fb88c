"""Options that both commands of ``forestage system`` have, and the configuration that they give."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from catalog import load_catalog
from catalog.config import StrictModel
from perfmodel.config import SimulationConfig
from perfmodel.host import host_of
from study.commands.command import refuse_unused

MACHINE = "Name of a machine in the catalogue"
CAPACITY_FRACTION = "Share of all experts that the device holds, 0 to 1"
LINK = "Host link in place of the machine's, GB/s"
HOST_MEMORY = "Host memory's usable bandwidth in place of the machine's, GB/s; the link is no faster"
"""Helps of options that `compare` takes several times and `simulate` once."""

WITHIN_A_DRAFT = (
    "with --drafted nothing is predicted within a step, since its later tokens are routed before what the step itself "
    "routed is known"
)
"""Why a prediction is refused."""

NextUseOption = Annotated[
    Path | None, typer.Option("--next-use", help="A predictor file that `forestage predictor train-next-use` wrote")
]
PredictorOption = Annotated[
    Path | None,
    typer.Option("--predictor", help="A predictor file that `forestage predictor train` wrote, for prefetching"),
]
HostTflopsOption = Annotated[
    float | None, typer.Option("--host-tflops", help="Arithmetic of the host's processor in place of the machine's")
]
HostLatencyOption = Annotated[
    float | None, typer.Option("--host-latency-us", help="One way between device and host's processor, µs")
]
SizesOfOption = Annotated[
    str | None,
    typer.Option("--sizes-of", help="Catalogue model whose weight sizes are used; default: the trace's own model"),
]
BatchOption = Annotated[int, typer.Option("--batch", min=1, help="Sequences that are served at once")]
DraftedOption = Annotated[
    int, typer.Option("--drafted", min=1, help="Tokens of one sequence verified together (all count as accepted)")
]
TestTokensOption = Annotated[
    int | None, typer.Option("--tokens", min=1, help="Simulate the first test sequences, about so many tokens")
]

PIM_DRAM = "DRAM device of the memory that computes, with compute at its banks; default: HBM3"
PIM_STACKS = "Stacks of the memory that computes; default: 8"
DEVICE_LINK = "Link between devices, behind which --pim device lies, in place of the machine's, GB/s"
PimOption = Annotated[
    str | None,
    typer.Option(
        "--pim",
        help="All experts lie in memory that computes them: device (stacks of their own, behind the link between "
        "devices) or host (the host's memory, behind the host link); default: there is none",
    ),
]
PimStackGbOption = Annotated[
    float | None, typer.Option("--pim-stack-gb", help="Capacity of each of its stacks, GB; default: 12")
]
PimPseudoChannelsOption = Annotated[
    int | None,
    typer.Option("--pim-pseudo-channels", help="Pseudo-channels an expert is spread over; default: those of a stack"),
]
PimFormatOption = Annotated[
    str | None,
    typer.Option("--pim-format", help="Format in which it computes: bf16, int8 or mxfp4; default: the model's own"),
]
PimTokensPerReadOption = Annotated[
    int | None,
    typer.Option("--pim-tokens-per-read", help="Tokens that a read of the weights serves; default: all lanes allow"),
]
PimRefreshOption = Annotated[str | None, typer.Option("--pim-refresh", help="on or off; default: on")]
PimLatencyOption = Annotated[
    float | None, typer.Option("--pim-latency-us", help="One way between device and memory, µs; default: 1")
]
PimPartialSumsOption = Annotated[
    str | None,
    typer.Option(
        "--pim-partial-sums",
        help="Who adds the pseudo-channels' outputs: device (all cross the link) or stack (one vector of each does); "
        "default: device",
    ),
]


class Switch(StrictModel):
    """Whether the memory is refreshed, as it is typed."""

    pim_refresh: Literal["on", "off"]


def in_memory_settings(where: str | None, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Settings of `perfmodel.in_memory_config.InMemory`; ``None`` where no such memory is asked for.

    Args:
        where: of ``--pim``.
        settings: by field; what is ``None`` is left to its default; ``refresh`` as it was typed.

    Raises:
        ForestageError: for an option of a memory that is not asked for.
    """
    if where is None:
        options = ("dram", "stacks", "stack_gb", "pseudo_channels", "format", "tokens_per_read", "refresh",
                   "latency_us", "partial_sums")  # fmt: skip
        refuse_unused(
            "no memory computes; leave it out, or choose --pim device or host",
            device_link_gb_per_s="--device-link-gb-per-s",
            **{f"pim_{name}": f"--pim-{name.replace('_', '-')}" for name in options},
        )
        return None
    given = {name: value for name, value in settings.items() if value is not None}
    if "refresh" in given:
        given["refresh"] = Switch.parse_settings({"pim_refresh": given["refresh"]}).pim_refresh == "on"
    return {"where": where, **given}


def configuration(settings: dict[str, Any]) -> SimulationConfig:
    """The configuration of ``settings``; what is ``None`` is left to its default.

    Raises:
        ForestageError: for an unknown machine or a value out of range.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    config = SimulationConfig.parse_settings(given, origin="forestage system")
    load_catalog().machines.find(config.machine)
    return config


def host_computes(config: SimulationConfig) -> bool:
    """Whether the host's memory and arithmetic are known."""
    host = host_of(config, load_catalog().machines.find(config.machine))
    return host is not None and host.flops_per_s is not None


def kind_of_steps(batch: int, drafted: int, *, prompts_decoded: bool, synthetic: bool) -> str:
    """In words, what runs at once, and what a reader of the figures must know of the trace."""
    kind = f"batches of {batch}" if batch > 1 else "one request at a time"
    if drafted > 1:
        kind = f"{drafted} tokens of a sequence verified together, all accepted"
    return kind + (", prompts as if decoded" if prompts_decoded else "") + (", synthetic" if synthetic else "")
