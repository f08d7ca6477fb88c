"""The prefetch engine's limits, as options of several commands."""

from typing import Annotated

import typer

from predictor.st_moe.parameters import EngineLimits

DEFAULTS = EngineLimits()

ExpertsMax = Annotated[
    int, typer.Option("--experts-max", help="Most experts in a layer that the engine can serve (a power of two)")
]
LayersMax = Annotated[int, typer.Option("--layers-max", help="Most MoE layers that the engine can serve")]
TopKMax = Annotated[int, typer.Option("--top-k-max", help="Most experts that a token can use in a layer (top-k)")]
CandidatesMax = Annotated[int, typer.Option("--candidates-max", help="Most candidates in a row of ST-MoE's tables")]
SlotsMax = Annotated[int, typer.Option("--slots-max", help="Most sequences that run at once")]
DomainsMax = Annotated[
    int, typer.Option("--domains-max", help="Most domains with tables of their own (1, 2, 4 or 8 table banks)")
]


def engine_limits(
    experts_max: int, layers_max: int, top_k_max: int, candidates_max: int, slots_max: int, domains_max: int
) -> EngineLimits:
    """The engine's limits from the options.

    Raises:
        ForestageError: naming the option that is out of range.
    """
    values = {
        "experts_max": experts_max,
        "layers_max": layers_max,
        "top_k_max": top_k_max,
        "candidates_max": candidates_max,
        "slots_max": slots_max,
        "domains_max": domains_max,
    }
    return EngineLimits.parse_settings(values, origin="forestage rtl")
