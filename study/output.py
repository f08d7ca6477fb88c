"""What commands print: one JSON document on stdout, or a table; progress and messages on stderr."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Document = BaseModel | dict[str, Any]
ProgressCallback = Callable[[int, int], None]
"""Called with (done, total) by long work."""

messages = Console(stderr=True)


def emit(document: Document, *, as_json: bool, render: Callable[[Console], None]) -> None:
    """Print ``document`` as JSON on stdout, or let ``render`` draw it there for a person."""
    if as_json:
        sys.stdout.write(json.dumps(jsonable(document), indent=2) + "\n")
    else:
        render(Console())


def jsonable(document: Document) -> dict[str, Any]:
    """A document as plain JSON values."""
    return document.model_dump(mode="json") if isinstance(document, BaseModel) else document


@contextmanager
def progress_bar(label: str) -> Iterator[ProgressCallback]:
    """A progress bar on stderr; yields the callback that moves it."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    # Without a terminal there is nothing to draw, and Rich would leave an empty line.
    with Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal) as progress:
        task = progress.add_task(label, total=None)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield advance
