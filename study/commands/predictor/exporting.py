"""``forestage predictor export``: the memory image that the hardware loads."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog.errors import ForestageError
from predictor.next_layer.predictor import NextLayerPredictor
from predictor.next_use.predictor import NextUsePredictor
from predictor.row_network import file
from predictor.row_network.image import LANES, Manifest
from study.commands.options import JsonOption, check_destination
from study.numbers import count, size
from study.output import emit


def export_predictor(
    predictor: Annotated[Path, typer.Argument(help="The file of a trained predictor")],
    out: Annotated[Path, typer.Option("--out", help="The memory image to write")],
    lanes: Annotated[
        int, typer.Option("--lanes", help="Lanes of the net in hardware, a power of two", min=8, max=1024)
    ] = LANES,
    as_json: JsonOption = False,
) -> None:
    """Write a trained predictor's memory image: sections for the net's memories, and identity rows for far memory."""
    check_destination(out, predictor)
    kind = NextUsePredictor if file.head_of(predictor) == NextUsePredictor.head else NextLayerPredictor
    if lanes & (lanes - 1):
        raise ForestageError(f"--lanes {lanes}: not a power of two; give one, as {LANES}")
    manifest = kind.load(predictor).export(out, lanes=lanes)
    emit(manifest, as_json=as_json, render=lambda console: render_manifest(console, out, manifest))


def render_manifest(console: Console, out: Path, manifest: Manifest) -> None:
    """Print the image's sections."""
    table = Table("section", "bytes", "at", box=None, title=escape(str(out)), title_justify="left", title_style="bold")
    for section in manifest.sections:
        asked = "any distance" if section.distance is None else f"distance {section.distance}"
        table.add_row(f"the net's memories, {asked}", size(section.size), count(section.offset))
    identity = manifest.config.identity_rows * manifest.identity_stride
    table.add_row("identity rows, far memory", size(identity), count(manifest.identity_offset))
    table.add_row("one token's burst", size(manifest.identity_stride if identity else 0), "–")
    hosts = size(manifest.size - manifest.token_offset)
    table.add_row("token hashes and tables, for the host", hosts, count(manifest.token_offset))
    table.add_row("to allot, for each slot: n-gram tables and log", size(manifest.text_per_slot), "–")
    console.print(table, highlight=False)
