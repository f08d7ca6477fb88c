"""``forestage reference check``: replay recorded routing in PyTorch."""

from rich.console import Console
from rich.table import Table

from study.commands.opening import open_trace
from study.commands.options import JsonOption, ModelOption, TraceOption
from study.numbers import count, percent
from study.output import emit, progress_bar
from study.subjects.reference import check_reference


def check_command(trace: TraceOption, model: ModelOption = None, as_json: JsonOption = False) -> None:
    """Replay every layer's routing in PyTorch; the shipped trace is also checked against the shipped model."""
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
