"""``forestage rtl generate``: write the hardware's Verilog."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from catalog.config import StrictModel
from catalog.files import check_folder
from predictor.engine.limits import PrefetchEngineLimits
from predictor.st_moe.parameters import EngineLimits
from study.commands.command import refuse_unused
from study.commands.options import JsonOption
from study.commands.rtl.limits import CANDIDATES, DOMAINS, EXPERTS, LAYERS, OPTIONS, SLOTS, TOP_K
from study.numbers import size
from study.output import emit, progress_bar

WHOLE_OPTIONS = {"places": "--places", "lanes": "--lanes", "no_nets": "--no-nets"}
"""Parameter → option, of the whole engine alone."""


def generate_command(
    out: Annotated[Path, typer.Option("--out", help="Folder for the Verilog and SystemRDL files")],
    unit: Annotated[
        str, typer.Option("--unit", help="prefetch-engine (the whole one), table-engine (ST-MoE's alone) or pim-unit")
    ] = "prefetch-engine",
    experts_max: Annotated[int | None, typer.Option("--experts-max", help=EXPERTS)] = None,
    layers_max: Annotated[int | None, typer.Option("--layers-max", help=LAYERS)] = None,
    top_k_max: Annotated[int | None, typer.Option("--top-k-max", help=TOP_K)] = None,
    candidates_max: Annotated[int | None, typer.Option("--candidates-max", help=CANDIDATES)] = None,
    slots_max: Annotated[int | None, typer.Option("--slots-max", help=SLOTS)] = None,
    domains_max: Annotated[int | None, typer.Option("--domains-max", help=DOMAINS)] = None,
    places: Annotated[
        int | None,
        typer.Option("--places", help="Experts that the staging buffer can hold, over all layers; default: 8 a layer"),
    ] = None,
    lanes: Annotated[
        int | None, typer.Option("--lanes", help="Multipliers of the net (64, 128, …); more are faster and larger")
    ] = None,
    no_nets: Annotated[
        bool, typer.Option("--no-nets", help="Leave out the net and the memory of the text: no learned predictors")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a unit's Verilog, and SystemRDL of its registers: the whole prefetch engine, unless --unit says otherwise.

    An engine with nets takes a minute or two. What no option says is as by default: of the whole engine 24 layers of
    32 experts, top-4, 8 slots, 128 lanes; of the tables 32 layers of 64 experts, top-8.
    """
    shape = {
        "experts_max": experts_max, "layers_max": layers_max, "top_k_max": top_k_max,
        "candidates_max": candidates_max, "slots_max": slots_max, "domains_max": domains_max,
    }  # fmt: skip
    given = {name: value for name, value in shape.items() if value is not None}
    check_folder(out)
    from rtl.generate import generate, top_module  # needs the extra, as does the next
    from rtl.prefetch.limits import sized_engine

    of = top_module(unit)
    limits: StrictModel
    if of.defaults is PrefetchEngineLimits:
        if no_nets:
            refuse_unused("without nets there are none; leave it out", lanes="--lanes")
        given |= {} if places is None else {"places": places}
        limits = sized_engine(given, lanes=lanes, learned=not no_nets)
    else:
        refuse_unused(f"{unit} has no such limit; leave it out", **WHOLE_OPTIONS)
        if of.defaults is EngineLimits:
            limits = EngineLimits.parse_settings(given, origin="forestage rtl")
        else:
            refuse_unused(f"{unit} has no such limit; leave it out", **OPTIONS)
            limits = of.defaults()
    with progress_bar(f"Verilog of {unit}") as progress:
        paths = generate(out, unit, limits, progress)
    document = {
        "unit": unit,
        "limits": limits.model_dump(mode="json"),
        "files": {str(path): path.stat().st_size for path in paths},
    }

    def render(console: Console) -> None:
        for path in paths:
            console.print(f"{path}  {size(path.stat().st_size)}", highlight=False, markup=False, soft_wrap=True)

    emit(document, as_json=as_json, render=render)
