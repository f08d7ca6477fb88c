"""``forestage reference perplexity``: what experts in INT8 and MXFP4 cost the small model."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gpu_reference.files import SHIPPED_CHECKPOINT
from study.commands.options import JsonOption
from study.numbers import count, fixed
from study.output import emit, progress_bar, tell

DEFAULT_TOKENS = 49_152


def perplexity_command(
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="A checkpoint folder of the small model; default: the shipped")
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="float, int8, int8-activations, mxfp4; repeat for several; default: all"),
    ] = None,
    tokens: Annotated[
        int, typer.Option("--tokens", help="Tokens of held-out text at least, half of them of each domain")
    ] = DEFAULT_TOKENS,
    as_json: JsonOption = False,
) -> None:
    """Perplexity on held-out text with quantised experts, beside that in floating point (fetches the corpus once)."""
    from gpu_reference import perplexity  # needs the extra, as does what follows
    from gpu_reference.devices import one_thread
    from gpu_reference.small_moe import load_model

    chosen = perplexity.chosen_formats(formats or [])
    perplexity.check_tokens(tokens)
    folder = SHIPPED_CHECKPOINT if checkpoint is None else checkpoint
    model = load_model(folder)
    given = "" if checkpoint is None else f" --checkpoint {checkpoint}"
    named = "".join(f" --format {name}" for name in chosen) if formats else ""
    tell("reading the held-out text (the corpus is fetched with pip where it is not there yet)")
    windows = perplexity.windows_of(perplexity.read_held_out(folder), tokens)
    with one_thread(), progress_bar("windows") as progress:
        report = perplexity.measure_perplexity(
            model,
            windows,
            chosen,
            checkpoint="shipped" if checkpoint is None else str(checkpoint),
            command=f"forestage reference perplexity{given}{named} --tokens {tokens}",
            progress=progress,
        )

    def render(console: Console) -> None:
        console.print(
            ", ".join(
                f"{domain}: {count(number)} tokens of {report.documents[domain]} documents"
                for domain, number in report.tokens.items()
            ),
            highlight=False,
        )
        table = Table("experts", "text", "nats/token", "perplexity", "over float", "95 % interval", box=None)
        for measured in report.formats:
            for part in measured.domains:
                ends = "" if part.low is None else f"{fixed(part.low, 4)} – {fixed(part.high, 4)}"
                table.add_row(
                    measured.format,
                    part.domain,
                    fixed(part.loss, 4),
                    fixed(part.perplexity, 2),
                    fixed(part.ratio, 4),
                    "" if measured.format == "float" else ends,
                )
        console.print(table, highlight=False)

    emit(report, as_json=as_json, render=render)
