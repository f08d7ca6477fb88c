"""Load the catalogue: the shipped TOML files and the user's, checked together."""

import difflib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from catalog.dram import DramRecord
from catalog.energy import EnergyRecord
from catalog.errors import ForestageError
from catalog.families import FAMILIES
from catalog.host_memories import HostMemoryRecord
from catalog.machines import MachineRecord
from catalog.models import ModelRecord
from catalog.names import formats_of, key, stems_of, tunings_of
from catalog.records import Record
from catalog.sram import SramRecord
from catalog.toml_text import parse_toml, read_text

ENVIRONMENT = "FORESTAGE_CATALOG"
"""Environment variable: TOML files or folders that are always loaded, separated as in PATH."""

WAYS_OUT = {
    "model": "; describe it with --config config.json, or add it for good with: forestage catalog add config.json",
}
"""Remedy for an unknown name, by kind."""

RecordT = TypeVar("RecordT", bound=Record)


class Registered(NamedTuple):
    """A model that is known for a while only, such as the one of ``--config``.

    Attributes:
        record: the model.
        origin: where it comes from, for errors.
        option: the option as the user typed it, if the model has its name only from its configuration.
    """

    record: ModelRecord
    origin: str
    option: str | None = None


_REGISTERED: ContextVar[tuple[Registered, ...]] = ContextVar("registered models", default=())


@dataclass(frozen=True)
class Records(Generic[RecordT]):
    """Records of one kind, found by name or alias in any case."""

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
        name_of = self.keys.get(key(name))
        return None if name_of is None else self.by_name[name_of]

    def find(self, name: str) -> RecordT:
        """The record of that name or alias.

        Raises:
            ForestageError: naming the nearest known one.
        """
        record = self.get(name)
        if record is None:
            nearest = difflib.get_close_matches(key(name), list(self.keys), n=1, cutoff=0.0)
            hint = f"the nearest known is '{self.keys[nearest[0]]}'" if nearest else "the catalogue has none"
            raise ForestageError(f"{self.kind} '{name}' is not in the catalogue; {hint}{WAYS_OUT.get(self.kind, '')}")
        return record


@dataclass(frozen=True)
class Catalog:
    """All records, by kind."""

    models: Records[ModelRecord]
    dram: Records[DramRecord]
    energy: Records[EnergyRecord]
    machines: Records[MachineRecord]
    host_memories: Records[HostMemoryRecord]
    sram: Records[SramRecord]

    def of_kind(self, kind: str) -> Records[Any]:
        """The records of a table of ``KINDS``."""
        kinds: dict[str, Records[Any]] = {
            "model": self.models,
            "dram": self.dram,
            "energy": self.energy,
            "machine": self.machines,
            "host_memory": self.host_memories,
            "sram": self.sram,
        }
        return kinds[kind]

    def match_model(self, name: str) -> ModelRecord | None:
        """The record whose experts have exactly the bytes of the model named ``name`` in a trace, or ``None``.

        Matching ignores case, owner (``openai/``), path and download cache, and takes ``_`` for ``-``; it drops endings
        that name a tuning or a date (``-Instruct-2507``). It keeps an ending that names another weight format
        (``-GGUF``, ``-AWQ``): those experts have other bytes, so they need a record of their own. ``match_shape``
        matches the routing's shape only. A ``model_type`` (``deepseek_v3``) never matches: models of different shapes
        share it.
        """
        if _is_architecture(name):
            return None
        return next(filter(None, map(self.models.get, tunings_of(name))), None)

    def match_shape(self, name: str) -> ModelRecord | None:
        """A record whose layers, experts and top-k are those of the model that ``name`` means, or ``None``.

        As ``match_model``, but endings that name a weight format are dropped too: they do not change the routing's
        shape. Do not take bytes from the record: they may differ.
        """
        record = self.match_model(name)
        if record is not None or _is_architecture(name):
            return record
        for stem in stems_of(name):
            # A record's own name may end in a weight format; without that ending it names the same shape.
            alike = {owner for known, owner in self.models.keys.items() if stem in formats_of(known)}
            found = sorted((self.models.by_name[owner] for owner in alike), key=lambda record: len(record.name))
            shapes = {record.routing_shape for record in found}
            if found:
                return found[0] if len(shapes) == 1 else None
        return None

    def find_model(self, name: str) -> ModelRecord:
        """As ``match_model``.

        Raises:
            ForestageError: naming the nearest known model.
        """
        return self.match_model(name) or self.models.find(name)

    def find_shape(self, name: str) -> ModelRecord:
        """As ``match_shape``.

        Raises:
            ForestageError: naming the nearest known model.
        """
        return self.match_shape(name) or self.models.find(name)


