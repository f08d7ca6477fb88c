"""``forestage catalog show``: one record, each value with its source."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog import Record, load_catalog
from catalog.catalogue import KINDS
from catalog.errors import ForestageError, unknown_name
from study.commands.options import JsonOption
from study.output import emit


def show_command(
    name: Annotated[str, typer.Argument(help="A record's name or alias")],
    kind: Annotated[
        str | None, typer.Option("--kind", help="Kind of the record; needed where several kinds have one of that name")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a record: the value, evidence and source of every field."""
    if kind is not None and kind not in KINDS:
        raise unknown_name("--kind", kind, KINDS)
    found_kind, record = find_record(name, kind)
    fields = [field_document(record, field) for field in value_fields(record)]
    document = {"kind": found_kind, "name": record.name, "aliases": list(record.aliases), "fields": fields}

    def render(console: Console) -> None:
        aliases = f" (also {', '.join(record.aliases)})" if record.aliases else ""
        console.print(f"[bold]{escape(record.name)}[/bold]{escape(aliases)}", highlight=False)
        console.print(f"Source ({record.evidence.value}): {escape(record.source)}", highlight=False)
        table = Table("field", "value", "evidence", "source", box=None)
        for field in fields:
            source = escape(field["source"]) if field["field"] in record.field_sources else "as above"
            table.add_row(field["field"], escape(value_text(field["value"])), field["evidence"], source)
        console.print(table, highlight=False)

    emit(document, as_json=as_json, render=render)


def value_text(value: Any) -> str:
    """A field's value for a reader; parts that are absent or switched off are left out."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(value_text, value)) or "none"
    if isinstance(value, dict):
        said = {name: part for name, part in value.items() if part is not None and part is not False}
        return "\n".join(
            f"{name}: " + value_text(part).replace("\n", ", ") if name != "kinds" else value_text(part)
            for name, part in said.items()
        )
    return str(value)


def find_record(name: str, kind: str | None) -> tuple[str, Record]:
    """The record and its kind; a model may be named as recordings name it.

    Raises:
        ForestageError: if no kind has the name, or several have and ``kind`` is not given.
    """
    catalog = load_catalog()
    found: dict[str, Record] = {}
    for one in KINDS:
        record = catalog.match_model(name) if one == "model" else catalog.of_kind(one).get(name)
        if record is not None and kind in (None, one):
            found[one] = record
    if len(found) > 1:
        raise ForestageError(f"{name}: is the name of a {' and of a '.join(found)}; choose one with --kind")
    if not found:
        if kind is not None:
            catalog.of_kind(kind).find(name)
        known = [record.name for one in KINDS for record in catalog.of_kind(one)]
        raise unknown_name("catalogue", name, known)
    return next(iter(found.items()))


def value_fields(record: Record) -> list[str]:
    """The record's own fields."""
    return [field for field in type(record).model_fields if field not in Record.model_fields]


def field_document(record: Record, field: str) -> dict[str, Any]:
    """A field, its value and the value's source; says if the value is a default."""
    source = record.source_of(field)
    value = record.model_dump(mode="json", include={field})[field]
    return {"field": field, "value": value, "evidence": source.evidence.value, "source": source.source}
