"""``--config config.json`` wherever a model is named: use the model that a Hugging Face configuration describes.

Every command that names a model gets the option here, and while it runs the catalogue knows the model. Commands that
have a ``--config`` of their own (a study's TOML, a recipe) call this option ``--model-config``.
"""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from catalog import ModelRecord, load_catalog
from catalog.catalogue import registered
from catalog.errors import ForestageError
from catalog.model_config import read_model_config
from traces import RoutingTrace
from traces.expert_load import ExpertLoad
from traces.importers import FORMATS, sniff_format
from traces.importers.formats import own

NAMED_BY = ("like", "sizes_of", "model")
"""Parameters that name a model; ``--config`` describes that of the first one a command has."""

TRACE_PARAMETERS = ("trace", "source")

PARAMETER = "model_config"

HELP = "A Hugging Face config.json that describes the model, in place of the catalogue"


def add_config_options(app: typer.Typer) -> None:
    """Give the option to every command of ``app`` and of its groups that names a model."""
    for command in app.registered_commands:
        callback = command.callback
        if callback is not None and _names_a_model(callback):
            command.callback = with_model_config(callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            add_config_options(group.typer_instance)


def _names_a_model(callback: Callable[..., Any]) -> bool:
    """Whether a command has a parameter for a model that the catalogue may lack, and does not have the option yet."""
    names = inspect.signature(callback).parameters
    if PARAMETER in names:
        return False
    # `trace capture` takes a model's folder, which has its configuration inside.
    return any(name in names and Path not in get_args(names[name].annotation) for name in NAMED_BY) or "trace" in names


def _was_given(ctx: typer.Context, name: str) -> bool:
    """Whether the user typed the parameter."""
    origin = ctx.get_parameter_source(name)
    return origin is not None and origin.name == "COMMANDLINE"


def with_model_config(callback: Callable[..., Any]) -> Callable[..., Any]:
    """``callback`` with the option: while it runs, the model is known and is the one that its parameters name."""
    signature = inspect.signature(callback)
    option = "--model-config" if "config" in signature.parameters else "--config"

    @functools.wraps(callback)
    def command(ctx: typer.Context, **values: Any) -> Any:
        path = values.pop(PARAMETER)
        if path is None:
            return callback(**values)
        given = {name for name in NAMED_BY if name in values and _was_given(ctx, name)}
        record, values = resolve(path, values, given)
        # If only the configuration gives a name, a name in the recording takes precedence.
        recorded = not given and (values.get("model") == record.name or _is_foreign(values))
        with registered(record, str(path), f"{option} {path}" if recorded else None):
            return callback(**values)

    parameters = [
        inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in signature.parameters.values()),
        inspect.Parameter(
            PARAMETER,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[Path | None, typer.Option(option, help=HELP)],
        ),
    ]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


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
    recorded = None if source is None or target in ("like", "sizes_of") else _own_recording(source)
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
    if target == "sizes_of" and source is not None and "model" not in given and _own_recording(source) is None:
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


def _own_recording(source: Path) -> RoutingTrace | ExpertLoad | None:
    """The project's own trace or loads at ``source``; ``None`` if it has another format or does not exist."""
    if not source.is_file():
        return None
    importer = FORMATS[sniff_format(source)]
    if importer is own.TRACE:
        return RoutingTrace.load(source, validate=False)
    return ExpertLoad.load(source) if importer is own.LOAD else None


def _is_foreign(values: dict[str, Any]) -> bool:
    """Whether a command without a model's name gets a trace of another format, whose model the configuration names."""
    source = values.get("trace")
    names_none = not any(name in values for name in NAMED_BY)
    return names_none and isinstance(source, Path) and _own_recording(source) is None


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