def _is_architecture(name: str) -> bool:
    """Whether ``name`` is a ``model_type`` and not the name of the registered model."""
    return "_" in name and name in FAMILIES and all(one.record.name != name for one in _REGISTERED.get())


KINDS: dict[str, type[Record]] = {
    "model": ModelRecord,
    "dram": DramRecord,
    "energy": EnergyRecord,
    "machine": MachineRecord,
    "host_memory": HostMemoryRecord,
    "sram": SramRecord,
}
"""Table names of the TOML files."""


@contextmanager
def registered(record: ModelRecord, origin: str, option: str | None = None) -> Iterator[None]:
    """Within this context, ``load_catalog`` returns ``record`` for its names, before any other record.

    Args:
        record: a model, such as the one of ``--config``.
        origin: where it comes from, for errors.
        option: the option as the user typed it, if the record has its name only from the configuration: then a name
            that a recording gives takes precedence.
    """
    token = _REGISTERED.set((*_REGISTERED.get(), Registered(record, origin, option)))
    try:
        yield
    finally:
        _REGISTERED.reset(token)


def configuring_option(name: str) -> str | None:
    """The option of the registered model, if its name is ``name`` and only its configuration gave it; else ``None``."""
    return next((one.option for one in _REGISTERED.get() if one.record.name == name), None)


def registered_from() -> Path | None:
    """The configuration file of the registered model; ``None`` without one."""
    known = _REGISTERED.get()
    return Path(known[0].origin) if known else None


def unclaimed() -> str | None:
    """The name of the registered model, if only its configuration gave it; else ``None``."""
    return next((one.record.name for one in _REGISTERED.get() if one.option is not None), None)


def call_registered(name: str) -> None:
    """If only its configuration named the registered model, let ``name``, which a recording gives it, find it too.

    This lasts as long as the registration.
    """
    known = _REGISTERED.get()
    alone = [one for one in known if one.option is not None and one.record.name != name]
    renamed = [Registered(one.record.model_copy(update={"name": name, "aliases": ()}), one.origin) for one in alone]
    _REGISTERED.set((*known, *renamed))


def user_catalogue() -> Path:
    """The file that ``forestage catalog add`` writes: ``forestage/catalogue.toml`` in the user's settings folder."""
    settings = os.environ.get("XDG_CONFIG_HOME")
    folder = Path(settings) if settings and Path(settings).is_absolute() else Path.home() / ".config"
    return folder / "forestage" / "catalogue.toml"


