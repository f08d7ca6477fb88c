"""The one error that is a user's to mend."""

import difflib
from collections.abc import Iterable


class ForestageError(Exception):
    """Bad input or an impossible request: one line naming the file, the field and the remedy.

    The command line prints it as ``forestage: error: …`` on stderr and exits with status 2. Anything else that
    escapes is a bug and keeps its traceback.
    """


def unknown_name(what: str, name: str, known: Iterable[str]) -> ForestageError:
    """The error for a ``name`` that no ``what`` has; it names the nearest of those ``known``."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]
    return ForestageError(f"{what}: unknown name '{name}'; the nearest known name is '{nearest}'")
