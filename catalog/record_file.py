"""Write a record into a catalogue file, the TOML that ``load_catalog`` reads."""

import json
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from catalog.catalogue import check_names, parse_records
from catalog.errors import ForestageError
from catalog.files import write_text
from catalog.names import key
from catalog.records import Record


def record_toml(kind: str, record: Record) -> str:
    """``record`` as an entry of a catalogue file; values equal to their defaults are left out."""
    lines = [f"[[{kind}]]"]
    for name, field in type(record).model_fields.items():
        value = getattr(record, name)
        if name != "field_sources" and (field.is_required() or value != field.default):
            lines.append(f"{name} = {_toml(value)}")
    if record.field_sources:
        lines.append(f"[{kind}.field_sources]")
        lines += [f"{name} = {_toml(source)}" for name, source in record.field_sources.items()]
    return "\n".join(lines) + "\n"


def add_record(path: Path, kind: str, record: Record, *, replace: bool = False) -> None:
    """Append ``record`` to the catalogue file ``path``, made if missing; nothing is written on an error.

    Args:
        path: the file.
        kind: the record's table, such as ``model``.
        record: what to add.
        replace: whether to replace a record of that name in the file.

    Raises:
        ForestageError: if the file cannot be read or written, is not a catalogue file, or already holds the name.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ForestageError(f"{path}: cannot read the catalogue file ({type(error).__name__})") from error
    known = parse_records(str(path), text)
    old = next((old for known_kind, old in known if known_kind == kind and key(old.name) == key(record.name)), None)
    if old is not None:
        if not replace:
            raise ForestageError(f"{path}: {kind} '{old.name}' is there already; give --replace, or another --name")
        text = _without(text, kind, old.name)
    separator = "\n" if text.strip() else ""
    text = (text.rstrip("\n") + "\n" if text.strip() else "") + separator + record_toml(kind, record)
    check_names(str(path), parse_records(str(path), text))
    write_text(path, text)


def _without(text: str, kind: str, name: str) -> str:
    """``text`` without the entry ``name``; comments above other entries stay where they are."""
    lines = text.splitlines(keepends=True)
    starts = [number for number, line in enumerate(lines) if line.lstrip().startswith("[[")] + [len(lines)]
    for begin, end in pairwise(starts):
        entries = tomllib.loads("".join(lines[begin:end])).get(kind, [])
        if any(entry.get("name") == name for entry in entries):
            return "".join(lines[:begin] + lines[end:])
    return text


def _toml(value: Any) -> str:
    """A value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        kept = {
            name: getattr(value, name)
            for name in fields
            if name == "kind" or fields[name].is_required() or getattr(value, name) != fields[name].default
        }
        return _toml(kept)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(name)} = {_toml(part)}" for name, part in value.items()) + " }"
    raise TypeError(f"no TOML for {type(value).__name__}")


def _key(name: str) -> str:
    """A key, quoted where it must be."""
    return name if name and all(c.isascii() and (c.isalnum() or c in "_-") for c in name) else json.dumps(name)
