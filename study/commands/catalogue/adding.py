"""``forestage catalog add``: keep the model that a Hugging Face configuration describes in a file of the user's."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from catalog import ModelRecord, load_catalog
from catalog.catalogue import parse_records, user_catalogue
from catalog.errors import ForestageError
from catalog.model_config import read_model_config
from catalog.names import key
from catalog.record_file import add_record
from study.commands.catalogue.listing import summary
from study.commands.options import JsonOption, parse_parameters
from study.output import emit


def add_command(
    config: Annotated[Path, typer.Argument(help="A model's config.json, or the folder that holds it")],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the model; default: that of the file or its folder")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", help="Where the file comes from; kept with the record")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="field=value, used in place of the file's value; several times")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="The catalogue file to write (.toml); default: your own, which every command reads"),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the record of that name in the file")] = False,
    as_json: JsonOption = False,
) -> None:
    """Add the model that a configuration describes to your catalogue; every command then knows it by name."""
    record = changed(read_model_config(config, name), parse_parameters(settings or []), source)
    path = to or user_catalogue()
    check_free(record, path, replace=replace)
    add_record(path, "model", record, replace=replace)

    def render(console: Console) -> None:
        console.print(
            f"{escape(record.name)}: {record.moe_layers} of {record.layers} layers with {record.experts} experts, "
            f"top-{record.top_k}; added to {escape(str(path))}",
            highlight=False,
            soft_wrap=True,
        )

    emit({**summary(record), "file": str(path)}, as_json=as_json, render=render)


def changed(record: ModelRecord, values: dict[str, Any], source: str | None) -> ModelRecord:
    """``record`` with the user's values and source; the values are marked as the user's.

    Raises:
        ForestageError: if a field or value is not a model's.
    """
    document = record.model_dump()
    if source is not None:
        document["source"] = f"{source}: {record.source}"
    for field, value in values.items():
        document[field] = value
        if field in type(record).model_fields and field not in ("name", "aliases", "source", "evidence"):
            document["field_sources"][field] = {"source": "given by hand with --set", "evidence": "assumption"}
    return ModelRecord.parse(document, origin="--set")


def check_free(record: ModelRecord, path: Path, *, replace: bool) -> None:
    """Refuse a name that a record of another file has, or one of this file that is not to be replaced.

    Raises:
        ForestageError: naming the record that has it.
    """
    names = {key(name) for name in (record.name, *record.aliases)}
    catalog = load_catalog()
    for name in sorted(names):
        known = catalog.models.get(name)
        if known is None:
            continue
        if key(known.name) == key(record.name) and _holds(path, known.name):
            if replace:
                continue
            raise ForestageError(
                f"{path}: model '{known.name}' is there already; give --replace, or another name with --name"
            )
        raise ForestageError(
            f"model '{name}' is in the catalogue already ('{known.name}'); give another name with --name, or describe "
            "it for one command with --config"
        )


def _holds(path: Path, name: str) -> bool:
    """Whether the file holds a model of that name."""
    if not path.is_file():
        return False
    text = path.read_text(encoding="utf-8", errors="replace")
    return any(kind == "model" and record.name == name for kind, record in parse_records(str(path), text))
