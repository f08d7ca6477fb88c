"""One run of a built model: a simulator process, its stimulus, its results."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from catalog.errors import ForestageError
from catalog.files import atomic_path
from cocotb_tests import exchange
from cocotb_tests.build import BuiltModel, last_lines, runner_class

_POLL_S = 0.1

_ENVIRONMENT = {
    "COCOTB_ANSI_OUTPUT": "0",  # the log is a file
    "COCOTB_REWRITE_ASSERTION_FILES": "",  # pytest's rewriting of asserts takes longer than most simulations
}


class SimulationError(RuntimeError):
    """A simulation that crashed, ran out of time, broke a check of the circuit, or whose test failed.

    The message begins with what the check said, where it was one, and ends with the simulation's last lines.
    """


@dataclass(frozen=True, kw_only=True)
class SimulationResult:
    """What a run gave back.

    Attributes:
        values: What the test module handed to ``exchange.write_results``; empty where it handed over nothing.
        tests: Names of the cocotb tests that ran; all of them passed.
        wall_s: Seconds from the simulator's start to its end.
    """

    values: dict[str, Any]
    tests: tuple[str, ...]
    wall_s: float


def run(
    model: BuiltModel,
    test_module: str,
    *,
    stimulus: Mapping[str, Any] | None = None,
    files: Mapping[str, str | bytes] | None = None,
    tests: Sequence[str] = (),
    plusargs: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    seed: int = 0,
    timeout_s: float = 600.0,
    progress: Callable[[int], None] | None = None,
    waves: Path | None = None,
    kept: Mapping[str, Path] | None = None,
    folder: Path | None = None,
) -> SimulationResult:
    """Run the cocotb tests of ``test_module`` (an importable name) on ``model``.

    Args:
        model: From ``build.build``.
        test_module: Full name of the module; it sees the same ``sys.path`` as the caller.
        stimulus: JSON values and NumPy arrays that the module reads with ``exchange.read_stimulus``.
        files: Contents of further files in the simulator's folder, by name, for models that read files.
        tests: Names of the tests to run; all where empty.
        plusargs: Arguments of the simulator, ``+name=value``.
        environment: Further environment variables of the simulator.
        seed: cocotb's random seed.
        timeout_s: Wall-clock limit.
        progress: Called with the count of each ``exchange.report_progress`` that is new.
        waves: Where to write the waves (VCD; FST of a model built with ``--trace-fst``); the model must be built with
            ``trace_waves=True``.
        kept: Files that the model leaves in the simulator's folder when it ends, by name → where to copy them.
        folder: The simulator's folder, an empty one, for callers that look into it; by default one for this run alone.

    Raises:
        SimulationError: the simulator crashed or ran out of time, a test failed, or none ran.
        ForestageError: waves are wanted of a model built without them, or cannot be written; or a file to be kept is
            not there.
    """
    if waves is not None and not model.trace_waves:
        raise ForestageError(f"{waves}: waves are wanted of a model built without them; build it with trace_waves=True")
    with nullcontext(folder) if folder is not None else tempfile.TemporaryDirectory(prefix="forestage-run-") as name:
        folder = Path(name)
        exchange.write_values(folder, "stimulus", stimulus or {})
        for file, content in (files or {}).items():
            (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        started = time.monotonic()
        runner = _simulation_runner(folder, timeout_s, progress)
        try:
            # SystemExit is the runner's way to say that something failed; the results file and the log say what.
            with suppress(SystemExit):
                runner.test(
                    test_module=test_module,
                    hdl_toplevel=model.top,
                    hdl_toplevel_lang="verilog",
                    testcase=list(tests) or None,
                    seed=seed,
                    plusargs=list(plusargs),
                    extra_env={**_ENVIRONMENT, **(environment or {}), exchange.FOLDER_VARIABLE: str(folder)},
                    build_dir=model.executable.parent,
                    test_dir=folder,
                    results_xml=str(folder / "results.xml"),
                    waves=waves is not None,
                )
            wall_s = time.monotonic() - started
            passed = _passed_tests(folder, test_module)
        finally:
            # A run that failed needs its waves most.
            if waves is not None:
                _keep_waves(folder, waves)
        for file, target in (kept or {}).items():
            _keep(folder / file, target)
        values = exchange.read_values(folder, "results") if (folder / "results.json").exists() else {}
        return SimulationResult(values=values, tests=passed, wall_s=wall_s)


def _keep(left: Path, target: Path) -> None:
    """Copy what a model left.

    Raises:
        ForestageError: it left no such file, or that cannot be written.
    """
    if not left.exists():
        raise ForestageError(f"{left.name}: the simulation left no such file")
    with atomic_path(target) as temporary:
        shutil.copyfile(left, temporary)


def _keep_waves(folder: Path, waves: Path) -> None:
    """Move the waves of the run in ``folder``, if it got as far as writing any, to ``waves``."""
    for dump in (folder / "dump.fst", folder / "dump.vcd"):
        if dump.exists():
            _keep(dump, waves)


def _simulation_runner(folder: Path, timeout_s: float, progress: Callable[[int], None] | None) -> Any:
    """A runner whose simulator writes to a log in ``folder``, under a time limit, its progress passed on."""

    class SimulationRunner(runner_class()):  # type: ignore[misc]
        def _execute(self, commands: Sequence[Sequence[str]], cwd: Path) -> None:
            (command,) = commands
            with (folder / "log").open("w") as log:
                process = subprocess.Popen(command, cwd=cwd, env=self.env, stdout=log, stderr=subprocess.STDOUT)
                try:
                    _wait(process, folder, timeout_s, progress)
                finally:
                    if process.poll() is None:  # out of time, or interrupted
                        process.kill()
                        process.wait()
            if process.returncode:
                what = f"signal {-process.returncode}" if process.returncode < 0 else f"status {process.returncode}"
                raise SimulationError(
                    f"{_failed_check(folder / 'log')}the simulator ended with {what}: {last_lines(folder / 'log')}"
                )

    runner = SimulationRunner()
    runner.log.setLevel("CRITICAL")
    return runner


def _failed_check(log: Path) -> str:
    """What the first check of ``rtl.checks`` that failed said, if one did: the line before Verilator's."""
    lines = log.read_text(errors="replace").splitlines()
    for before, line in pairwise(lines):
        if "Verilog $stop" in line:
            return f"a check of the circuit failed, {before.strip()}: "
    return ""


