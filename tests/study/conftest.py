"""Running the ``forestage`` command in this process."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from study.cli import main
from traces import DECODE, PREFILL, RoutingTrace
from traces.metadata import TraceMetadata


@dataclass(frozen=True)
class Outcome:
    """What a run of the command left."""

    status: int
    out: str
    err: str


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
    tokens = sequences * length
    ids = generator.random((tokens, layers, experts)).argsort(axis=-1)[..., :top_k].astype(np.uint8)
    trace = RoutingTrace(
        expert_ids=ids,
        gate_weights=None,
        sequence_offsets=np.arange(0, tokens + 1, length, dtype=np.int64),
        position=np.tile(np.arange(length, dtype=np.int32), sequences),
        phase=np.tile(np.array([PREFILL] * 4 + [DECODE] * (length - 4), np.uint8), sequences),
        token_hash=None,
        domains=("a", "b") * (sequences // 2),
        datasets=("made",) * sequences,
        metadata=TraceMetadata(
            model="made-for-tests",
            experts=experts,
            top_k=top_k,
            layer_map=tuple(range(layers)),
            ranked=False,
            gate_weight_kind="none",
            source="made by the test",
            licence="CC0-1.0",
        ),
    )
    path = tmp_path / "small.safetensors"
    trace.save(path)
    return path
