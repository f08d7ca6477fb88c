"""The prefetch engine under Verilator against its twin: every rule, with and without waits."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.st_moe_samples import routing_trace

pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")

from cocotb_tests.lock_step import run_lock_step
from predictor.st_moe.events import RoutingEvent, routing_events
from predictor.st_moe.predictor import EngineLimits, StMoePredictor
from predictor.st_moe.tables import StMoeTables

# Nothing a power of two that need not be: 6 layers, 3 experts an event, 5 entries.
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


def interleaved(sequences: list[list[RoutingEvent]], generator: np.random.Generator) -> list[RoutingEvent]:
    """Their events in random order of the sequences, the one in place n in slot n."""
    left = {slot: list(reversed(events)) for slot, events in enumerate(sequences)}
    mixed = []
    while left:
        slot = int(generator.choice(list(left)))
        mixed.append(replace(left[slot].pop(), slot=slot))
        left = {other: events for other, events in left.items() if events}
    return mixed


@pytest.mark.parametrize(("slots", "waits"), [(4, False), (3, True)])
def test_slots_interleaved(slots: int, waits: bool) -> None:
    """Every slot has its history, all learn in the same table; a slot that there is not changes nothing."""
    limits = LIMITS.model_copy(update={"slots_max": slots})
    tables = StMoePredictor.fit(TRACE, lookahead=2).tables(limits)
    generator = np.random.default_rng(10)
    sequences = [
        list(routing_events(routing_trace(experts=16, layers=6, top_k=3, lengths=(9, 4), unrecorded=0.1, seed=seed)))
        for seed in range(slots)
    ]
    events = interleaved(sequences, generator)
    if slots == 3:  # two bits of slot can name a fourth
        events[20:20] = [replace(EVENTS[0], slot=3), replace(EVENTS[1], slot=3)]
    result = run_lock_step(tables, events, waits=waits, seed=2)
    assert result.mismatches == 0, result.first_mismatch
    assert result.counters["rejected"] == (2 if slots == 3 else 0)
    # In one slot the same events would be learnt from otherwise.
    twin, one_slot = (StMoePredictor.fit(TRACE, lookahead=2).tables(limits) for _ in range(2))
    assert [twin.step(event) for event in events] != [one_slot.step(replace(event, slot=0)) for event in events]


def test_domains_have_banks_of_their_own() -> None:
    """Four slots in two of four banks; a sequence of a third is rejected until its slot starts another."""
    limits = LIMITS.model_copy(update={"slots_max": 4, "domains_max": 4})
    profile = StMoePredictor.fit(TRACE).profile
    other = StMoePredictor.fit(routing_trace(experts=16, layers=6, top_k=3, lengths=(30,), seed=11)).profile
    configuration = StMoePredictor.fit(TRACE).configuration().model_copy(update={"domains": 2})
    tables = StMoeTables(
        limits,
        configuration,
        np.stack([profile.candidates, other.candidates]),
        np.stack([profile.confidences, other.confidences]),
    )
    generator = np.random.default_rng(12)
    sequences = []
    for seed, domains in enumerate([(0, 1), (1, 1), (1, 2), (5, 0)]):  # of the slot's two sequences
        found = routing_events(routing_trace(experts=16, layers=6, top_k=3, lengths=(8, 8), seed=20 + seed))
        begun = iter(domains)
        # A domain counts at a sequence's start alone.
        sequences.append(
            [replace(x, domain=next(begun) if x.starts_sequence else int(generator.integers(8))) for x in found]
        )
    events = interleaved(sequences, generator)
    result = run_lock_step(tables, events)
    assert result.mismatches == 0, result.first_mismatch
    assert result.counters["rejected"] == 2 * 8 * 6
    assert result.counters["updates"] > 0


@pytest.mark.parametrize(("candidates", "experts"), [(1, 2), pytest.param(11, 16, marks=pytest.mark.long)])
def test_smallest_and_widest_rows(candidates: int, experts: int) -> None:
    """One expert of two and one entry; rows of three words."""
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
