"""``forestage reference pack``: what travels to a machine with a GPU that has neither network nor traces."""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog.errors import ForestageError
from catalog.files import check_folder
from gpu_reference.package import MOST_BYTES, Manifest, write_package
from gpu_reference.package.manifest import MANIFEST
from gpu_reference.package.run_script import RUN_SCRIPT, RUN_SH
from gpu_reference.package.wheels import WheelsFor, download_wheels
from predictor.policies.material import TUNING_TOKENS
from study.commands.command import refuse_unused
from study.commands.options import JsonOption, ModelOption, TraceOption
from study.commands.reference.options import DistanceOption, TestSliceOption
from study.commands.system.options import NextUseOption, PredictorOption
from study.numbers import counted, size, tokens_of
from study.output import emit
from study.reference.material import material_at, trained_files


def pack_command(
    trace: TraceOption,
    out: Annotated[Path, typer.Option("--out", help="The folder to write; a package that is there is replaced")],
    next_use: NextUseOption = None,
    predictor: PredictorOption = None,
    distance: DistanceOption = None,
    tokens: TestSliceOption = None,
    tuning_tokens: Annotated[
        int, typer.Option("--tuning-tokens", min=1, help="Of the trace's training sequences so many tokens, about")
    ] = TUNING_TOKENS,
    wheels: Annotated[
        bool,
        typer.Option(
            "--wheels", help="Take along wheels of pydantic and what it needs; fetches them from a package index"
        ),
    ] = False,
    python: Annotated[
        str, typer.Option("--python", help="With --wheels: the Python of the machine that is measured")
    ] = "3.12",
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a folder that `measure`, `decode` and `compare` take in place of a trace, on a machine without network."""
    if not wheels:
        refuse_unused("without --wheels none are fetched; give both", python="--python")
    _check_place(out)
    material = material_at(
        trace=trace,
        package=None,
        next_use=next_use,
        predictor=predictor,
        distances=distance,
        tokens=tokens,
        tuning_tokens=tuning_tokens,
        model=model,
    )
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.absolute().parent))
    try:
        if wheels:
            download_wheels(made / "wheels", WheelsFor(python=python))
        manifest = write_package(
            made,
            material,
            trained_files(next_use, predictor),
            command=_command(trace, next_use, predictor, distance, tokens, tuning_tokens, wheels=wheels, python=python),
            trace=trace.name,
            texts={RUN_SCRIPT: RUN_SH},
        )
        made.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        made.replace(out)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    emit(manifest, as_json=as_json, render=lambda console: _render(console, out, manifest))


def _check_place(out: Path) -> None:
    """Refuse to replace what is no package.

    Raises:
        ForestageError: naming the folder.
    """
    check_folder(out.absolute().parent, out)
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file()):
        raise ForestageError(f"--out {out}: is there and is no package; name a new folder")


def _command(
    trace: Path,
    next_use: Path | None,
    predictor: Path | None,
    distance: list[int] | None,
    tokens: int | None,
    tuning_tokens: int,
    *,
    wheels: bool,
    python: str,
) -> str:
    """What remakes the package; files by their names alone."""
    given: list[tuple[str, object]] = [("trace", trace.name)]
    given += [(name, path.name) for name, path in (("next-use", next_use), ("predictor", predictor)) if path]
    given += [("distance", one) for one in distance or []]
    given += [("tokens", tokens)] if tokens is not None else []
    given += [("tuning-tokens", tuning_tokens)] if tuning_tokens != TUNING_TOKENS else []
    options = "".join(f" --{name} {value}" for name, value in given)
    return f"forestage reference pack{options}" + (f" --wheels --python {python}" if wheels else "") + " --out PACKAGE"


def _render(console: Console, out: Path, manifest: Manifest) -> None:
    total = sum(file.bytes for file in manifest.files.values())
    test, tuning = (tokens_of(part.tokens, len(part.sequences)) for part in (manifest.test, manifest.tuning))
    console.print(
        f"[bold]{escape(str(out))}[/bold]: {size(total)} of at most {MOST_BYTES >> 20} MiB; decoding {test} of the "
        f"test part of {escape(manifest.trace)}, tuning on {tuning} of the training part, tables and uses of "
        f"{counted(manifest.training_sequences, 'training sequence')}",
        highlight=False,
        soft_wrap=True,
    )
    table = Table("file", "size", box=None, pad_edge=False)
    for name, file in sorted(manifest.files.items(), key=lambda entry: -entry[1].bytes):
        table.add_row(escape(name), size(file.bytes))
    console.print(table, highlight=False)
    console.print(
        f"on the other machine, in the root of the source tree: sh {escape(str(out))}/{RUN_SCRIPT} RECORD",
        highlight=False,
        soft_wrap=True,
    )
