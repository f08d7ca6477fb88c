"""Running the ``forestage`` command in this process."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from study.cli import main
from tests.routing import trace_of


@dataclass(frozen=True)
class Outcome:
    """What a run of the command left."""

    status: int
    out: str
    err: str


def refused(outcome: Outcome) -> str:
    """The one line of a user's error."""
    assert outcome.status == 2, outcome.err
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith("forestage: error: ")
    return line


@pytest.fixture
def forestage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Call the command with arguments; returns its exit status and what it printed."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["forestage", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        printed = capsys.readouterr()
        return Outcome(status, printed.out, printed.err)

    return run


@pytest.fixture
def small_trace(tmp_path: Path) -> Path:
    """A trace file of 6 sequences of random routing: 3 layers, 8 experts, top-2."""
    generator = np.random.default_rng(3)
    sequences, length, layers, experts, top_k = 6, 12, 3, 8, 2
    ids = generator.random((sequences * length, layers, experts)).argsort(axis=-1)[..., :top_k]
    trace = trace_of(
        ids,
        experts=experts,
        lengths=[length] * sequences,
        prompt=4,
        domains=["a", "b"] * (sequences // 2),
        model="made-for-tests",
        ranked=False,
    )
    path = tmp_path / "small.safetensors"
    trace.save(path)
    return path
