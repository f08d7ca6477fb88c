"""Fetch the source distributions of the corpus with pip, and verify their hashes."""

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from catalog.errors import ForestageError

_PIP_TIMEOUT_S = 600


@dataclass(frozen=True, kw_only=True)
class SourceDistribution:
    """One published source distribution, pinned by version and hash."""

    name: str
    version: str
    filename: str
    sha256: str
    licence: str

    @property
    def requirement(self) -> str:
        """The exact requirement for pip."""
        return f"{self.name}=={self.version}"


def default_cache() -> Path:
    """Return the folder for downloads: ``$FORESTAGE_CACHE``, or the user's cache folder."""
    if "FORESTAGE_CACHE" in os.environ:
        return Path(os.environ["FORESTAGE_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "forestage" / "corpus"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as lower-case hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(source: SourceDistribution, cache: Path | None = None) -> Path:
    """Return the path of a verified copy of ``source``; download it with pip if the cache has none.

    Raises:
        ForestageError: if pip cannot fetch it, or the fetched file is not the pinned one.
    """
    folder = default_cache() if cache is None else cache
    path = folder / source.filename
    if not path.is_file():
        _download(source, folder)
    if not path.is_file():
        raise ForestageError(f"{source.requirement}: pip fetched no file named {source.filename}; is the version gone?")
    found = sha256_of(path)
    if found != source.sha256:
        raise ForestageError(
            f"{path}: SHA-256 is {found}, expected {source.sha256}; delete the file and run again, "
            "and do not use it if it differs a second time"
        )
    return path


def _download(source: SourceDistribution, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ForestageError(f"{folder}: cannot be created ({error.strerror}); set FORESTAGE_CACHE") from error
    # fmt: off
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--no-binary", ":all:", "--dest", str(folder), source.requirement,
    ]
    # fmt: on
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ForestageError(
            f"{source.requirement}: pip took over {_PIP_TIMEOUT_S} s; check the network and run again"
        ) from error
    if result.returncode != 0:
        lines = [line.strip() for line in result.stderr.splitlines() if "error" in line.lower()]
        reason = lines[-1] if lines else f"pip exited with status {result.returncode}"
        raise ForestageError(f"{source.requirement}: download failed ({reason}); check the network and run again")
