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

from catalog.catalogue import registered
from study.commands.options import NAMED_BY

PARAMETER = "model_config"

HELP = "A Hugging Face config.json that describes the model; the catalogue's record is then not used"


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
        from study.commands.described_model import is_foreign, resolve  # opens traces

        given = {name for name in NAMED_BY if name in values and _was_given(ctx, name)}
        record, values = resolve(path, values, given)
        # If only the configuration gives a name, a name in the recording takes precedence.
        recorded = not given and (values.get("model") == record.name or is_foreign(values))
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
