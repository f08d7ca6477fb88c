"""``forestage rtl energy``: what the prefetch engine's decisions take, by toggle counts."""

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog.errors import ForestageError
from predictor.engine.settings import Mode
from study.commands.opening import open_trace, require_test_sequences
from study.commands.options import JsonOption, ModelOption, TraceOption
from study.commands.rtl.heads import NextLayerOption, NextUseOption, load_heads, parse_mode
from study.commands.rtl.synthesising import RECORDS
from study.numbers import count
from study.output import emit, progress_bar, tell

if TYPE_CHECKING:
    from rtl.synthesis.energy import Energy
    from study.engine.energy import EngineEnergy


def energy_command(
    trace: TraceOption,
    liberty: Annotated[
        list[Path],
        typer.Option("--liberty", help="The cell library of the records in records/synthesis; several times for parts"),
    ],
    mode: Annotated[str, typer.Option("--mode", help="Who predicts: learned, tables or off")] = "learned",
    predictor: NextLayerOption = None,
    next_use: NextUseOption = None,
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Tokens of the test sequences to run")] = 12,
    clock_ghz: Annotated[float, typer.Option("--clock-ghz", min=0.001, help="Clock that is assumed")] = 1.0,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate a decision's energy: toggle counts of a lock-step run, the records' areas, a library's capacitances.

    The engine is that of the records in records/synthesis, with its default limits. Exit status 1 if it and its twin
    differ. It has no wires, clock tree or glitches.
    """
    chosen = parse_mode(mode)
    if chosen is not Mode.LEARNED and (predictor or next_use):
        raise ForestageError(f"--mode {mode}: --predictor and --next-use are of mode learned; leave them out")
    if chosen is Mode.LEARNED and not (predictor or next_use):
        raise ForestageError("mode learned: no predictor is given; give --predictor, --next-use or both")
    recorded = open_trace(trace, model)
    require_test_sequences(recorded, trace)
    from cocotb_tests.build import require_tools  # needs the extra, as do the next
    from cocotb_tests.prefetch_engine.trace_replay import ReplayConfig, replay_trace
    from rtl.synthesis.cell_energy import cell_energy
    from rtl.synthesis.liberty import read_libraries
    from study.engine.energy import energy_of_run, recorded_engine, require_records

    require_tools()
    limits = recorded_engine(recorded, str(trace))
    next_layer, values = load_heads(recorded, predictor, next_use)
    with tempfile.TemporaryDirectory(prefix="forestage-energy-") as temporary:
        folder = Path(temporary)
        library = read_libraries(liberty, folder)
        require_records(library.target, RECORDS)
        cells = cell_energy(library)
        with progress_bar("lock-step run") as progress:
            run = replay_trace(
                recorded,
                tokens,
                ReplayConfig(mode=chosen),
                next_layer=next_layer,
                next_use=values,
                progress=progress,
                activity=folder,
                limits=limits,
            )
        if run.mismatches:
            tell(f"{run.mismatches} differences between hardware and twin, so no energy: {run.first_mismatch}")
            sys.exit(1)
        found = energy_of_run(run, folder, cells, library.target, RECORDS, clock_ghz=clock_ghz)
    emit(found, as_json=as_json, render=lambda console: render_energy(console, trace.name, found))


def render_energy(console: Console, name: str, found: "EngineEnergy") -> None:
    """Print the energies by part, and the powers."""
    console.print(
        f"[bold]{escape(name)}[/bold], mode {found.mode}: {count(found.tokens)} tokens, {count(found.decisions)} "
        f"decisions (a layer of a token), {count(found.cycles)} cycles; an estimate in {escape(found.target)} at "
        f"{found.cells.volts:g} V and {found.clock_ghz:g} GHz, nJ a decision",
        highlight=False,
        soft_wrap=True,
    )
    table = Table("part", box=None)
    for column in ("cells (µm²)", "toggles", "kbit", "clock", "logic", "SRAM", "leakage", "all"):
        table.add_column(column, justify="right")
    for part in found.parts:
        energy = part.energy
        table.add_row(
            escape(part.part),
            "no record" if part.area_um2 is None else count(round(part.area_um2)),
            f"{part.toggles:.4f}",
            f"{part.bits / 1e3:,.1f}",
            *_nanojoules(energy),
        )
    table.add_section()
    table.add_row("all", "", "", "", *_nanojoules(found.total))
    console.print(table, highlight=False)
    lines = [
        "toggles: of a net in a cycle; kbit: read from SRAM and written, a decision",
        f"power at the simulated rate of events {found.power_w * 1e3:.2f} mW; with nothing but the clock "
        f"{found.idle_w * 1e3:.2f} mW",
    ]
    if found.moved_pj is not None:
        lines.append(
            f"beside it, {found.experts_moved:.2f} experts moved a decision, over the pins of HBM2: "
            f"{found.moved_pj / 1e3:,.0f} nJ, {found.moved_pj / found.total.total:,.0f} times as much"
        )
    if found.without_record:
        lines.append(f"cells without a record, in no figure: {', '.join(found.without_record)}")
    lines.append(f"not counted: {found.not_counted}; SRAM by {found.sram_figures}")
    lines.append("ST-MoE publishes 0.02 W, in 40 nm, of tables of 256 entries: another node and another function")
    for line in lines:
        console.print(escape(line), highlight=False, soft_wrap=True)


def _nanojoules(energy: "Energy") -> list[str]:
    return [f"{pj / 1e3:,.2f}" for pj in (energy.clock, energy.logic, energy.sram, energy.leakage, energy.total)]
