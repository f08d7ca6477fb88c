"""``forestage predictor list``: the kinds of predictors and their parameters."""

from rich.console import Console
from rich.table import Table

from predictor import registry
from study.commands.options import JsonOption
from study.output import emit


def list_predictors(as_json: JsonOption = False) -> None:
    """List the predictors and their parameters with defaults."""
    document = {name: registry.resolved_parameters(name) for name in registry.names()}

    def render(console: Console) -> None:
        table = Table("predictor", "parameters", box=None)
        for name, parameters in document.items():
            settings = ", ".join(f"{key}={value}" for key, value in parameters.items()) or "–"
            trained = name not in registry.profiled_names()
            table.add_row(name, "in the file that `forestage predictor train` writes" if trained else settings)
        console.print(table)

    emit(document, as_json=as_json, render=render)
