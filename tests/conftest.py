"""Fixtures that every folder of tests shares."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
SHIPPED = Path(__file__).resolve().parents[1] / "gpu_reference" / "shipped"


COVERAGE = "FORESTAGE_COVERAGE"
BEGAN = pytest.StashKey[float]()


def pytest_configure(config: pytest.Config) -> None:
    """Runs of the whole engine leave what they saw in out/coverage, unless the environment names another folder."""
    os.environ.setdefault(COVERAGE, str(config.rootpath / "out" / "coverage"))
    config.stash[BEGAN] = time.time()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The coverage of the whole engine, if a run of it left something."""
    folder = Path(os.environ[COVERAGE])
    if hasattr(config, "workerinput") or not folder.is_dir():
        return
    if not any(path.stat().st_mtime >= config.stash[BEGAN] for path in folder.glob("*.json")):
        return
    from cocotb_tests.prefetch_engine import coverage

    terminalreporter.section("coverage of the whole prefetch engine")
    terminalreporter.write_line(coverage.table(coverage.merge(coverage.read(folder))))


@pytest.fixture(autouse=True)
def _no_users_catalogue(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test sees the records that whoever runs the tests has added."""
    monkeypatch.delenv("FORESTAGE_CATALOG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "no-settings"))


@pytest.fixture(scope="session")
def shared_file() -> Callable[[str], Path]:
    """Path of a recorded trace beside the checkout; the test is skipped, saying why, where it is absent.

    With FORESTAGE_REQUIRE_SHARED=1 (as in CI) an absent file fails the test instead.
    """

    return lambda name: _shared(Path("traces") / name, f"the recorded trace {name}")


@pytest.fixture(scope="session")
def shared_library() -> Callable[[str], list[Path]]:
    """Files of a cell library beside the checkout, by the start of their names; absent as ``shared_file``."""

    def find(start: str) -> list[Path]:
        _shared(Path("liberty"), f"the cell library {start}")
        return sorted((SHARED / "liberty").glob(f"{start}*.lib.gz"))

    return find


@pytest.fixture(scope="session")
def field_case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Path of an input met in the field, which ../shared/field-cases/make.py writes; absent as ``shared_file``.

    The models among them (names that begin with ``models``) take seconds, so they are made only if asked for.
    """
    made: dict[bool, Path] = {}

    def find(name: str) -> Path:
        script = _shared(Path("field-cases") / "make.py", f"the field case {name}")
        models = name.startswith("models")
        if models not in made:
            folder = tmp_path_factory.mktemp("field-models" if models else "field-cases")
            command = [sys.executable, str(script), str(folder), *(["--models"] if models else [])]
            subprocess.run(command, check=True, capture_output=True)
            made[models] = folder
        return made[models] / name

    return find


def _shared(name: Path, what: str) -> Path:
    """The file ``name`` beside the checkout; without it the test is skipped, or fails where CI requires it."""
    path = SHARED / name
    if not path.exists():
        reason = f"needs {what} in ../shared/{name.parent.as_posix()}, which this machine lacks"
        if os.environ.get("FORESTAGE_REQUIRE_SHARED") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def shipped_trace() -> Path:
    """Path of the trace that comes with the project."""
    return SHIPPED / "trace.safetensors"
