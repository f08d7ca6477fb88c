"""Options of several commands, and checks of what was typed."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from catalog.errors import ForestageError
from catalog.files import check_writable

TraceOption = Annotated[Path, typer.Option("--trace", help="A routing trace, in any format that `trace import` reads")]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="The trace's model, by its name in the catalogue; needed where the file names none"),
]
ScopeOption = Annotated[
    str, typer.Option("--scope", help="layer (each layer has a cache of its own) or global (one cache for all layers)")
]
EmaShiftOption = Annotated[
    int, typer.Option("--ema-shift", help="Decayed frequency: the counters forget over 2^shift events")
]
SplitOption = Annotated[
    str, typer.Option("--split", help="Sequences to use: train, test, or all if nothing was trained on this trace")
]
DomainOption = Annotated[
    list[str] | None, typer.Option("--domain", help="Use only sequences of this domain; several times")
]
DatasetOption = Annotated[
    list[str] | None, typer.Option("--dataset", help="Use only sequences of this data set; several times")
]
ResamplesOption = Annotated[
    int, typer.Option("--resamples", min=0, help="Bootstrap resamples for the 95 % intervals; 0 gives no intervals")
]
LookaheadOption = Annotated[int, typer.Option("--lookahead", help="How many layers ahead to predict")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout in place of tables")]

NAMED_BY = ("like", "sizes_of", "model")
"""Parameters that name a model; ``--config`` describes that of the first one a command has."""


def check_destination(path: Path, source: Path | None = None) -> None:
    """Raise, before long work, if its result could not be written to ``path`` or would overwrite ``source``.

    Raises:
        ForestageError: naming the path.
    """
    if source is not None and source.exists() and path.exists() and path.samefile(source):
        raise ForestageError(f"--out {path}: is the source, which would be lost; name another file")
    check_writable(path)


def parse_parameters(settings: list[str]) -> dict[str, Any]:
    """``name=value`` texts as a dictionary; values are JSON if they parse as JSON, else text.

    Raises:
        ForestageError: for a text without ``=``, or a name given twice.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator or not name:
            raise ForestageError(f"--set {setting}: write name=value")
        if name in values:
            raise ForestageError(f"--set {name}: given twice; give it once")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values
