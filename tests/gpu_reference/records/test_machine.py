"""The machine, the versions and the sources of a measurement."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from gpu_reference.records import machine
from gpu_reference.records.machine import source_commit, source_digest, these_versions, this_machine


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (
            "processor : 0\nmodel name\t: Fast 9000 @ 2 GHz\nprocessor : 1\nmodel name\t: Fast 9000 @ 2 GHz\n",
            "Fast 9000 @ 2 GHz",
        ),
        ("processor : 0\nBogoMIPS : 50\n", platform.machine()),  # Arm names no model
    ],
)
def test_a_record_names_the_processor(cpuinfo: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo, encoding="utf-8")
    (tmp_path / "memory.max").write_text(f"{3 << 30}\n", encoding="utf-8")
    monkeypatch.setattr(machine, "Path", lambda path: tmp_path / Path(path).name)
    found = this_machine()
    assert found.processor == name
    assert (found.cores, found.threads) == (os.cpu_count(), torch.get_num_threads())
    assert found.memory_gib == 3.0  # the container's limit, below what the machine has
    assert (found.gpu, found.driver, found.cuda, found.pcie) == (None,) * 4


def test_versions_of_what_is_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "VERSIONED", ("torch", "no-such-distribution"))
    assert these_versions() == {"python": platform.python_version(), "torch": metadata.version("torch")}


def git(folder: Path, *command: str) -> str:
    """What git says in ``folder``."""
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    names = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = subprocess.run(
        ["git", *names, *command], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_commit_is_that_of_the_sources(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    assert source_commit(package) == "unknown"
    (package / "__init__.py").write_text("", encoding="utf-8")
    git(tmp_path, "init", "-q")
    (tmp_path / "other").write_text("", encoding="utf-8")
    git(tmp_path, "add", "other")
    git(tmp_path, "commit", "-qm", "without the package")
    assert source_commit(package) == "unknown"  # installed inside somebody else's tree
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "with the package")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert source_commit(package) == commit
    (package / "untracked").write_text("", encoding="utf-8")
    assert source_commit(package) == commit
    (package / "__init__.py").write_text("changed = True\n", encoding="utf-8")
    assert source_commit(package) == commit + "-dirty"


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert source_commit() == "unknown"


def test_the_digest_of_the_sources_changes_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "package_root", lambda package: tmp_path / package)
    for package in machine.PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "module.py").write_text("a = 1\n", encoding="utf-8")
    before = source_digest()
    assert source_digest() == before
    (tmp_path / "staging" / "module.py").write_text("a = 2\n", encoding="utf-8")
    assert source_digest() != before


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("580.65.06, 5, 16\n", ("580.65.06", "gen5 x16")),
        ("580.65.06, [N/A], [N/A]\n", ("580.65.06", None)),
        ("", (None, None)),
        (None, (None, None)),
        ("no devices\n", (None, None)),
    ],
)
def test_driver_and_link_from_nvidia_smi(said: str | None, found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_said", lambda *command: said)
    assert machine._from_nvidia_smi("") == found
