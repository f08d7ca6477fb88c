"""``forestage trace capture``: record the routing of a local model."""

from pathlib import Path
from typing import Annotated

import typer

from study.commands.options import JsonOption, check_destination
from study.commands.trace.info import render_info
from study.output import emit, progress_bar
from traces import RoutingTrace
from traces.describe import describe


def capture_command(
    model: Annotated[Path, typer.Argument(help="A local Hugging Face model folder; nothing is fetched")],
    prompts: Annotated[Path, typer.Option("--prompts", help='A prompt a line; .jsonl: {"prompt": …, "domain": …}')],
    out: Annotated[Path, typer.Option("--out", help="The trace file to write (.safetensors)")],
    new_tokens: Annotated[int, typer.Option("--new-tokens", help="Generated after each prompt")] = 128,
    max_prompt: Annotated[int, typer.Option("--max-prompt", help="Tokens kept of a longer prompt")] = 1024,
    temperature: Annotated[float, typer.Option("--temperature", help="0: greedy")] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Of the sampling")] = 0,
    device: Annotated[str | None, typer.Option("--device", help="cpu or cuda; default: cuda if there is one")] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="auto (as stored), float32, bfloat16, float16")] = "auto",
    domain: Annotated[str, typer.Option("--domain", help="Label of prompts that name none")] = "prompts",
    name: Annotated[str | None, typer.Option("--name", help="The model's name, if the folder does not tell it")] = None,
    licence: Annotated[str, typer.Option("--licence", help="Of the recording")] = "unknown",
    as_json: JsonOption = False,
) -> None:
    """Run MODEL on prompts and record which experts its routers choose; interrupted, the same command goes on."""
    from gpu_reference.capture_model import ModelCaptureOptions, capture_model
    from gpu_reference.capture_prompts import read_prompts
    from gpu_reference.devices import default_device

    options = ModelCaptureOptions.parse(
        {
            "new_tokens": new_tokens,
            "max_prompt": max_prompt,
            "temperature": temperature,
            "seed": seed,
            "device": device or default_device(),
            "dtype": dtype,
        },
        origin="trace capture",
    )
    check_destination(out)
    texts = read_prompts(prompts, domain=domain)
    with progress_bar("sequences") as progress:
        capture_model(model, texts, out, options=options, model_name=name, licence=licence, progress=progress)
    info = describe(RoutingTrace.load(out), out)
    emit(info, as_json=as_json, render=lambda console: render_info(console, str(out), info))
