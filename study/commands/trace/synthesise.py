"""``forestage trace synthesise``: a synthetic trace, fitted to a recorded one, of any shape and length."""

import resource
import sys
from pathlib import Path
from typing import Annotated

import typer

from catalog import load_catalog
from catalog.errors import ForestageError
from study.commands.opening import open_trace
from study.commands.options import JsonOption, ModelOption, check_destination
from study.commands.trace.info import render_info
from study.output import emit, progress_bar
from traces import RoutingTrace
from traces.describe import describe
from traces.synthesis import Shape, synthesise


def synthesise_command(
    source: Annotated[Path, typer.Option("--from", help="The recorded trace to imitate, in any known format")],
    out: Annotated[Path, typer.Option("--out", help="The trace file to write (.safetensors)")],
    experts: Annotated[
        int | None, typer.Option("--experts", help="Experts in each layer; default: as recorded")
    ] = None,
    layers: Annotated[int | None, typer.Option("--layers", help="Number of MoE layers; default: as recorded")] = None,
    top_k: Annotated[
        int | None, typer.Option("--top-k", help="Experts that a token uses in a layer; default: as recorded")
    ] = None,
    like: Annotated[
        str | None, typer.Option("--like", help="Catalogue model whose experts, layers, top-k and name to take")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", help="Tokens of the whole trace; default: as recorded")
    ] = None,
    sequences: Annotated[
        int | None,
        typer.Option(
            "--sequences", help="Number of sequences; default: as many as the tokens take at the recorded lengths"
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed; the same seed and options write the same file")] = 0,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Imitate a recorded trace with other experts, layers, top-k and length; the result says how well it fits.

    Kept: the overlap of consecutive tokens over K²/N, the mutual information of adjacent layers, the load skew, the
    lengths of sequences, domains. See docs/synthetic-traces.md for what is not.
    """
    if seed < 0:
        raise ForestageError(f"--seed {seed}: give 0 or more")
    check_destination(out, source)
    recorded = open_trace(source, model)
    shape, name, layer_map = _shape(recorded, experts, layers, top_k, like)
    synthesise(
        recorded,
        out,
        progress_bar,
        shape=shape,
        tokens=tokens,
        sequences=sequences,
        seed=seed,
        model=name,
        layer_map=layer_map,
    )
    info = describe(RoutingTrace.load(out, validate=False), out)
    document = {**info.model_dump(mode="json"), "peak_rss_bytes": peak_rss_bytes()}
    emit(document, as_json=as_json, render=lambda console: render_info(console, str(out), info))


def _shape(
    recorded: RoutingTrace, experts: int | None, layers: int | None, top_k: int | None, like: str | None
) -> tuple[Shape, str | None, tuple[int, ...] | None]:
    """The requested shape, name and layer map; ``None`` where the recording or the shape determines it.

    Raises:
        ForestageError: if ``like`` is not a model of the catalogue, or is given together with the numbers.
    """
    if like is None:
        numbers = (layers or recorded.layers, experts or recorded.experts, top_k or recorded.top_k)
        for option, given in (("--layers", layers), ("--experts", experts), ("--top-k", top_k)):
            if given is not None and given < 1:
                raise ForestageError(f"{option} {given}: give 1 or more")
        return Shape(*numbers), None, None
    if (experts, layers, top_k) != (None, None, None):
        raise ForestageError(f"--like {like}: says experts, layers and top-k; leave those options out")
    entry = load_catalog().find_model(like)
    return Shape(entry.moe_layers, entry.experts, entry.top_k), entry.name, tuple(entry.layer_map)


def peak_rss_bytes() -> int:
    """Peak memory of this process in bytes, mapped files included (``getrusage``)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
