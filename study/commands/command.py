"""What every command of ``forestage`` checks: an option with one value is given once, an error names the option as it
was typed, no file that is read is overwritten, and a folder made for a file is reported.

Click would silently take the last of several values. Libraries know settings by their own names (``SettingError``),
which are not always those of the command's options.
"""

import sys
from collections import Counter
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperOption

from catalog.errors import ForestageError, SettingError

OTHER_NAMES = {
    "slots": "batch",
    "capacities": "capacity",
    "capacity_bytes": "capacity_mib",
    "columns": "column",
    "where": "pim",
    "dram": "pim_dram",
    "stacks": "pim_stacks",
    "stack_gb": "pim_stack_gb",
    "pseudo_channels_per_expert": "pim_pseudo_channels",
    "weight_format": "pim_format",
    "tokens_per_read": "pim_tokens_per_read",
    "latency_us": "pim_latency_us",
    "partial_sums": "pim_partial_sums",
}
"""Library setting → parameter, where their names differ by more than a plural."""

WRITTEN = ("out", "figure", "to")
"""Parameters that name files to write."""

_TYPED: ContextVar[frozenset[str]] = ContextVar("typed", default=frozenset())
"""The parameters of the running command that the user typed."""


class OptionsCommand(TyperCommand):
    """A command that refuses repeats and names options in errors."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as click does, after refusing repeated options.

        Raises:
            ForestageError: naming the option.
        """
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for parameter, times in Counter(order).items():
            if times > 1 and isinstance(parameter, TyperOption) and not (parameter.multiple or parameter.is_flag):
                raise ForestageError(f"{_typed(parameter)}: given {times} times, but it takes one value; give it once")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error about a setting names its option, if it has one.

        A missing folder of a file is made when the file is written, by every command; this method reports it.

        Raises:
            ForestageError: as the command does.
        """
        typed = {name for name in ctx.params if _origin(ctx, name) == "COMMANDLINE"}
        written = self._paths(ctx, written=True)
        _check_nothing_lost(written, self._paths(ctx, written=False))
        absent = {path: folder for path, _ in written if not (folder := path.absolute().parent).is_dir()}
        token = _TYPED.set(frozenset(typed))
        try:
            result = super().invoke(ctx)
            # Where the option itself names a folder, that it is made goes without saying.
            for folder in sorted({folder for path, folder in absent.items() if not path.is_dir()}):
                if folder.is_dir():
                    print(f"forestage: note: the folder {folder} was not there and has been made", file=sys.stderr)
            return result
        except SettingError as error:
            option = self._option_of(error)
            if option is None:
                raise
            given = _value_text(ctx.params.get(option.name) if error.value is None else error.value)
            raise ForestageError(f"{_typed(option)}{given}: {error.remedy}") from error
        finally:
            _TYPED.reset(token)

    def _paths(self, ctx: Any, *, written: bool) -> list[tuple[Path, str]]:
        """The given paths to write, or to read, each with the user's name for it."""
        found = []
        for parameter in self.params:
            name = str(parameter.name)
            value = ctx.params.get(name)
            for path in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(path, Path) and (name in WRITTEN) == written:
                    found.append((path, _typed(parameter) if isinstance(parameter, TyperOption) else name.upper()))
        return found

    def _option_of(self, error: SettingError) -> TyperOption | None:
        """The option that gives the setting, if one does."""
        options = [parameter for parameter in self.params if isinstance(parameter, TyperOption)]
        for setting in reversed(error.settings):
            names = {setting, OTHER_NAMES.get(setting, setting), setting.removesuffix("s")}
            for option in options:
                if option.name in names or _typed(option) in {f"--{name.replace('_', '-')}" for name in names}:
                    return option
        return None


def was_typed(parameter: str) -> bool:
    """Whether the user typed the parameter of the running command."""
    return parameter in _TYPED.get()


def refuse_unused(why: str, **parameters: str) -> None:
    """Refuse options that would have no effect here.

    Args:
        why: why they have none, and what to do about it.
        parameters: parameter = its option as typed.

    Raises:
        ForestageError: naming the first that the user typed.
    """
    for parameter, option in parameters.items():
        if was_typed(parameter):
            raise ForestageError(f"{option}: has no effect: {why}")


def _check_nothing_lost(written: list[tuple[Path, str]], read: list[tuple[Path, str]]) -> None:
    """Refuse to write a file that is also read, or two outputs to the same file.

    Raises:
        ForestageError: naming both.
    """
    for place, (path, option) in enumerate(written):
        for other, _ in read:
            if path.is_file() and other.is_file() and path.samefile(other):
                raise ForestageError(f"{option} {path}: is the source, which would be lost; name another file")
        for other, name in written[:place]:
            if path.absolute() == other.absolute():
                raise ForestageError(f"{option} {path}: is what {name} writes; name another file")


def use_options_command(app: typer.Typer) -> None:
    """Make every command of ``app`` and of its groups an ``OptionsCommand``."""
    for command in app.registered_commands:
        command.cls = OptionsCommand
    for group in app.registered_groups:
        if group.typer_instance is not None:
            use_options_command(group.typer_instance)


def _origin(ctx: Any, name: str) -> str:
    """Click's name for the source of a parameter's value."""
    source = ctx.get_parameter_source(name)
    return "" if source is None else str(source.name)


def _typed(option: TyperOption) -> str:
    """The option as a user types it."""
    return max(option.opts, key=len)


def _value_text(value: Any) -> str:
    """The value after the option's name; empty if it is not known which of several values is meant."""
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, (list, tuple)):
        return f" {value[0]}" if len(value) == 1 else ""
    return f" {value:g}" if isinstance(value, float) else f" {value}"
