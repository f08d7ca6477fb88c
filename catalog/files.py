"""Write files so that none is ever left half-written."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catalog.errors import ForestageError


@contextmanager
def atomic_path(destination: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``destination``; rename it there on success, remove it on failure.

    A link stays one: the file that it names is replaced.

    Raises:
        ForestageError: if ``destination`` is a device or the like, which a renamed file would take the place of, or its
            folder cannot be written.
    """
    _refuse_device(Path(destination))
    destination = Path(os.path.realpath(destination)) if Path(destination).is_symlink() else Path(destination)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{destination.name}.", dir=destination.parent)
    except OSError as error:
        raise ForestageError(f"{destination}: cannot write ({error.strerror}); choose a writable folder") from error
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes the file private; give it the permissions of the user's umask.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(destination)
    except OSError as error:
        raise ForestageError(f"{destination}: cannot write ({error.strerror})") from error
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raise, before long work, if its result could not be written to the file ``path``.

    Raises:
        ForestageError: naming the path.
    """
    if path.is_dir():
        raise ForestageError(f"{path}: is a folder; give the name of a file")
    _refuse_device(path)
    check_folder(path.absolute().parent, path)


def _refuse_device(path: Path) -> None:
    """Raise if ``path`` is there and is neither a file nor a folder."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ForestageError(f"{path}: is no file but a device, pipe or socket; give the name of a file")


def check_folder(folder: Path, what: Path | None = None) -> None:
    """Raise, before long work, if its results could not be written into ``folder``, which need not exist yet.

    Args:
        folder: the folder.
        what: the path that the error names; the folder by default.

    Raises:
        ForestageError: naming the path.
    """
    nearest = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ForestageError(
            f"{what or folder}: cannot write ({nearest} is no writable folder); choose a writable folder"
        )


def bytes_at(path: Path) -> int:
    """Total size of the file ``path``, or of the files in the folder ``path``."""
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
    return sum(file.stat().st_size for file in files)


def write_text(destination: Path, text: str) -> None:
    """Write ``text`` (UTF-8) to ``destination`` atomically.

    Raises:
        ForestageError: if it cannot be written.
    """
    with atomic_path(destination) as temporary:
        temporary.write_text(text, encoding="utf-8")
