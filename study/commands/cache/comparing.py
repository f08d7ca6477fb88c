"""``forestage cache compare``: replacement policies by cache size, and the share of the LRU-Belady gap each closes."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog.errors import ForestageError
from predictor.next_use.evaluate import CacheComparison, PolicyPoint, compare_caches
from predictor.next_use.predictor import NextUsePredictor
from staging.frequency import DEFAULT_SHIFT
from staging.static import PROFILED, STATIC
from study.commands.opening import open_batched
from study.commands.options import (
    EmaShiftOption,
    JsonOption,
    ModelOption,
    ResamplesOption,
    ScopeOption,
    SplitOption,
    TraceOption,
)
from study.figures.files import check_figure_path, write_figure
from study.numbers import count, counted, percent
from study.output import emit, progress_bar

SHARES = (3 / 16, 1 / 4, 3 / 8, 1 / 2, 5 / 8)
"""Default capacities, as shares of all experts."""

NAMES = {
    STATIC: "static, hindsight",
    PROFILED: "static, of training",
    "lru": "LRU",
    "lfu": "LFU",
    "ema": "decayed frequency",
    "belady": "Belady (bound)",
}


def compare_policies(
    trace: TraceOption,
    next_use: Annotated[
        Path | None, typer.Option("--next-use", help="A predictor file that `forestage predictor train-next-use` wrote")
    ] = None,
    ahead: Annotated[
        Path | None,
        typer.Option(
            "--ahead", help="A second such file, trained with a lookahead; it refreshes the values of a shared cache"
        ),
    ] = None,
    capacity: Annotated[
        list[int] | None,
        typer.Option(
            "--capacity",
            min=1,
            help="Experts that fit into the cache (with --scope layer: of each layer); several times",
        ),
    ] = None,
    scope: ScopeOption = "layer",
    split: SplitOption = "test",
    ema_shift: EmaShiftOption = DEFAULT_SHIFT,
    oracle: Annotated[
        list[int] | None,
        typer.Option("--oracle", help="Add an oracle that knows which experts the next N tokens use; several times"),
    ] = None,
    resamples: ResamplesOption = 1000,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="Also draw the comparison to this file (.svg, .pdf or .png)")
    ] = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare LRU, LFU, decayed frequency, predicted next use and Belady's bound on the same events, by cache size."""
    if figure is not None:
        check_figure_path(figure)
    own = None if next_use is None else NextUsePredictor.load(next_use)
    refreshing = None if ahead is None else NextUsePredictor.load(ahead)
    recorded, schedule = open_batched(trace, model)
    if schedule is not None:
        raise ForestageError(
            f"{trace}: holds a batch, and policies are compared on single requests; `cache simulate` runs the batch, "
            "or give the trace that the batch was made of"
        )
    most = recorded.experts * (recorded.layers if scope == "global" else 1)
    with progress_bar("comparing caches") as progress:
        result = compare_caches(
            recorded,
            own,
            ahead=refreshing,
            trace_name=trace.name,
            progress=progress,
            capacities=tuple(capacity or sorted({max(1, round(share * most)) for share in SHARES})),
            scope=scope,
            split=split,
            ema_shift=ema_shift,
            oracle=tuple(oracle or ()),
            bootstrap={"resamples": resamples},
        )
    if figure is not None:
        from study.figures.caches import policies_over_capacity  # Matplotlib takes half a second

        write_figure(policies_over_capacity(result.model_dump(mode="json")), figure)
    emit(result, as_json=as_json, render=lambda console: _render(console, result))


def _render(console: Console, result: CacheComparison) -> None:
    """Print hit rates, then shares closed; a row per policy, a column per capacity."""
    shared = result.scope == "global"
    where = (
        f"one cache for all {count(result.layers * result.experts)} experts"
        if shared
        else (f"a cache for the {count(result.experts)} experts of each layer")
    )
    console.print(
        f"[bold]{escape(result.trace)}[/bold]: {result.split} part, {counted(result.sequences, 'sequence')}, "
        f"{count(result.tokens)} tokens" + (", synthetic" if result.synthetic else "") + f"; {where}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"counted: {result.counted}", highlight=False, soft_wrap=True)
    for name, said in (("next use", result.next_use), ("refreshed by a second one,", result.ahead)):
        if said is not None:
            console.print(f"{name} trained on {said}", style="dim", highlight=False, markup=False, soft_wrap=True)
    capacities = sorted({point.capacity for point in result.points})
    by_place = {(point.policy, point.capacity): point for point in result.points}
    for title, cell in (("hit rate, %", _hit_rate), ("share closed of the way from LRU to Belady, %", _share)):
        console.print(f"\n{title}", style="italic", highlight=False)
        table = Table(box=None, pad_edge=False, collapse_padding=True)  # five columns fit 80 characters
        table.add_column("experts held", no_wrap=True)
        for capacity in capacities:
            table.add_column(count(capacity), justify="right")
        for policy in result.policies:
            # A static cache pays no first loads, so it is not between LRU and Belady.
            if cell is _hit_rate or policy not in ("lru", "belady", STATIC, PROFILED):
                table.add_row(_name(policy), *(cell(by_place[policy, c]) for c in capacities))
        console.print(table)
    note = "static: the most used experts, held throughout: of this part (the null: what popularity alone gives"
    note += "), or of the training sequences\n" if PROFILED in result.policies else ")\n"
    note += "share closed: (hits − LRU's) / (Belady's − LRU's); below 0: fewer hits than LRU"
    if result.bootstrap.resamples:
        note += f"\n±: half the 95 % interval over sequences, {count(result.bootstrap.resamples)} resamples"
    console.print(note, style="dim", highlight=False, soft_wrap=True)
    if result.calibration:
        console.print("\nhow true next use's chances are", style="italic", highlight=False)
        console.print(_calibration(result))
        note = "calibration error: mean distance of the chance said from the share that came true, over 16 bins"
        console.print(note, style="dim", highlight=False, soft_wrap=True)


def _name(policy: str) -> str:
    """The policy's name in tables; an oracle's says what it knows."""
    horizon = policy.removeprefix("oracle ")
    return NAMES.get(policy, policy) if horizon == policy else f"oracle of {horizon} token{'s' * (horizon != '1')}"


def _calibration(result: CacheComparison) -> Table:
    """The calibration of the chances, a row per horizon."""
    table = Table(box=None)
    for head in ("wanted within tokens", "came true", "calibration error"):
        table.add_column(head, justify="right")
    for entry in result.calibration:
        table.add_row(str(entry.horizon), percent(entry.wanted), percent(entry.calibration_error, 2))
    return table


def _hit_rate(point: PolicyPoint) -> str:
    return f"{100 * point.hit_rate:.1f}"


def _share(point: PolicyPoint) -> str:
    if point.share_closed is None:
        return "–"
    closed = f"{100 * point.share_closed:.1f}"
    return closed if point.interval is None else f"{closed} ±{50 * (point.interval[1] - point.interval[0]):.1f}"
