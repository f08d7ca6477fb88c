"""``forestage catalog fields``: the meaning of each field of a record."""

import inspect
import re
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog import FixedState, GroupedQueryAttention, HybridAttention, LatentAttention, PimBlocks
from catalog.catalogue import KINDS
from catalog.config import StrictModel
from catalog.errors import unknown_name
from study.commands.options import JsonOption
from study.output import emit

PARTS: dict[str, tuple[type[StrictModel], ...]] = {
    "model": (GroupedQueryAttention, LatentAttention, FixedState, HybridAttention),
    "dram": (PimBlocks,),
}
"""Kind of record → the parts nested in it."""


def fields_command(
    kind: Annotated[str, typer.Option("--kind", help=f"One of {', '.join(KINDS)}")] = "model",
    as_json: JsonOption = False,
) -> None:
    """List the fields of a record, which of them are required, and what they mean."""
    if kind not in KINDS:
        raise unknown_name("--kind", kind, KINDS)
    tables = [(kind, KINDS[kind]), *((part.__name__, part) for part in PARTS.get(kind, ()))]
    meanings = [(name, fields_of(model)) for name, model in tables]

    def render(console: Console) -> None:
        for name, fields in meanings:
            console.print(f"[bold]{name}[/bold]", highlight=False)
            table = Table("field", "must be there", "meaning", box=None)
            for field in fields:
                table.add_row(field["field"], "yes" if field["required"] else "", escape(field["meaning"]))
            console.print(table, highlight=False)

    documents = [{"of": name, "fields": fields} for name, fields in meanings]
    emit({"kind": kind, "tables": documents}, as_json=as_json, render=render)


def fields_of(model: type[StrictModel]) -> list[dict[str, Any]]:
    """Fields of a record or part in order, with their meanings from the class's docstring."""
    meanings: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, StrictModel):
            meanings |= meanings_of(base)
    return [
        {"field": name, "required": field.is_required(), "meaning": meanings.get(name, "")}
        for name, field in model.model_fields.items()
    ]


def meanings_of(model: type[StrictModel]) -> dict[str, str]:
    """Field → its meaning in the docstring's list of attributes."""
    text = inspect.getdoc(model) or ""
    attributes = text.partition("Attributes:")[2]
    found: dict[str, str] = {}
    for entry in re.split(r"\n    (?=\S)", "\n" + attributes.strip("\n")):
        names, colon, meaning = " ".join(entry.split()).partition(": ")
        if colon:
            found |= {name.strip(): meaning for name in names.split(",")}
    return found
