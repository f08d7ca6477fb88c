"""Replay of traces: selection of tokens, the recorded trace, bad requests."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.routing import trace_of
from tests.st_moe_samples import routing_trace
from traces.selection import select_sequences

pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")

from catalog.errors import ForestageError
from cocotb_tests.replay import first_tokens, replay
from predictor.st_moe.parameters import EngineLimits
from traces import RoutingTrace, split
from traces.importers import import_trace

LIMITS = EngineLimits(experts_max=16, layers_max=6, top_k_max=3, candidates_max=5)
TRACE = routing_trace(experts=16, layers=6, top_k=3, lengths=(9, 7, 8, 6, 5, 4, 9, 7, 8, 6), unrecorded=0.1)


def test_tokens_of_the_test_sequences_are_replayed() -> None:
    _, test = split(TRACE)
    stimulus = select_sequences(TRACE, test).token_range(0, 11)
    progress: list[tuple[int, int]] = []
    result = replay(TRACE, 11, limits=LIMITS, progress=lambda done, total: progress.append((done, total)))
    assert result.mismatches == 0, result.first_mismatch
    assert result.tokens == result.decode_tokens == 11
    assert result.steps == result.counters["events"] == stimulus.recorded().sum()
    assert result.cycles_per_token == result.cycles / 11
    assert result.configuration.lookahead == 1
    assert progress[-1] == (11, 11)


def test_parameters_reach_the_engine() -> None:
    result = replay(
        TRACE, 5, limits=LIMITS, parameters={"aggregation": "sum", "candidates": 5}, lookahead=3, issue_limit=2
    )
    assert result.mismatches == 0, result.first_mismatch
    configuration = result.configuration
    assert (configuration.aggregation, configuration.candidates) == ("sum", 5)
    assert (configuration.lookahead, configuration.issue_limit) == (3, 2)


@pytest.mark.parametrize(
    ("trace", "tokens", "message"),
    [
        (TRACE, 10_000, r"tokens: 10000 asked for, the test sequences of the trace have \d+; choose 1 to"),
        (TRACE, 0, "tokens: 0 asked for"),
        (routing_trace(lengths=(5,)), 3, "have 0; give a trace of more sequences"),
        (routing_trace(experts=32, lengths=(5, 5)), 3, "experts is 32.*--experts-max 32"),
        (routing_trace(layers=7, lengths=(5, 5)), 3, "layers is 7.*--layers-max 7"),
    ],
)
def test_impossible_requests_are_one_line(trace: RoutingTrace, tokens: int, message: str) -> None:
    with pytest.raises(ForestageError, match=message):
        replay(trace, tokens, limits=LIMITS)


def test_200_tokens_of_gpt_oss(shared_file: Callable[[str], Path]) -> None:
    result = replay(import_trace(shared_file("gpt_oss_20b_decode.npz")), 200)
    assert result.mismatches == 0, result.first_mismatch
    assert (result.tokens, result.steps) == (200, 200 * 24)
    assert result.counters["predictions"] == 200 * 23
    assert result.counters["requests"] / result.counters["predictions"] == pytest.approx(6.1, abs=0.5)


@pytest.mark.long
def test_500_tokens_of_the_shipped_trace(shipped_trace: Path) -> None:
    trace = RoutingTrace.load(shipped_trace)
    for waits in (False, True):
        result = replay(trace, 500, waits=waits)
        assert result.mismatches == 0, result.first_mismatch
        assert result.steps == 500 * trace.layers


@pytest.mark.long
def test_every_test_token_of_the_shipped_trace(shipped_trace: Path) -> None:
    trace = RoutingTrace.load(shipped_trace)
    _, test = split(trace)
    tokens = select_sequences(trace, test).tokens
    result = replay(trace, tokens)
    assert result.mismatches == 0, result.first_mismatch
    assert result.steps == tokens * trace.layers > 50_000


@pytest.mark.long
def test_random_models_of_the_default_size() -> None:
    """Full-size shapes, every entry and layer in use, with waits."""
    generator = np.random.default_rng(10)
    for seed in range(4):
        trace = routing_trace(experts=64, layers=32, top_k=8, lengths=(12,) * 6, seed=seed)
        result = replay(
            trace,
            12,
            parameters={"aggregation": ("max", "sum")[seed % 2]},
            lookahead=int(generator.integers(1, 32)),
            waits=seed >= 2,
            seed=seed,
        )
        assert result.mismatches == 0, result.first_mismatch


def test_the_tokens_behind_others_are_those_of_the_whole() -> None:
    trace = trace_of(np.arange(23 * 2 * 2).reshape(23, 2, 2), experts=92, lengths=(5, 7, 3, 8))
    test = np.array([0, 2, 3])  # 16 tokens
    for behind in range(16):
        for tokens in range(behind + 1, 17):
            part = first_tokens(trace, test, tokens, behind=behind)
            whole = first_tokens(trace, test, tokens).token_range(behind, tokens)
            assert np.array_equal(part.expert_ids, whole.expert_ids)
            assert np.array_equal(part.sequence_offsets, whole.sequence_offsets)
