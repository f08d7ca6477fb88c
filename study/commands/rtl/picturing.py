"""``forestage rtl blocks`` and ``timeline``: pictures of the prefetch engine."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from study.commands.opening import open_trace, require_test_sequences
from study.commands.options import JsonOption, ModelOption, TraceOption
from study.commands.rtl.heads import NextUseOption, load_heads
from study.figures.files import check_figure_path, write_figure
from study.output import emit, progress_bar

FigureOption = Annotated[Path, typer.Option("--figure", help="Draw it to this file (.svg, .pdf or .png)")]


def blocks_command(figure: FigureOption, as_json: JsonOption = False) -> None:
    """Draw the blocks of the prefetch engine and what goes between them."""
    check_figure_path(figure)
    from study.figures.engine_blocks import engine_blocks  # takes half a second

    write_figure(engine_blocks(), figure)
    emit(
        {"figure": str(figure)},
        as_json=as_json,
        render=lambda console: console.print(str(figure), highlight=False, markup=False),
    )


def timeline_command(
    trace: TraceOption,
    predictor: Annotated[Path, typer.Option("--predictor", help="A file of `forestage predictor train`")],
    figure: FigureOption,
    next_use: NextUseOption = None,
    tokens: Annotated[int, typer.Option("--tokens", min=2, help="Tokens of the test sequences to run")] = 12,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the whole engine under Verilator, and draw one prefetch from its prediction to its use, cycle by cycle."""
    check_figure_path(figure)
    recorded = open_trace(trace, model)
    require_test_sequences(recorded, trace)
    from cocotb_tests.build import require_tools  # needs the extra, as do the next
    from study.engine.one_prefetch import find_prefetch, run_prefetches
    from study.figures.engine_timeline import prefetch_timeline

    require_tools()
    learned, values = load_heads(recorded, predictor, next_use)
    assert learned is not None
    with progress_bar("prefetch engine") as progress:
        run = run_prefetches(recorded, tokens, learned, values, progress=progress)
    story = find_prefetch(run)
    write_figure(prefetch_timeline(story), figure)
    document: dict[str, Any] = {"figure": str(figure), "tokens": tokens, "prefetch": story.model_dump(mode="json")}

    def render(console: Console) -> None:
        console.print(
            f"[bold]{escape(figure.name)}[/bold]: expert {story.expert} of layer {story.layer}, told with chance "
            f"{story.chance / 65535:.2f}, to place {story.place}; cycles from its gate's acceptance",
            highlight=False,
        )
        table = Table(box=None, show_header=False)
        for name in ("prediction", "queued", "moving", "resident", "used"):
            table.add_row(name, str(getattr(story, name)))
        console.print(table, highlight=False)

    emit(document, as_json=as_json, render=render)
