"""The errors that a user can mend."""

import difflib
from collections.abc import Iterable


class ForestageError(Exception):
    """Bad input or an impossible request: one line naming the file, the field and the remedy.

    The command line prints it as ``forestage: error: …`` on stderr and exits with status 2. Anything else that
    escapes is a bug and keeps its traceback.
    """


class SettingError(ForestageError):
    """A caller's setting is impossible; the command that took it from a user replaces its name by the option's.

    Attributes:
        settings: the setting's name, as a path from the outermost (``("bootstrap", "seed")``).
        remedy: what to give instead.
        value: the value at fault, if the setting has several; else ``None``.
    """

    def __init__(
        self, setting: str | tuple[str, ...], remedy: str, *, value: object = None, message: str | None = None
    ) -> None:
        self.settings = (setting,) if isinstance(setting, str) else setting
        self.remedy = remedy
        self.value = value
        said = "" if value is None else f"{value}: "
        super().__init__(message or f"{'.'.join(self.settings)}: {said}{remedy}")


def unknown_name(what: str, name: str, known: Iterable[str]) -> ForestageError:
    """The error for an unknown ``name`` of a ``what``; it names the nearest of those ``known``.

    Where ``what`` is the name of a setting, it is a ``SettingError``.
    """
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]
    remedy = f"unknown name '{name}'; the nearest known name is '{nearest}'"
    if what.isidentifier():
        return SettingError(what, remedy, value=name, message=f"{what}: {remedy}")
    return ForestageError(f"{what}: {remedy}")
