"""The folder of what is made once for a user and can be made again: compiled kernels, built simulations."""

import os
from pathlib import Path

VARIABLE = "FORESTAGE_CACHE"


def user_cache(name: str) -> Path:
    """``$FORESTAGE_CACHE/<name>``, or ``~/.cache/forestage/<name>``; not made here."""
    root = os.environ.get(VARIABLE)
    return (Path(root).expanduser().resolve() if root else Path.home() / ".cache" / "forestage") / name
