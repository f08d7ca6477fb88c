"""``forestage rtl prove``: prove the hardware's checks for all inputs."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from study.commands.options import JsonOption
from study.output import emit, progress_bar

if TYPE_CHECKING:
    from rtl.formal.proof import Verdict
    from rtl.formal.task import Task


def prove_command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Proofs to run; all by default")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only the proofs that `make test` runs")] = False,
    as_json: JsonOption = False,
) -> None:
    """Prove the checks in the circuits for ever, by induction or an invariant that is found, whatever the inputs do.

    Faults are planted in every circuit too; it is counted how many of them break a check. Exit status 1 if a check can
    be broken, an induction no longer closes, or no fault is noticed.
    """
    from rtl.formal.registry import TASKS, task_of  # needs the extra
    from rtl.yosys import require_extra, tool_versions

    require_extra()
    tasks = [task_of(name) for name in dict.fromkeys(names or TASKS) if not quick or task_of(name).quick]
    verdicts = []
    with progress_bar("proofs") as progress:
        for done, task in enumerate(tasks):
            progress(done, len(tasks))
            verdicts.append(task.run())
    runs = list(zip(tasks, verdicts, strict=True))
    proofs = [
        {"what": task.what, **verdict.model_dump(mode="json"), "shortcoming": task.shortcoming(verdict)}
        for task, verdict in runs
    ]
    document = {"tools": tool_versions(), "proofs": proofs}
    emit(document, as_json=as_json, render=lambda console: render_proofs(console, runs))
    if any(task.shortcoming(verdict) for task, verdict in runs):
        sys.exit(1)


def render_proofs(console: Console, runs: "list[tuple[Task, Verdict]]") -> None:
    """Print what was proved, for how long it holds, and how many planted faults were noticed."""
    table = Table("proof", "what", "checks", "holds", "faults noticed", "seconds", box=None)
    for task, verdict in runs:
        if not verdict.holds:
            holds = "[red]broken[/red]"
        elif verdict.unbounded:
            holds = "for ever"
        else:
            holds = f"{verdict.depth} cycles"
        noticed = f"{verdict.noticed} of {verdict.faults}" if verdict.faults else "–"
        row = (task.name, task.what, str(verdict.checks), holds, noticed, f"{verdict.seconds:.1f}")
        table.add_row(*(cell if cell.startswith("[red]") else escape(cell) for cell in row))
    console.print(table, highlight=False)
    for task, verdict in runs:
        if text := task.shortcoming(verdict):
            console.print(f"[red]{escape(task.name)}[/red]: {escape(text)}", highlight=False)
