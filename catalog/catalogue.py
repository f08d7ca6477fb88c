"""Loading the catalogue: the shipped TOML files and the user's, checked together."""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Generic, TypeVar

from catalog.dram import DramRecord
from catalog.energy import EnergyRecord
from catalog.errors import ForestageError
from catalog.machines import MachineRecord
from catalog.models import ModelRecord
from catalog.records import Record

ENVIRONMENT = "FORESTAGE_CATALOG"
"""Files or folders of TOML that are always loaded, separated as in PATH."""

RecordT = TypeVar("RecordT", bound=Record)

# Endings that name a tuning or a date of a model, never another shape or weight format.
VARIANT = re.compile(r"(?:-(?:instruct|chat|thinking|base|it|hf|sft|v\d+(?:\.\d+)?|\d{4}))+$")


@dataclass(frozen=True)
class Records(Generic[RecordT]):
    """Records of one kind by name, aliases and case understood."""

    kind: str
    by_name: Mapping[str, RecordT]
    keys: Mapping[str, str] = field(repr=False)

    def __iter__(self) -> Iterator[RecordT]:
        return iter(self.by_name.values())

    def __len__(self) -> int:
        return len(self.by_name)

    def names(self) -> tuple[str, ...]:
        """Names in the order of the files."""
        return tuple(self.by_name)

    def get(self, name: str) -> RecordT | None:
        """The record of that name or alias, or ``None``."""
        name_of = self.keys.get(_key(name))
        return None if name_of is None else self.by_name[name_of]

    def find(self, name: str) -> RecordT:
        """The record of that name or alias.

        Raises:
            ForestageError: naming the nearest known one.
        """
        record = self.get(name)
        if record is None:
            nearest = difflib.get_close_matches(_key(name), list(self.keys), n=1, cutoff=0.0)
            hint = f"the nearest known is '{self.keys[nearest[0]]}'" if nearest else "the catalogue has none"
            raise ForestageError(f"{self.kind} '{name}' is not in the catalogue; {hint} (add records by {ENVIRONMENT})")
        return record


@dataclass(frozen=True)
class Catalog:
    """Everything known."""

    models: Records[ModelRecord]
    dram: Records[DramRecord]
    energy: Records[EnergyRecord]
    machines: Records[MachineRecord]

    def match_model(self, name: str) -> ModelRecord | None:
        """The model that a trace's model string means, or ``None``.

        Names and aliases match whatever their case, owner (``openai/``), and ``_`` for ``-``; endings that name a
        tuning or a date (``-Instruct-2507``) are dropped. An ending that names another weight format (``-GGUF``,
        ``-AWQ``) is not: its experts have other bytes, so it needs a record of its own.
        """
        return self.models.get(name) or self.models.get(VARIANT.sub("", _key(name)))

    def find_model(self, name: str) -> ModelRecord:
        """As ``match_model``.

        Raises:
            ForestageError: naming the nearest known model.
        """
        return self.match_model(name) or self.models.find(name)


KINDS: dict[str, type[Record]] = {
    "model": ModelRecord,
    "dram": DramRecord,
    "energy": EnergyRecord,
    "machine": MachineRecord,
}
"""Table names of the TOML files."""


def load_catalog(extra: Path | str | Iterable[Path | str] | None = None) -> Catalog:
    """The shipped catalogue, the files of ``FORESTAGE_CATALOG`` and ``extra`` (files or folders of ``*.toml``).

    Raises:
        ForestageError: one line naming the file and record: unreadable or malformed TOML, an unknown or duplicate
            key, a value outside its unit's range, a name that is already taken.
    """
    shipped = resources.files("catalog") / "data"
    texts = [
        (entry.name, entry.read_text(encoding="utf-8")) for entry in shipped.iterdir() if entry.name.endswith(".toml")
    ]
    texts.sort()
    added = [Path(part) for part in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if part]
    added += [Path(extra)] if isinstance(extra, (str, Path)) else [Path(part) for part in extra or ()]
    for path in added:
        texts += [(str(file), _read(file)) for file in _files(path)]
    found: dict[str, list[tuple[Record, str]]] = {kind: [] for kind in KINDS}
    for origin, text in texts:
        for kind, record in _parse(origin, text):
            found[kind].append((record, origin))
    catalog = Catalog(
        models=_index("model", found["model"]),
        dram=_index("dram", found["dram"]),
        energy=_index("energy", found["energy"]),
        machines=_index("machine", found["machine"]),
    )
    for record, origin in found["machine"]:
        device = getattr(record, "dram", None)
        if device is not None and catalog.dram.get(device) is None:
            raise ForestageError(f"{origin}: machine '{record.name}': dram: no DRAM device is named '{device}'")
    return catalog


def _files(path: Path) -> list[Path]:
    """The file itself, or the TOML files of a folder."""
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.toml"))
    if not files:
        raise ForestageError(f"{path}: the folder holds no .toml file")
    return files


def _read(path: Path) -> str:
    """The text of a user's file."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ForestageError(f"{path}: cannot read the catalogue file ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ForestageError(f"{path}: not UTF-8 text") from error


def _parse(origin: str, text: str) -> list[tuple[str, Record]]:
    """The records of one file, with their kinds."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ForestageError(f"{origin}: not valid TOML: {error}") from error
    records: list[tuple[str, Record]] = []
    for kind, entries in tables.items():
        if kind not in KINDS:
            nearest = difflib.get_close_matches(kind, KINDS, n=1, cutoff=0.0)[0]
            raise ForestageError(f"{origin}: unknown table '{kind}'; the nearest known is '[[{nearest}]]'")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ForestageError(f"{origin}: '{kind}' must be an array of tables: write [[{kind}]]")
        for number, entry in enumerate(entries, start=1):
            name = f"'{entry['name']}'" if "name" in entry else f"number {number}"
            records.append((kind, KINDS[kind].parse(entry, origin=f"{origin}: {kind} {name}")))
    return records


def _index(kind: str, found: list[tuple[Record, str]]) -> Records[Any]:
    """Records by name; a name or alias may be taken once."""
    keys: dict[str, str] = {}
    owners: dict[str, str] = {}
    for record, origin in found:
        for name in dict.fromkeys(_key(name) for name in (record.name, *record.aliases)):
            if name in keys:
                raise ForestageError(
                    f"{origin}: {kind} '{record.name}': the name '{name}' is taken by '{keys[name]}' of "
                    f"{owners[name]}; choose another"
                )
            keys[name] = record.name
            owners[name] = origin
    return Records(kind, {record.name: record for record, _ in found}, keys)


def _key(name: str) -> str:
    """A name as it is compared: lower case, without an owner, ``-`` for ``_`` and spaces."""
    return re.sub(r"[_\s]+", "-", name.strip().rsplit("/", 1)[-1].lower())
