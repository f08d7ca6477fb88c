"""Limits of the engines, as options of several commands."""

from typing import Annotated

import typer

from predictor.st_moe.parameters import EngineLimits

DEFAULTS = EngineLimits()
"""Of the engine of ST-MoE's tables."""

EXPERTS = "Most experts in a layer that the engine can serve (a power of two)"
LAYERS = "Most MoE layers that the engine can serve"
TOP_K = "Most experts that a token can use in a layer (top-k)"
CANDIDATES = "Most candidates in a row of ST-MoE's tables"
SLOTS = "Most sequences that run at once"
DOMAINS = "Most domains with tables of their own (1, 2, 4 or 8 table banks)"

ExpertsMax = Annotated[int, typer.Option("--experts-max", help=EXPERTS)]
LayersMax = Annotated[int, typer.Option("--layers-max", help=LAYERS)]
TopKMax = Annotated[int, typer.Option("--top-k-max", help=TOP_K)]
CandidatesMax = Annotated[int, typer.Option("--candidates-max", help=CANDIDATES)]
SlotsMax = Annotated[int, typer.Option("--slots-max", help=SLOTS)]
DomainsMax = Annotated[int, typer.Option("--domains-max", help=DOMAINS)]

OPTIONS = {
    "experts_max": "--experts-max",
    "layers_max": "--layers-max",
    "top_k_max": "--top-k-max",
    "candidates_max": "--candidates-max",
    "slots_max": "--slots-max",
    "domains_max": "--domains-max",
}
"""Parameter → option, of the limits that both engines have."""


def engine_limits(
    experts_max: int, layers_max: int, top_k_max: int, candidates_max: int, slots_max: int, domains_max: int
) -> EngineLimits:
    """The limits of the engine of ST-MoE's tables from the options.

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
