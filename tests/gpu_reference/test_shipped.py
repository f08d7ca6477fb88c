"""What is shipped: complete, small enough, consistent with itself."""

import shutil
from pathlib import Path

import pytest

from gpu_reference import files
from gpu_reference.checks.model_replay import replay_check
from gpu_reference.training.corpus import DOMAINS
from gpu_reference.training.model_card import write_card
from traces import DECODE, RoutingTrace

LARGEST_BYTES = 23_000_000


@pytest.fixture(scope="module")
def trace() -> RoutingTrace:
    return RoutingTrace.load(files.SHIPPED_TRACE)


def test_the_trace_is_what_was_asked_for(trace: RoutingTrace) -> None:
    assert (trace.layers, trace.experts, trace.top_k) == (8, 32, 4)
    assert (trace.phase == DECODE).sum() >= 20_000
    assert set(trace.domains) == set(DOMAINS)
    assert trace.metadata.ranked
    assert trace.token_hash is not None
    assert trace.gate_weights is not None
    assert not trace.metadata.synthetic


def test_all_data_together_is_small_enough() -> None:
    assert sum(path.stat().st_size for path in files.SHIPPED.rglob("*") if path.is_file()) <= LARGEST_BYTES


def test_the_card_is_that_of_the_data(tmp_path: Path) -> None:
    folder = tmp_path / "shipped"
    shutil.copytree(files.SHIPPED, folder, ignore=shutil.ignore_patterns(files.CARD))
    write_card(folder)
    assert (folder / files.CARD).read_text() == (files.SHIPPED / files.CARD).read_text()


@pytest.mark.parametrize("layer", [0, 7])
def test_the_trace_is_the_checkpoints(trace: RoutingTrace, layer: int) -> None:
    check = replay_check(files.SHIPPED_CHECKPOINT, trace, layer, sequences=2)
    assert check.same_experts > 0.99
    assert check.relative_error < 0.01
