"""The folder of built models, and the objects of Verilator's own library that all of them share.

``$FORESTAGE_CACHE/verilator``, or ``~/.cache/forestage/verilator``, holds one folder a model. A model is made in a
temporary folder under a lock of its own and renamed into place, so processes that want the same model build it once,
and a build that dies leaves nothing that could be mistaken for one.
"""

import fcntl
import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from catalog.errors import ForestageError
from catalog.user_cache import VARIABLE, is_unused, user_cache

MANIFEST = "manifest.json"


def cache_folder() -> Path:
    """The cache's folder, made where it is absent.

    Raises:
        ForestageError: it cannot be made.
    """
    folder = user_cache("verilator")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ForestageError(
            f"{folder}: cannot write the cache of built models ({error.strerror}); set {VARIABLE}"
        ) from error
    return folder


def obtain(key: str, make: Callable[[Path], None]) -> tuple[Path, bool]:
    """The folder of the model ``key``, and whether it was there before.

    Args:
        key: Name of the model's folder.
        make: Called, where there is no such model, with an absent folder to make and fill, its ``MANIFEST`` included.

    Raises:
        ForestageError: the cache cannot be written, or ``make`` raised it.
    """
    cache = cache_folder()
    folder = cache / key
    with _locked(cache / f"{key}.lock"):
        found = (folder / MANIFEST).exists()
        if not found:
            # The name is free: whoever else builds this model waits for the lock.
            temporary = cache / f"{key}.building"
            _remove(temporary, folder)
            try:
                make(temporary)
                temporary.rename(folder)
            finally:
                _remove(temporary)
            _remove_unused(cache, keep=folder)
        (folder / MANIFEST).touch()
    return folder, found


def library_key(objects: Path, shaped_by: object) -> str:
    """Name of the shared objects that fit the model verilated in ``objects``.

    Args:
        objects: Folder of the verilated model, whose switches (tracing, coverage, timing) the library is compiled with.
        shaped_by: What else shapes them, tools and arguments; its ``repr`` is hashed.
    """
    switches = re.findall(r"^VM_(?:TIMING|COVERAGE|TRACE\w*) = \d$", (objects / "Vtop_classes.mk").read_text(), re.M)
    return "library-" + hashlib.sha256(repr((switches, shaped_by)).encode()).hexdigest()[:16]


def take_library(objects: Path, key: str) -> None:
    """Copy the shared objects ``key`` to ``objects``, where there are any; make then does not compile them."""
    for path in (cache_folder() / key).glob("*.o"):
        shutil.copyfile(path, objects / path.name)


def keep_library(objects: Path, key: str) -> None:
    """Keep the objects of Verilator's library in ``objects`` for other models, if nobody has yet."""
    shared = cache_folder() / key
    if shared.exists():
        return
    with tempfile.TemporaryDirectory(prefix=f"{key}.", dir=shared.parent) as name:
        content = Path(name) / "objects"
        content.mkdir()
        for path in objects.glob("verilated*.o"):
            shutil.copyfile(path, content / path.name)
        with suppress(OSError):  # another process was faster: its objects are the same
            content.rename(shared)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold ``path``'s lock; the system lets go of it when the process ends, however it ends."""
    try:
        lock = path.open("w")
    except OSError as error:
        raise ForestageError(f"{path}: cannot write ({error.strerror}); set {VARIABLE}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_unused(cache: Path, keep: Path) -> None:
    """Remove the models that nobody asked for in UNUSED_DAYS, so that the cache does not grow for ever.

    Their locks stay: removing one that another process waits for would let two build at once.
    """
    for manifest in cache.glob(f"*/{MANIFEST}"):
        if manifest.parent != keep and is_unused(manifest):
            _remove(manifest.parent)
