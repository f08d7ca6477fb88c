"""The folder for files that are made once per user and can be remade: compiled kernels, built simulations."""

import os
import time
from pathlib import Path

VARIABLE = "FORESTAGE_CACHE"

UNUSED_DAYS = 30
"""What nobody asked for in so long is removed when something else is made."""


def user_cache(name: str) -> Path:
    """``$FORESTAGE_CACHE/<name>``, or ``~/.cache/forestage/<name>``; the folder is not made here."""
    root = os.environ.get(VARIABLE)
    return (Path(root).expanduser().resolve() if root else Path.home() / ".cache" / "forestage") / name


def is_unused(path: Path) -> bool:
    """Whether ``path``, which whoever uses it touches, was not used in UNUSED_DAYS; raises OSError if it is gone."""
    return path.stat().st_mtime < time.time() - UNUSED_DAYS * 86400
