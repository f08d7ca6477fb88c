"""Wheels that travel along, for a machine without network that lacks them."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

from catalog.config import StrictModel
from catalog.errors import ForestageError

CARRIED = ("pydantic", "pydantic_core", "annotated-types", "typing-inspection")
"""What machines that have PyTorch and the rest of Forestage's needs for measuring may lack: pydantic, and what it
imports but for typing_extensions, which PyTorch needs too."""

PLATFORMS = ("manylinux_2_17_x86_64", "manylinux2014_x86_64")


class WheelsFor(StrictModel):
    """The Python that is to install them.

    Attributes:
        python: its version, such as 3.12.
        platforms: tags of its wheels.
    """

    python: str
    platforms: tuple[str, ...] = PLATFORMS


def download_wheels(folder: Path, wanted: WheelsFor) -> tuple[str, ...]:
    """Download wheels of `CARRIED`, in the versions that are installed here, into ``folder``; needs a package index.

    Returns:
        names of the files.

    Raises:
        ForestageError: if pip is not there, or finds one of them not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pins = [f"{name}=={metadata.version(name)}" for name in CARRIED]
    options = ["--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", wanted.python]
    platforms = [option for platform in wanted.platforms for option in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--dest", str(folder)]
    done = subprocess.run([*command, *options, *platforms, *pins], capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in said if line.startswith("ERROR")), said[-1] if said else "pip failed")
        raise ForestageError(f"--wheels: {reason}; leave --wheels out where the other machine has {', '.join(CARRIED)}")
    return tuple(sorted(path.name for path in folder.glob("*.whl")))
