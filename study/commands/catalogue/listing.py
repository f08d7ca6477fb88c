"""``forestage catalog list``: one line per record."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from catalog import ModelRecord, Record, load_catalog
from catalog.catalogue import KINDS
from catalog.errors import unknown_name
from study.commands.options import JsonOption
from study.numbers import billions, count, size
from study.output import emit


def list_command(
    kind: Annotated[str, typer.Option("--kind", help=f"One of {', '.join(KINDS)}")] = "model",
    as_json: JsonOption = False,
) -> None:
    """List every record of a kind, your own included."""
    if kind not in KINDS:
        raise unknown_name("--kind", kind, KINDS)
    records: list[Record] = list(load_catalog().of_kind(kind))

    def render(console: Console) -> None:
        console.print(models_table(records) if kind == "model" else others_table(records), highlight=False)

    emit({"kind": kind, "records": [summary(record) for record in records]}, as_json=as_json, render=render)


def summary(record: Record) -> dict[str, Any]:
    """A record's line, as a document."""
    document: dict[str, Any] = {"name": record.name, "aliases": list(record.aliases), "evidence": record.evidence.value}
    if isinstance(record, ModelRecord):
        document |= {
            "layers": record.layers,
            "moe_layers": record.moe_layers,
            "experts": record.experts,
            "top_k": record.top_k,
            "expert_bytes": record.expert_bytes,
            "parameters": record.parameters(),
        }
    return document


def models_table(records: list[Record]) -> Table:
    """Table of models with shape and sizes."""
    table = Table("model", "MoE layers", "experts", "top-k", "an expert", "parameters", "evidence", box=None)
    for record in records:
        assert isinstance(record, ModelRecord)
        table.add_row(
            record.name,
            f"{record.moe_layers} of {record.layers}",
            count(record.experts),
            str(record.top_k),
            size(record.expert_bytes),
            billions(record.parameters()),
            record.evidence.value,
        )
    return table


def others_table(records: list[Record]) -> Table:
    """Table of other records with name, evidence and source."""
    table = Table("name", "evidence", "source", box=None)
    for record in records:
        table.add_row(record.name, record.evidence.value, record.source)
    return table
