"""``forestage trace capture``: record the routing of a local model."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from catalog.errors import ForestageError
from study.commands.command import refuse_unused
from study.commands.options import JsonOption, check_destination
from study.commands.trace.info import render_info
from study.output import emit, jsonable, progress_bar
from traces import RoutingTrace
from traces.describe import describe


def capture_command(
    model: Annotated[Path, typer.Argument(help="A local Hugging Face model folder; nothing is fetched")],
    prompts: Annotated[
        Path,
        typer.Option(
            "--prompts",
            help='Text file with a prompt on each line, or .jsonl with {"prompt": …, "domain": …} on each line',
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The trace file to write (.safetensors)")],
    new_tokens: Annotated[int, typer.Option("--new-tokens", help="Tokens to generate after each prompt")] = 128,
    max_prompt: Annotated[
        int, typer.Option("--max-prompt", help="Most tokens of a prompt; a longer one is cut to its first tokens")
    ] = 1024,
    temperature: Annotated[
        float, typer.Option("--temperature", help="Sampling temperature; 0 takes the likeliest token")
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the sampling")] = 0,
    device: Annotated[str | None, typer.Option("--device", help="cpu or cuda; default: cuda if there is one")] = None,
    dtype: Annotated[
        str, typer.Option("--dtype", help="Type of the weights: auto (as stored), float32, bfloat16 or float16")
    ] = "auto",
    domain: Annotated[str, typer.Option("--domain", help="Domain of prompts that name none")] = "prompts",
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the model; needed where the folder does not say it")
    ] = None,
    licence: Annotated[
        str, typer.Option("--licence", help="Licence of the recording, as its SPDX identifier")
    ] = "unknown",
    early_gate: Annotated[
        str | None,
        typer.Option(
            "--early-gate",
            help="Also apply each layer's gate this many layers early and rank the experts by it: 1, or 1,2,4",
        ),
    ] = None,
    early_gate_width: Annotated[
        int | None,
        typer.Option(
            "--early-gate-width", help="Experts that --early-gate ranks for each token and layer; default: 4 × top-k"
        ),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter",
            help="module:Name of an adapter for a router class of your own (docs/capture.md); several times",
        ),
    ] = None,
    trust_router: Annotated[
        bool,
        typer.Option(
            "--trust-router",
            help="Record what the experts are called with even where no known routing rule explains it",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run MODEL on prompts and record which experts its routers choose; run again, it goes on where it stopped."""
    from gpu_reference.capturing.model import ModelCaptureOptions, capture_model
    from gpu_reference.capturing.prompts import read_prompts
    from gpu_reference.devices import default_device

    if early_gate is None:
        refuse_unused("no gate is run early; add --early-gate", early_gate_width="--early-gate-width")
    if temperature == 0:
        refuse_unused("without --temperature the likeliest token is taken, and nothing drawn", seed="--seed")
    options = ModelCaptureOptions.parse_settings(
        {
            "new_tokens": new_tokens,
            "max_prompt": max_prompt,
            "temperature": temperature,
            "seed": seed,
            "device": device or default_device(),
            "dtype": dtype,
            "early_gate": lookaheads(early_gate),
            "early_gate_width": early_gate_width,
            "trust_router": trust_router,
            "adapters": tuple(adapter or ()),
        },
        origin="trace capture",
    )
    check_destination(out)
    texts = read_prompts(prompts, domain=domain)
    with progress_bar("sequences") as progress:
        beside = capture_model(model, texts, out, options=options, model_name=name, licence=licence, progress=progress)
    info = describe(RoutingTrace.load(out), out)

    def render(console: Console) -> None:
        render_info(console, str(out), info)
        for path in beside:
            console.print(f"predictions of gates run early: {path}")

    document = jsonable(info) | ({"predictions": [str(path) for path in beside]} if beside else {})
    emit(document, as_json=as_json, render=render)


def lookaheads(text: str | None) -> tuple[int, ...]:
    """The whole numbers in ``text``, such as "1,2".

    Raises:
        ForestageError: if it contains anything else.
    """
    parts = [] if text is None else text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise ForestageError(f"--early-gate {text}: write a lookahead in layers, or several: 1 or 1,2,4")
    return tuple(int(part) for part in parts)
