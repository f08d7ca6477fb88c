"""``forestage rtl synthesise``: what the hardware costs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog import load_catalog
from catalog.errors import ForestageError
from catalog.files import check_writable, write_text
from study.commands.command import refuse_unused
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
from study.numbers import count
from study.output import emit, progress_bar, tell

if TYPE_CHECKING:
    from rtl.synthesis.comparison import Change
    from rtl.synthesis.figures import Synthesis
    from rtl.synthesis.sram import SramEstimate

RECORDS = Path(__file__).resolve().parents[3] / "records" / "synthesis"
"""Committed records, one for each unit and target."""


def synthesise_command(
    unit: Annotated[str, typer.Option("--unit", help="What to synthesise; an unknown name is told the nearest")],
    liberty: Annotated[
        list[Path] | None,
        typer.Option("--liberty", help="A cell library (.lib or .lib.gz) to map to; several times for one in parts"),
    ] = None,
    speed_grade: Annotated[int, typer.Option("--speed-grade", min=6, max=8, help="Of the ECP5; 8 is the fastest")] = 6,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Placements on the ECP5, of the seeds 1, 2, …; the fastest is kept")
    ] = 1,
    against: Annotated[
        Path | None, typer.Option("--against", help="Record to compare with; by default the committed one, if any")
    ] = None,
    save: Annotated[bool, typer.Option("--save", help="Write the record into records/synthesis/")] = False,
    experts_max: ExpertsMax = DEFAULTS.experts_max,
    layers_max: LayersMax = DEFAULTS.layers_max,
    top_k_max: TopKMax = DEFAULTS.top_k_max,
    candidates_max: CandidatesMax = DEFAULTS.candidates_max,
    slots_max: SlotsMax = DEFAULTS.slots_max,
    domains_max: DomainsMax = DEFAULTS.domains_max,
    as_json: JsonOption = False,
) -> None:
    """Area and speed of a unit per block: on an ECP5 FPGA, or in the cells of a library.

    No figure of cells contains wires; memories are taken out and listed as SRAM bits, with an estimate from published
    figures (forestage catalog list --kind sram).
    """
    limits = engine_limits(experts_max, layers_max, top_k_max, candidates_max, slots_max, domains_max)
    from rtl.synthesis.comparison import changes  # needs the extra, as do the next
    from rtl.synthesis.ecp5 import Options
    from rtl.synthesis.figures import read_record
    from rtl.synthesis.sram import estimate
    from rtl.synthesis.synthesise import synthesise
    from rtl.synthesis.units import is_limited

    if liberty:
        refuse_unused(
            "it is of the ECP5, not of a cell library; leave it out", speed_grade="--speed-grade", seeds="--seeds"
        )
    if not is_limited(unit):
        refuse_unused(
            f"{unit} has no such limit; leave it out",
            experts_max="--experts-max",
            layers_max="--layers-max",
            top_k_max="--top-k-max",
            candidates_max="--candidates-max",
            slots_max="--slots-max",
            domains_max="--domains-max",
        )
    before = read_record(against) if against is not None else None
    if save and not RECORDS.is_dir():
        raise ForestageError(f"--save: there is no {RECORDS}; run it in a checkout of the repository")
    with progress_bar(f"synthesis of {unit}") as progress:
        found = synthesise(unit, limits, liberty or [], progress, Options(speed_grade, seeds))
    committed = RECORDS / f"{unit}.{found.target}.json"
    origin = str(against)
    if before is None and committed.is_file():
        record = read_record(committed)
        if record.parameters == found.parameters:
            before, origin = record, str(committed)
    changed = changes(before, found, origin) if before is not None else []
    if save:
        check_writable(committed)
        write_text(committed, found.text())
        tell(f"wrote {committed}")
    sram = estimate(found, load_catalog())
    document = found.model_dump(mode="json") | {
        "sram_estimate": sram.model_dump(mode="json") if sram is not None else None,
        "compared_with": origin if before is not None else None,
        "changes": [change.model_dump(mode="json") for change in changed],
    }
    emit(
        document,
        as_json=as_json,
        render=lambda console: render_synthesis(console, found, changed, origin if before is not None else None, sram),
    )


def render_synthesis(
    console: Console,
    found: "Synthesis",
    changed: "list[Change]",
    compared: str | None,
    sram: "SramEstimate | None" = None,
) -> None:
    """Print the figures per block, the memories and what they may take, the speed, and what changed."""
    marks = {(change.total, change.block, change.figure): change for change in changed}
    figures = list(found.blocks[0].figures)
    table = Table("block", "×", box=None)
    for figure in figures:
        table.add_column(figure.replace("_um2", " (µm²)").replace("_", " "), justify="right")
    for block in found.blocks:
        cells = [shown(block.figures[figure], marks.get((False, block.name, figure))) for figure in figures]
        table.add_row(escape(block.name or f"({found.unit} itself)"), str(block.instances), *cells)
    table.add_section()
    table.add_row("sum", "", *(shown(found.total[figure], marks.get((True, "", figure))) for figure in figures))
    console.print(f"[bold]{escape(found.unit)}[/bold] on {escape(found.target)}", highlight=False)
    console.print(table, highlight=False)
    for memory in found.memories:
        kept = "as flip-flops" if memory.flip_flops else "SRAM, in no area"
        times = f"{memory.instances} × " if memory.instances > 1 else ""
        name = escape(f"{memory.block}.{memory.name}".lstrip("."))
        console.print(
            f"memory {name}: {times}{memory.depth} × {memory.width} bits, "
            f"{memory.read_ports} read and {memory.write_ports} write ports, {kept}",
            highlight=False,
            soft_wrap=True,
        )
    if found.memories:
        console.print(f"SRAM: {count(found.sram_bits)} bits", highlight=False)
    if sram is not None:
        largest = max(sram.memories, key=lambda memory: memory.area_um2)
        energy = f", {largest.access_pj} pJ an access" if largest.access_pj is not None else ""
        name = escape(f"{largest.block}.{largest.name}".lstrip("."))
        console.print(
            f"SRAM, an estimate by {sram.figures}: {count(round(sram.area_um2))} µm²; the largest, {name}: "
            f"{count(round(largest.area_um2))} µm²{energy}",
            highlight=False,
            soft_wrap=True,
        )
    if found.path is not None:
        path = f"longest path {shown(found.path.ns, marks.get((True, '', 'longest_path_ns')))} ns"
        console.print(escape(f"{path}, from {found.path.start} to {found.path.end}"), highlight=False, soft_wrap=True)
    if found.fmax_mhz is not None:
        seeds = ", ".join(f"{of_seed:.2f}" for of_seed in found.fmax_of_seeds_mhz)
        several = f", the fastest of the seeds' {seeds}" if len(found.fmax_of_seeds_mhz) > 1 else ""
        clock = shown(found.fmax_mhz, marks.get((True, "", "fmax_mhz")))
        console.print(f"clock {clock} MHz{several}", highlight=False)
    console.print(f"not counted: {escape(found.not_counted)}", highlight=False)
    if compared is not None:
        said = f"{len(changed)} figures changed" if changed else "no figure changed"
        console.print(f"against {escape(compared)}: {said}", highlight=False, soft_wrap=True)


def shown(value: float, change: "Change | None") -> str:
    """A figure, with its sign and what it was before where it changed."""
    text = f"{value:,.0f}" if value == round(value) else f"{value:,.2f}"
    if change is None:
        return text
    before = "new" if change.before is None else f"{change.before:,.10g}"
    return f"{text} {change.sign} ({before})"
