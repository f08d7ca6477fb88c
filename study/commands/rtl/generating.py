"""``forestage rtl generate``: write the hardware's Verilog."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from catalog.files import check_folder
from study.commands.options import JsonOption
from study.commands.rtl.limits import (
    DEFAULTS,
    CandidatesMax,
    DomainsMax,
    ExpertsMax,
    LayersMax,
    SlotsMax,
    TopKMax,
    engine_limits,
)
from study.numbers import size
from study.output import emit


def generate_command(
    out: Annotated[Path, typer.Option("--out", help="Folder for the Verilog and SystemRDL files")],
    experts_max: ExpertsMax = DEFAULTS.experts_max,
    layers_max: LayersMax = DEFAULTS.layers_max,
    top_k_max: TopKMax = DEFAULTS.top_k_max,
    candidates_max: CandidatesMax = DEFAULTS.candidates_max,
    slots_max: SlotsMax = DEFAULTS.slots_max,
    domains_max: DomainsMax = DEFAULTS.domains_max,
    as_json: JsonOption = False,
) -> None:
    """Write the Verilog of every top module, and SystemRDL of the registers."""
    limits = engine_limits(experts_max, layers_max, top_k_max, candidates_max, slots_max, domains_max)
    check_folder(out)
    from rtl.generate import generate  # needs the extra

    paths = generate(out, limits)
    document = {"limits": limits.model_dump(mode="json"), "files": {str(p): p.stat().st_size for p in paths}}

    def render(console: Console) -> None:
        for path in paths:
            console.print(f"{path}  {size(path.stat().st_size)}", highlight=False, markup=False, soft_wrap=True)

    emit(document, as_json=as_json, render=render)
