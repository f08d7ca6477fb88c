"""Recorded traces through the whole engine with the deployed predictor's two heads, in lock-step with the twin."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cocotb_tests.prefetch_engine.trace_replay import ReplayConfig, TraceReplayResult, replay_trace
from predictor.engine.settings import Mode
from predictor.next_layer.recipes import read_recipe
from predictor.next_use.recipes import recipe_for
from tests.cocotb_tests.prefetch_engine.small_engines import skip_without_tools
from traces import RoutingTrace, split
from traces.importers import import_trace
from traces.selection import select_sequences

LEARNED = ReplayConfig(mode=Mode.LEARNED)


def lock_step(trace: RoutingTrace, tokens: int, *, sequences: int | None = None, **training: Any) -> TraceReplayResult:
    """``tokens`` test tokens, with heads trained on the first ``sequences`` training sequences, by default on all."""
    pytest.importorskip("torch")
    skip_without_tools()
    from predictor.next_layer.training import train as train_next_layer
    from predictor.next_use.training import train as train_next_use

    fitted = select_sequences(trace, split(trace)[0][:sequences])
    values = recipe_for(training, identity=trace.token_hash is not None, tokens=fitted.tokens, origin="this test")
    return replay_trace(
        trace,
        tokens,
        LEARNED,
        next_layer=train_next_layer(fitted, read_recipe("deployed").replaced(training, origin="this test")),
        next_use=train_next_use(fitted, values),
    )


def check(found: TraceReplayResult, *, tokens: int, layers: int, experts: int) -> None:
    """No difference, and both heads' score of every expert at every gate that asked for it was compared."""
    assert (found.mismatches, found.breaches, found.errors) == (0, 0, 0)
    assert (found.tokens, found.steps) == (tokens, tokens * layers)
    # Next layer: each gate, the token's included, about one layer. Next use: each gate, one score a horizon.
    assert found.compared["scores"] == tokens * layers * experts * (1 + 4)
    assert found.compared["prediction (layer, experts, chances, deadline)"] == tokens * layers


def test_100_tokens_of_gpt_oss_20b(shared_file: Callable[[str], Path]) -> None:
    trace = import_trace(shared_file("gpt_oss_20b_decode.npz"))
    check(lock_step(trace, 100, sequences=10, epochs=1), tokens=100, layers=24, experts=32)


@pytest.mark.long
def test_2000_tokens_of_gpt_oss_20b(shared_file: Callable[[str], Path]) -> None:
    trace = import_trace(shared_file("gpt_oss_20b_decode.npz"))
    check(lock_step(trace, 2000), tokens=2000, layers=24, experts=32)


@pytest.mark.long
def test_500_tokens_of_the_shipped_trace(shipped_trace: Path) -> None:
    check(lock_step(RoutingTrace.load(shipped_trace), 500), tokens=500, layers=8, experts=32)
