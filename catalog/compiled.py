"""Numba's compiler for the kernels of every package, with a cache that cannot go stale when a source changes.

Numba keeps a compiled kernel until the kernel's own file changes. If a constant, a named tuple or another kernel that
it compiled in from another file changes, the cached kernel silently gives a wrong result. Here the cache's folder is
named by the digest of every source that the kernel can use: its own package and those it may import.

Kernels are decorated with this module's ``njit``, never with numba's (a test looks for others).
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba

from catalog.sources import package_root, sources_digest
from catalog.user_cache import is_unused, user_cache

USES = {
    "catalog": (),
    "traces": ("catalog",),
    "staging": ("catalog", "traces"),
    "predictor": ("catalog", "traces", "staging"),
    "pim_model": ("catalog",),
}
"""Packages with code that kernels of other packages compile in, and what each may import itself; others may import
them all."""

SUFFIXES = (".py", ".toml")
"""Suffixes of files that a kernel can depend on: code, and data that a module reads when it is imported."""

_config: Any = numba.config


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit(**options)``, cached by the digest of the sources; not cached if no folder can be written.

    The cache is ``$NUMBA_CACHE_DIR/<digest>``, or else ``kernels/<digest>`` of the user's cache
    (``catalog.user_cache``).
    """

    def decorate(function: Callable[..., Any]) -> Any:
        package = function.__module__.partition(".")[0]
        folder = _folder((*USES.get(package, USES), package))
        if folder is None:
            return numba.njit(**options)(function)
        # Numba reads the folder when it decorates; kernels of other libraries keep their own.
        before, _config.CACHE_DIR = _config.CACHE_DIR, str(folder)
        try:
            return numba.njit(cache=True, **options)(function)
        finally:
            _config.CACHE_DIR = before

    return decorate


@cache
def _folder(packages: tuple[str, ...]) -> Path | None:
    """The folder for kernels that use ``packages``; ``None`` if none can be written."""
    own = _config.CACHE_DIR
    root = Path(own) if own else user_cache("kernels")
    digests = " ".join(_digest(package) for package in packages)
    folder = root / hashlib.sha256(digests.encode()).hexdigest()[:32]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        os.utime(folder)
    except OSError:
        return None
    if not own:
        _remove_unused(root)
    return folder


@cache
def _digest(package: str) -> str:
    """Of the sources of one package: read once, though the kernels of several packages see it."""
    return sources_digest(package_root(package), SUFFIXES)


def _remove_unused(root: Path) -> None:
    """Remove the folders that nobody uses any more, so that the cache does not grow with every change."""
    for folder in root.iterdir():
        with suppress(OSError):  # another process removed it first
            if is_unused(folder):
                shutil.rmtree(folder)
