"""The prefetch engine under Verilator against its twin: every rule, with and without waits."""

from typing import Any

import numpy as np
import pytest

from tests.st_moe_samples import routing_trace

pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")

from cocotb_tests.lock_step import run_lock_step
from predictor.st_moe.events import RoutingEvent, routing_events
from predictor.st_moe.predictor import EngineLimits, StMoePredictor

# Nothing a power of two that need not be: 6 layers, 3 experts an event, 5 slots.
LIMITS = EngineLimits(experts_max=16, layers_max=6, top_k_max=3, candidates_max=5)
TRACE = routing_trace(experts=16, layers=6, top_k=3, lengths=(20, 1, 15), unrecorded=0.1, seed=8)
EVENTS = list(routing_events(TRACE))


@pytest.mark.parametrize(
    ("parameters", "lookahead", "issue_limit"),
    [
        ({}, 1, None),
        ({"aggregation": "sum", "ht_confidence": 3, "candidates": 5, "threshold": 3}, 2, 4),
        ({"replacement": "reversed", "replacement_confidence": 1, "candidates": 2, "threshold": 1}, 5, 1),
        ({"replacement": "none", "initial_confidence": 0, "threshold": 4}, 1, 0),
    ],
)
def test_engine_equals_twin(parameters: dict[str, Any], lookahead: int, issue_limit: int | None) -> None:
    tables = StMoePredictor.fit(TRACE, lookahead=lookahead, **parameters).tables(LIMITS, issue_limit)
    result = run_lock_step(tables, EVENTS)
    assert result.mismatches == 0, result.first_mismatch
    assert result.counters["events"] == len(EVENTS)
    assert result.counters["updates"] > 0
    assert result.counters["stall_cycles"] == 0
    # Events were offered at once: not a cycle was lost between them.
    assert result.counters["busy_cycles"] + len(EVENTS) == pytest.approx(result.cycles, abs=2)
    assert (result.counters["requests"] > 0) == (issue_limit != 0)


def test_waits_change_no_decision() -> None:
    tables = StMoePredictor.fit(TRACE).tables(LIMITS)
    waiting = run_lock_step(tables, EVENTS, waits=True, seed=1)
    assert waiting.mismatches == 0, waiting.first_mismatch
    assert waiting.counters["stall_cycles"] > 0
    prompt = run_lock_step(tables, EVENTS)
    same = ("events", "requests", "updates", "candidate_hits", "candidate_misses", "replacements")
    assert {name: waiting.counters[name] for name in same} == {name: prompt.counters[name] for name in same}
    assert waiting.cycles > prompt.cycles


def test_random_and_bad_events() -> None:
    """Layers in any order, experts and layers out of range, flags anywhere: the twin says what happens."""
    trace = routing_trace(experts=13, layers=5, top_k=3, lengths=(30,))
    tables = StMoePredictor.fit(trace).tables(LIMITS)
    generator = np.random.default_rng(9)
    events = [
        RoutingEvent(
            int(generator.integers(6)),
            tuple(generator.integers(0, 14, 3).tolist()),
            starts_token=bool(generator.random() < 0.2),
            starts_sequence=bool(generator.random() < 0.02),
        )
        for _ in range(400)
    ]
    result = run_lock_step(tables, events)
    assert result.mismatches == 0, result.first_mismatch
    assert 0 < result.counters["rejected"] < len(events)
    assert result.counters["updates"] > 0


@pytest.mark.parametrize(("candidates", "experts"), [(1, 2), pytest.param(11, 16, marks=pytest.mark.long)])
def test_smallest_and_widest_rows(candidates: int, experts: int) -> None:
    """One expert of two and one slot; rows of three words."""
    limits = EngineLimits(experts_max=experts, layers_max=2, top_k_max=1, candidates_max=candidates)
    trace = routing_trace(experts=experts, layers=2, top_k=1, lengths=(15, 15))
    tables = StMoePredictor.fit(trace, candidates=candidates).tables(limits)
    assert tables.rows.words == {1: 1, 11: 3}[candidates]
    result = run_lock_step(tables, list(routing_events(trace)))
    assert result.mismatches == 0, result.first_mismatch
    assert result.counters["updates"] == 30


def test_progress_counts_events() -> None:
    seen: list[int] = []
    run_lock_step(StMoePredictor.fit(TRACE).tables(LIMITS), EVENTS, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == len(EVENTS)
