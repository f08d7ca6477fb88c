"""The parts that the trace commands share: the argument, and the tables of labels."""

from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from traces.describe import LabelCount
from traces.statistics import DomainStatistics

Label = TypeVar("Label", LabelCount, DomainStatistics)

LABELS_SHOWN = 12
"""Most labels in a printed table, the largest first; ``--json`` has all."""

TraceArgument = Annotated[Path, typer.Argument(help="A trace, in any known format")]


def largest(labels: dict[str, Label]) -> list[tuple[str, Label]]:
    """The labels with the most tokens, as many as a table shows."""
    return sorted(labels.items(), key=lambda item: -item[1].tokens)[:LABELS_SHOWN]


def tell_omitted(console: Console, labels: int) -> None:
    """Print how many labels the table above leaves out, if any."""
    if labels > LABELS_SHOWN:
        console.print(f"[dim]… and {labels - LABELS_SHOWN} smaller domains; --json lists all[/dim]", highlight=False)
