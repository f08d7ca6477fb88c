"""The folder for files that are made once per user and can be remade: compiled kernels, built simulations."""

import os
from pathlib import Path

VARIABLE = "FORESTAGE_CACHE"


def user_cache(name: str) -> Path:
    """``$FORESTAGE_CACHE/<name>``, or ``~/.cache/forestage/<name>``; the folder is not made here."""
    root = os.environ.get(VARIABLE)
    return (Path(root).expanduser().resolve() if root else Path.home() / ".cache" / "forestage") / name
