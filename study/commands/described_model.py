"""The model that ``--config`` describes, and the recording that a command names beside it."""

from pathlib import Path
from typing import Any

from catalog import ModelRecord, load_catalog
from catalog.errors import ForestageError
from catalog.model_config import read_model_config
from study.commands.options import NAMED_BY
from traces import RoutingTrace
from traces.expert_load import ExpertLoad
from traces.importers import FORMATS, sniff_format
from traces.importers.formats import own

TRACE_PARAMETERS = ("trace", "source")


def resolve(path: Path, values: dict[str, Any], given: set[str]) -> tuple[ModelRecord, dict[str, Any]]:
    """The record of the configuration ``path``, and the command's ``values`` with the record's name filled in.

    The record is the model of ``--like`` or ``--sizes-of`` if the command has them, else of ``--model``; a name that
    was ``given`` there becomes its name. The project's own trace names its model, so the record takes that name.

    Raises:
        ForestageError: if the configuration cannot be read, or the trace cannot be of its model.
    """
    values = dict(values)
    target = next((name for name in NAMED_BY if name in values), None)
    source = next((values[name] for name in TRACE_PARAMETERS if isinstance(values.get(name), Path)), None)
    recorded = None if source is None or target in ("like", "sizes_of") else own_recording(source)
    if recorded is not None:
        if "model" in given:
            raise ForestageError(f"{source}: --model: the file names its model; leave it out")
        record = read_model_config(path, recorded.metadata.model)
        _check_fits(record, recorded, path, source)
        return record, values
    record = read_model_config(path, values[target] if target in given else None)
    if target is not None and target in given:
        _check_name(record, values[target], path)
    if target is not None:
        values[target] = record.name
    if target == "sizes_of" and source is not None and "model" not in given and own_recording(source) is None:
        values["model"] = record.name
    return record, values


def _check_name(record: ModelRecord, name: str, path: Path) -> None:
    """Refuse a name that the catalogue gives to a model whose shape differs from the configuration's.

    Raises:
        ForestageError: naming both.
    """
    known = load_catalog().match_shape(name)
    if known is not None and known.routing_shape != record.routing_shape:
        raise ForestageError(
            f"{path}: is no configuration of {name}: {known.name} of the catalogue has other layers, experts or "
            "top-k; give one of the two, or the model's own name"
        )


def own_recording(source: Path) -> RoutingTrace | ExpertLoad | None:
    """The project's own trace or loads at ``source``; ``None`` if it has another format or does not exist."""
    if not source.is_file():
        return None
    importer = FORMATS[sniff_format(source)]
    if importer is own.TRACE:
        return RoutingTrace.load(source, validate=False)
    return ExpertLoad.load(source) if importer is own.LOAD else None


def is_foreign(values: dict[str, Any]) -> bool:
    """Whether a command without a model's name gets a trace of another format, whose model the configuration names."""
    source = values.get("trace")
    names_none = not any(name in values for name in NAMED_BY)
    return names_none and isinstance(source, Path) and own_recording(source) is None


def _check_fits(record: ModelRecord, recorded: RoutingTrace | ExpertLoad, path: Path, source: Path | None) -> None:
    """Refuse a model that cannot be the recording's.

    Raises:
        ForestageError: naming both.
    """
    metadata = recorded.metadata
    if metadata.experts != record.experts:
        raise ForestageError(f"{path}: {record.experts} experts a layer, but {source} has {metadata.experts}")
    absent = sorted(set(metadata.layer_map) - set(record.layer_map))
    if absent:
        raise ForestageError(f"{path}: no experts in layer {absent[0]}, but {source} has routing there")
