"""``forestage reference``: recorded routing replayed in PyTorch."""

import typer
from rich.console import Console
from rich.table import Table

from study.commands.options import JsonOption, ModelOption, TraceOption, open_trace
from study.numbers import count, percent
from study.output import emit, progress_bar
from study.subjects.reference import check_reference

app = typer.Typer(help="PyTorch: recorded routing replayed.", no_args_is_help=True)


@app.command("check")
def check_command(trace: TraceOption, model: ModelOption = None, as_json: JsonOption = False) -> None:
    """Replay every layer's routing through PyTorch; the shipped trace's also against the shipped model."""
    recorded = open_trace(trace, model)
    with progress_bar("PyTorch reference") as progress:
        result = check_reference(recorded, progress)

    def render(console: Console) -> None:
        table = Table("layer of the trace", "tokens", "experts", "relative error", "tokens/s", box=None)
        for replay in result["replays"]:
            table.add_row(
                str(replay["layer"]),
                count(replay["tokens"]),
                replay["experts"],
                f"{replay['relative_error']:.1e}",
                count(round(replay["tokens_per_s"])),
            )
        console.print(table, highlight=False)
        table = Table("layer of the shipped model", "same experts", "relative error", box=None)
        for check in result["checks"]:
            table.add_row(str(check["layer"]), percent(check["same_experts"], 2), f"{check['relative_error']:.1e}")
        console.print(table, highlight=False)

    emit(result, as_json=as_json, render=render)