def _wait(
    process: subprocess.Popen[bytes], folder: Path, timeout_s: float, progress: Callable[[int], None] | None
) -> None:
    """Wait for ``process``, passing on each new progress count."""
    deadline = time.monotonic() + timeout_s
    last = None
    while True:
        try:
            process.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            running = True
        else:
            running = False
        done = exchange.read_progress(folder) if progress is not None else None
        if progress is not None and done is not None and done != last:
            progress(done)
            last = done
        if not running:
            return
        if time.monotonic() > deadline:
            raise SimulationError(f"the simulation took longer than {timeout_s:g} s: {last_lines(folder / 'log')}")


def _passed_tests(folder: Path, test_module: str) -> tuple[str, ...]:
    """Names of the tests that ran and passed.

    Raises:
        SimulationError: no results file, no test, or a test that did not pass.
    """
    results = folder / "results.xml"
    if not results.exists():
        raise SimulationError(f"{test_module}: the simulator left no results: {last_lines(folder / 'log')}")
    passed = []
    for case in ElementTree.parse(results).getroot().iter("testcase"):
        if case.find("skipped") is not None:
            continue
        if case.find("failure") is not None or case.find("error") is not None:
            raise SimulationError(f"{test_module}: test {case.get('name')} failed: {last_lines(folder / 'log', 24)}")
        passed.append(str(case.get("name")))
    if not passed:
        raise SimulationError(f"{test_module}: no test ran: {last_lines(folder / 'log')}")
    return tuple(passed)
