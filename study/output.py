"""Print a command's output: one JSON document or a table on stdout; progress and messages on stderr."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressDisplay

from catalog.progress import Progress

Document = BaseModel | dict[str, Any]

messages = Console(stderr=True)


def tell(text: str) -> None:
    """Print a line about the work on stderr, as it is: it may hold names of files, and is not wrapped."""
    messages.print(text, highlight=False, markup=False, soft_wrap=True)


def emit(document: Document, *, as_json: bool, render: Callable[[Console], None]) -> None:
    """Print ``document`` on stdout as JSON, or let ``render`` print it there as tables."""
    if as_json:
        sys.stdout.write(json.dumps(jsonable(document), indent=2) + "\n")
    else:
        render(Console())


def jsonable(document: Document) -> dict[str, Any]:
    """A document as plain JSON values."""
    return document.model_dump(mode="json") if isinstance(document, BaseModel) else document


@contextmanager
def progress_bar(label: str) -> Iterator[Progress]:
    """A progress bar on stderr; yields the callback that moves it."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    # Without a terminal Rich would draw nothing but an empty line.
    with ProgressDisplay(*columns, console=messages, transient=True, disable=not messages.is_terminal) as progress:
        task = progress.add_task(label, total=None)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield advance
