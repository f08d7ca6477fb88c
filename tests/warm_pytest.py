"""Runs pytest again and again in forks of one process that has imported the libraries, not the project.

Started in the folder whose tests it runs. Each line of its input names files of tests in JSON; each line of its output
is the exit status of a run that stops at the first failure, and ``null`` where the time given was over.
"""

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

import pytest

LIBRARIES = (
    "hypothesis", "numpy", "numba", "pydantic", "typer", "rich", "safetensors.numpy", "pyarrow.parquet",
    "matplotlib.figure", "torch", "transformers", "amaranth",
)  # fmt: skip
"""What tests spend the most time to import."""

MOST_BYTES = 8 << 30
"""Memory that a run may take: a loop that does not end may also grow."""


def run(tests: list[str], timeout_s: float | None) -> int | None:
    """Pytest's exit status; ``None`` if it was not done in time, and then it is ended with all that it started."""
    child = os.fork()
    if not child:
        _end_with_pytest(tests)
    until = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if until is not None and time.monotonic() > until:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.05)


def _end_with_pytest(tests: list[str]) -> None:
    """Run the tests in silence and end this process with their status, whatever happens."""
    status = 70
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
        with Path(os.devnull).open("r+b") as nothing:
            for stream in range(3):
                os.dup2(nothing.fileno(), stream)
        status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))
    finally:
        os._exit(status)


def main() -> None:
    """Serve until the input ends."""
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), flush=True)


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())
    main()
