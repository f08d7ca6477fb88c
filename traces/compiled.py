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
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numba

from catalog.user_cache import user_cache

CHAIN = ("catalog", "traces", "staging", "predictor")
"""Packages with kernels, or with code that kernels compile in; each imports only those before it."""

SUFFIXES = (".py", ".toml")
"""Suffixes of files that a kernel can depend on: code, and data that a module reads when it is imported."""

UNUSED_DAYS = 30
"""Kernels that no process has used for so long are removed when others are compiled."""

_config: Any = numba.config


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit(**options)``, cached by the digest of the sources; not cached if no folder can be written.

    The cache is ``$NUMBA_CACHE_DIR/<digest>``, or else ``kernels/<digest>`` of the user's cache
    (``catalog.user_cache``).
    """

    def decorate(function: Callable[..., Any]) -> Any:
        package = function.__module__.partition(".")[0]
        folder = _folder(CHAIN[: CHAIN.index(package) + 1] if package in CHAIN else (*CHAIN, package))
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
    folder = root / sources_digest([_root(package) for package in packages])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        os.utime(folder)
    except OSError:
        return None
    if not own:
        _remove_unused(root)
    return folder


def sources_digest(roots: list[Path]) -> str:
    """The first 128 bits, as hex, of the SHA-256 over path and content of all sources in ``roots`` (folders, files)."""
    digest = hashlib.sha256()
    for root in roots:
        files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.suffix in SUFFIXES)
        for path in files:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root.parent).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:32]


def _root(package: str) -> Path:
    """The folder of ``package``, or the file if it is a module; it need not be imported."""
    spec = find_spec(package)
    if spec is None or not spec.origin:
        raise ModuleNotFoundError(f"{package}: a kernel's package without a file")
    path = Path(spec.origin)
    return path.parent if path.name == "__init__.py" else path


def _remove_unused(root: Path) -> None:
    """Remove the folders not used for UNUSED_DAYS, so that the cache does not grow with every change."""
    oldest = time.time() - UNUSED_DAYS * 86400
    for folder in root.iterdir():
        with suppress(OSError):  # another process removed it first
            if folder.stat().st_mtime < oldest:
                shutil.rmtree(folder)
