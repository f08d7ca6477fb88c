"""Options that both commands of ``forestage system`` have, and the configuration that they give."""

from pathlib import Path
from typing import Annotated, Any

import typer

from catalog import load_catalog
from perfmodel.config import SimulationConfig
from perfmodel.host import host_of

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
