"""Groups of commands that are imported when they are asked for, so that each command loads what it needs only."""

from functools import cache
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from study.commands.command import use_options_command
from study.commands.model_config import add_config_options


def add_late_group(app: typer.Typer, name: str, module: str, text: str) -> None:
    """Give ``app`` the group ``name``: the commands of the ``app`` in ``module``, with ``text`` as its help."""
    late = type("LateGroup", (_LateGroup,), {"module": module})
    app.add_typer(typer.Typer(), name=name, help=text, cls=late, no_args_is_help=True)


class _LateGroup(TyperGroup):
    """A group that imports its ``module`` when something looks at its commands; the help of the parent does not."""

    module: ClassVar[str]

    @property
    def commands(self) -> Any:
        """Name → command."""
        return _commands(self.module)

    @commands.setter
    def commands(self, _: Any) -> None:
        """The base class sets the commands that are known from the start: none."""


@cache
def _commands(module: str) -> Any:
    app = import_module(module).app
    add_config_options(app)
    use_options_command(app)
    return typer.main.get_group(app).commands