def load_catalog(extra: Path | str | Iterable[Path | str] | None = None) -> Catalog:
    """All records: shipped, the user's file, the files of ``FORESTAGE_CATALOG``, ``extra``, and the registered model.

    Args:
        extra: files or folders of ``*.toml``.

    Raises:
        ForestageError: one line naming the file and record: unreadable or malformed TOML, an unknown or duplicate
            key, a value outside its unit's range, a name that is already taken.
    """
    found: dict[str, list[tuple[Record, str]]] = {kind: list(_shipped()[kind]) for kind in KINDS}
    added = [path for path in (user_catalogue(),) if path.is_file()]
    added += [Path(part) for part in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if part]
    added += [Path(extra)] if isinstance(extra, (str, Path)) else [Path(part) for part in extra or ()]
    for path in added:
        for file in _files(path):
            for kind, record in parse_records(str(file), read_text(file)):
                found[kind].append((record, str(file)))
    for model, origin, _ in _REGISTERED.get():
        taken = {key(name) for name in (model.name, *model.aliases)}
        found["model"] = [pair for pair in map(_without(taken), found["model"]) if pair is not None]
        found["model"].append((model, origin))
    catalog = Catalog(
        models=_index("model", found["model"]),
        dram=_index("dram", found["dram"]),
        energy=_index("energy", found["energy"]),
        machines=_index("machine", found["machine"]),
        host_memories=_index("host_memory", found["host_memory"]),
        sram=_index("sram", found["sram"]),
    )
    for record, origin in found["machine"]:
        device = getattr(record, "dram", None)
        if device is not None and catalog.dram.get(device) is None:
            raise ForestageError(f"{origin}: machine '{record.name}': dram: no DRAM device is named '{device}'")
        memory = getattr(record, "host_memory", None)
        if memory is not None and catalog.host_memories.get(memory) is None:
            raise ForestageError(
                f"{origin}: machine '{record.name}': host_memory: no host memory is named '{memory}'; add a "
                f"[[host_memory]] or name one of {', '.join(catalog.host_memories.names())}"
            )
    return catalog


@cache
def _shipped() -> dict[str, list[tuple[Record, str]]]:
    """The package's own records with their files, by kind."""
    found: dict[str, list[tuple[Record, str]]] = {kind: [] for kind in KINDS}
    files = sorted((resources.files("catalog") / "data").iterdir(), key=lambda entry: entry.name)
    for entry in files:
        if entry.name.endswith(".toml"):
            for kind, record in parse_records(entry.name, entry.read_text(encoding="utf-8")):
                found[kind].append((record, entry.name))
    return found


def _without(taken: set[str]) -> Callable[[tuple[Record, str]], tuple[Record, str] | None]:
    """Drop records whose name is in ``taken``; drop aliases that are."""

    def rest(pair: tuple[Record, str]) -> tuple[Record, str] | None:
        record, origin = pair
        if key(record.name) in taken:
            return None
        kept = tuple(alias for alias in record.aliases if key(alias) not in taken)
        return (record if kept == record.aliases else record.model_copy(update={"aliases": kept})), origin

    return rest


def _files(path: Path) -> list[Path]:
    """The file itself, or the TOML files of a folder."""
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.toml"))
    if not files:
        raise ForestageError(f"{path}: the folder holds no .toml file")
    return files


def parse_records(origin: str, text: str) -> list[tuple[str, Record]]:
    """The records of one file's TOML, with their kinds.

    Raises:
        ForestageError: naming ``origin`` and the record.
    """
    tables = parse_toml(text, origin)
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


def check_names(origin: str, records: list[tuple[str, Record]]) -> None:
    """Raise ForestageError, naming ``origin``, if two records of one kind answer to one name."""
    for kind in KINDS:
        _index(kind, [(record, origin) for known, record in records if known == kind])


def _index(kind: str, found: list[tuple[Record, str]]) -> Records[Any]:
    """Records by name; each name or alias may occur once."""
    keys: dict[str, str] = {}
    owners: dict[str, str] = {}
    for record, origin in found:
        for name in dict.fromkeys(key(name) for name in (record.name, *record.aliases)):
            if name in keys:
                raise ForestageError(
                    f"{origin}: {kind} '{record.name}': the name '{name}' is taken by '{keys[name]}' of "
                    f"{owners[name]}; choose another"
                )
            keys[name] = record.name
            owners[name] = origin
    return Records(kind, {record.name: record for record, _ in found}, keys)
