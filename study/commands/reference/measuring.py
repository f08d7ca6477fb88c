"""``forestage reference measure``: measure a machine, and write a record."""

import shlex
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from catalog import load_catalog
from catalog.errors import SettingError
from gpu_reference.devices import check_device, default_device
from gpu_reference.records import MeasurementRecord
from gpu_reference.records.micro import Micro
from study.commands.command import refuse_unused
from study.commands.options import JsonOption, check_destination
from study.commands.reference.options import DecodedTraceOption, DistanceOption, PackageOption, TestSliceOption
from study.commands.system.options import NextUseOption, PredictorOption
from study.numbers import seconds
from study.output import emit, progress_bar, tell
from study.reference.material import material_at

MODEL = "gpt-oss-20b"

SOME_FAILED = 1
"""Exit status where the record was written and a section of it has failed."""


def measure_command(
    out: Annotated[Path, typer.Option("--out", help="The record to write (.json)")],
    suite: Annotated[str, typer.Option("--suite", help="quick (about a minute) or full (about 8)")] = "quick",
    trace: DecodedTraceOption = None,
    package: PackageOption = None,
    next_use: NextUseOption = None,
    predictor: PredictorOption = None,
    distance: DistanceOption = None,
    tokens: TestSliceOption = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help=f"Catalogue model whose sizes are measured; default: the trace's, or {MODEL}"),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu or cuda; default: cuda if there is one")] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.0, help="Begin nothing more after so long; default: 4, full: 7.5")
    ] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="Measure this section alone; several times")] = None,
    without: Annotated[
        list[str] | None, typer.Option("--without", help="Leave this section out; several times")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of random weights, inputs and orders")] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew, and throw away what an interrupted measurement has left")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure copies, experts, launches and decoding on this machine, and write a record.

    Interrupted, the same command goes on where it was. A section that fails is recorded with its reason, the others
    run, and the exit status is 1.
    """
    began = time.monotonic()
    check_destination(out)
    if suite not in ("quick", "full"):
        raise SettingError("suite", "choose quick or full", value=suite)
    where = device or default_device()
    check_device(where)
    material = None
    if trace is not None or package is not None:
        material = material_at(
            trace=trace,
            package=package,
            next_use=next_use,
            predictor=predictor,
            distances=distance,
            tokens=tokens,
            model=model,
        )
    else:
        refuse_unused(
            "nothing is decoded without --trace or --package; give one, or leave it out",
            next_use="--next-use",
            predictor="--predictor",
            distance="--distance",
            tokens="--tokens",
        )
    name = model or (MODEL if material is None else material.test.metadata.model)
    record = load_catalog().find_model(name)
    from gpu_reference.measuring.measurement import Measurement, measure  # needs the extra

    measurement = Measurement(
        model=record,
        suite="full" if suite == "full" else "quick",
        device=where,
        command=_command(
            suite=suite,
            model=record.name if material is None else model,
            device=where,
            seed=seed,
            trace=trace,
            package=package,
            next_use=next_use,
            predictor=predictor,
            distance=distance,
            tokens=tokens,
            minutes=minutes,
            only=only,
            without=without,
        ),
        seed=seed,
        material=material,
        minutes=minutes,
        began=began,
        only=only or (),
        without=without or (),
        fresh=fresh,
    )
    measurement.check()
    with progress_bar("measuring") as progress:
        measured = measure(measurement, out, tell=tell, progress=progress)
    emit(measured, as_json=as_json, render=lambda console: render(console, measured))
    failed = [section.name for section in measured.sections if section.state == "failed"]
    if failed:
        tell(f"failed: {', '.join(failed)}; {out} says why")
        raise typer.Exit(SOME_FAILED)


def _command(**given: object) -> str:
    """What remakes the record, of parameters and what was given for them; files by their names alone."""
    words = ["forestage reference measure"]
    for parameter, value in given.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            if one is not None:
                words.append(f"--{parameter.replace('_', '-')} {_typed(one)}")
    return " ".join([*words, "--out RECORD"])


def _typed(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return shlex.quote(value.name if isinstance(value, Path) else str(value))


def render(console: Console, record: MeasurementRecord) -> None:
    """The sections and figures of ``record`` as tables."""
    table = Table("section", "state", "took", "reason", box=None)
    for section in record.sections:
        table.add_row(section.name, section.state, seconds(section.took_s), section.reason or "")
    console.print(table, highlight=False)
    table = Table("figure", "settings", "median", "spread", "GB/s", box=None)
    for micro in record.micro:
        table.add_row(
            micro.kind.value,
            settings_text(micro),
            seconds(micro.seconds.median),
            seconds(micro.seconds.spread),
            rate_text(micro),
        )
    console.print(table, highlight=False)
    if record.decode:
        table = Table("row", "regime", "places", "batch", "TPOT", "hit rate", box=None)
        for row in record.decode:
            table.add_row(
                row.row,
                row.regimen.name,
                str(row.places),
                str(row.part.batch),
                seconds(row.tpot_s.mean),
                f"{row.hit_rate:.1%}",
            )
        console.print(table, highlight=False)


def settings_text(micro: Micro) -> str:
    """The settings in one line."""
    return ", ".join(f"{name} {value}" for name, value in micro.settings.items())


def rate_text(micro: Micro) -> str:
    """Bytes over the median time, 10⁹ bytes a second; empty where no bytes are moved."""
    return f"{micro.bytes / micro.seconds.median / 1e9:.1f}" if micro.bytes and micro.seconds.median else ""
