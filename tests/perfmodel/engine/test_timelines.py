"""Timelines added up by hand: one for each rule."""

from typing import Any

import numpy as np
import pytest

from perfmodel.engine import simulate
from perfmodel.run import Run
from perfmodel.workload import Durations, Workload
from predictor.foresight.arrays import Predictions
from predictor.policies.plan import Missing, Plan
from staging.stager.limits import StagerLimits, StagerSettings

BEFORE, EXPERT, CHUNK, CHUNKS = 10, 5, 20, 3  # ps; a transfer takes 60, its chunks are of 4 bytes


def run(
    needed: list[list[list[int]]],
    *,
    experts: int = 4,
    resident: list[int] | None = None,
    missing: Missing = Missing.FETCH,
    predicted: dict[tuple[int, int], int] | None = None,
    distance: int = 1,
    engine_ps: int = 0,
    places: int = 4,
    timed: list[bool] | None = None,
    tokens: int | list[int] = 1,
    shared_ps: int = 0,
    **durations: Any,
) -> Run:
    """Simulate ``needed[step][layer]``; ``predicted[step, layer]`` is foreseen, ``distance`` layers ahead; ``tokens``:
    of every expert, or of each.
    """
    steps, layers = len(needed), len(needed[0])
    flat = [e for step in needed for layer in step for e in layer]
    ones = np.ones((steps, layers), np.int64)
    workload = Workload(
        layers=layers,
        model_experts=experts,
        experts=np.array(flat, np.int32),
        tokens_of=np.full(len(flat), tokens, np.int32),
        offsets=np.cumsum([0, *(len(layer) for step in needed for layer in step)]),
        timed=np.array(timed or [True] * steps),
        tokens=np.full(steps, np.max(tokens)),
        before_gate_ps=BEFORE * ones,
        before_gate_compute_ps=4 * ones,
        shared_ps=np.full(steps, shared_ps),
        shared_compute_ps=np.zeros(steps, np.int64),
        prefetch_engine_ps=engine_ps * ones,
        values_engine_ps=engine_ps * ones,
        begin_engine_ps=np.full(steps, engine_ps),
    )
    costs: dict[str, Any] = {
        "expert_bytes": 12, "chunk_bytes": 4, "chunk_ps": CHUNK * np.arange(CHUNKS + 1),
        "expert_ps": EXPERT * np.arange(5), "expert_compute_ps": np.arange(5), "host_work": 100,
        "host_free_rate": np.full(5, 10), "host_shared_rate": np.zeros(5, np.int64), "host_groups": 1,
        "host_before_ps": 3, "host_after_ps": 2, "host_token_ps": 0,
    }  # fmt: skip
    predictions = None
    if predicted is not None:
        named = np.full((steps, layers, 1, 1), -1, np.int16)
        for at, expert in predicted.items():
            named[at] = expert
        predictions = Predictions(distances=(distance,), experts=named, chances=np.full(named.shape, 9, np.int32))
    limits = StagerLimits(layers=layers, experts=experts, places=places, queue_depth=8, event_experts=experts)
    plan = Plan(
        limits=limits,
        settings=StagerSettings(shares=(places,)),
        missing=missing,
        resident=np.array(resident or [], np.int64),
        fixed=False,
        values=None,
        predictions=predictions,
    )
    return simulate(workload, Durations(**{**costs, **durations}), plan)


def test_a_missing_expert_is_fetched_after_the_resident_one_has_run() -> None:
    # Gate at 10; expert 0 runs to 15; expert 1 moves from 10 to 70 and runs to 75.
    found = run([[[0, 1]]], resident=[0])
    assert found.step_ps.tolist() == [75]
    assert (found.parts.compute, found.parts.hbm, found.parts.demand_wait) == (4 + 2, 6 + 8, 55)
    assert (found.counts.hits, found.counts.fetched, found.counts.demands, found.link_busy_ps) == (1, 1, 1, 60)


def test_shared_experts_run_first_and_several_tokens_take_longer() -> None:
    # Gate at 10; the shared ones to 17; three tokens on the resident expert to 32.
    assert run([[[0]]], resident=[0], shared_ps=7, tokens=3).step_ps.tolist() == [32]


def test_a_prefetch_that_its_gate_finds_on_the_link_is_late() -> None:
    # Step begins: nothing for layer 0. Gate of 0 at 10: layer 1's expert 2 moves from 10 to 70; layer 0 ends at 15, the
    # gate of layer 1 is at 25, and waits to 70; the step ends at 75.
    found = run([[[0], [2]]], resident=[0], predicted={(0, 1): 2})
    assert found.step_ps.tolist() == [75]
    assert (found.parts.late_wait, found.parts.demand_wait) == (45, 0)
    assert (found.counts.late, found.counts.demands, found.counts.ahead) == (1, 0, 0)


def test_an_answer_after_its_gate_is_refused() -> None:
    # The beginning is answered at 14 (nothing), so layer 0's gate (10) at 28, not at 24; layer 1's gate is at 25: a
    # demand, to 85.
    found = run([[[0], [2]]], resident=[0], predicted={(0, 1): 2}, engine_ps=14)
    assert found.step_ps.tolist() == [90]
    assert (found.counts.refused, found.counts.demands, found.parts.demand_wait) == (1, 1, 60)


def test_a_useless_prefetch_is_dropped_at_the_next_chunk() -> None:
    # Layer 1's expert 3 moves from 10; the gate of layer 1 at 25 needs expert 2: at the chunk at 30, 3 is dropped (4
    # bytes), 2 moves from 30 to 90 and runs to 95.
    found = run([[[0], [2]]], resident=[0], predicted={(0, 1): 3})
    assert found.step_ps.tolist() == [95]
    assert (found.counts.dropped, found.counts.abandoned_bytes, found.link_busy_ps) == (1, 4, 20 + 60)


def test_a_promoted_prefetch_goes_before_a_later_demand() -> None:
    # At the begin, layer 0's expert 1 is foreseen and needed: from 0. Gate of 0 at 10 needs 1 (late, to 60); foreseen,
    # layer 1's expert 2 moves from 60; layer 0 ends at 65. Layer 1's gate at 75 needs 3 and 2: 2 is promoted, so it
    # goes on to 120; then 3 moves from 120 to 180 and runs to 185.
    found = run([[[1], [3, 2]]], predicted={(0, 0): 1, (0, 1): 2})
    assert found.step_ps.tolist() == [185]
    assert (found.counts.late, found.counts.demands) == (2, 1)
    assert (found.parts.late_wait, found.parts.demand_wait) == (50 + 45, 55)


def test_a_prefetch_makes_way_at_a_chunk_and_goes_on() -> None:
    # From the beginning layer 1's expert 3 moves. The gate of 0 at 10 needs 2: at the chunk at 20, 3 is paused; 2 moves
    # from 20 to 80 and runs to 85; from 80 on the other two chunks of 3, to 120. The gate of 1 at 95 waits; the
    # end is at 125.
    found = run([[[2], [3]]], predicted={(0, 1): 3}, distance=2)
    assert found.step_ps.tolist() == [125]
    assert (found.parts.demand_wait, found.parts.late_wait, found.link_busy_ps) == (70, 25, 20 + 60 + 40)
    assert (found.counts.demands, found.counts.late, found.counts.abandoned_bytes) == (1, 1, 0)


def test_the_host_computes_and_its_path_has_latency() -> None:
    # Gate at 10, begins at 13, two experts of 100 at a rate of 10 end at 23 and 33, the result is there at 35.
    found = run([[[0, 1, 2]]], resident=[0], missing=Missing.HOST)
    assert found.step_ps.tolist() == [35]
    assert (found.parts.host_wait, found.host_busy_ps, found.counts.computed) == (20, 33 - 13, 2)


@pytest.mark.parametrize(("shared_rate", "end"), [(0, 72), (4, 40)])
def test_the_link_takes_the_hosts_memory_while_it_moves(shared_rate: int, end: int) -> None:
    # Layer 0's expert 1, foreseen, moves from 0 to 60; the gate at 10 needs 2: the host begins at 13. At a rate of 0 it
    # does nothing until 60, then 100 at 10: 70, and 72. At 4: 25 ps, 38, and 40. The layer has nothing else.
    found = run([[[2]]], missing=Missing.HOST, predicted={(0, 0): 1}, host_shared_rate=np.full(5, shared_rate))
    assert found.step_ps.tolist() == [end]
    # What is on the link at the end is lost: two whole chunks of 4 bytes at 40.
    assert (found.counts.ahead, found.counts.abandoned_bytes) == ((1, 0) if shared_rate == 0 else (0, 8))


def test_the_rate_changes_within_an_expert() -> None:
    # As above, at a rate of 2: from 13 to 60 it does 94; the last 6 at 10 take one (whole) ps: 61, and 63.
    found = run([[[2]]], missing=Missing.HOST, predicted={(0, 0): 1}, host_shared_rate=np.full(5, 2))
    assert found.step_ps.tolist() == [63]


def test_groups_of_the_memory_work_at_once_and_the_one_with_the_most_to_do_decides() -> None:
    # Of two groups the even one has 0, 2 and 4, the odd one 1 and 3: from 13 on three experts of 10 each, 43, and 45.
    found = run([[[0, 1, 2, 3, 4]]], experts=5, missing=Missing.IN_MEMORY, host_groups=2)
    assert found.step_ps.tolist() == [45]
    assert (found.host_busy_ps, found.counts.computed) == (30, 5)
    # Each expert has one token: 5 · 4 ps more until the result is there, of all groups.
    late = run([[[0, 1, 2, 3, 4]]], experts=5, missing=Missing.IN_MEMORY, host_groups=2, host_token_ps=4)
    assert late.step_ps.tolist() == [65]


def test_the_group_with_the_most_to_do_is_not_the_one_with_the_most_experts() -> None:
    # Expert 1 has tokens that take 50, 0 and 2 take 10 each.
    rates = np.array([0, 10, 10, 2, 10])
    found = run([[[0, 1, 2]]], missing=Missing.IN_MEMORY, tokens=[1, 3, 1], host_groups=2, host_free_rate=rates)
    assert found.step_ps.tolist() == [10 + 3 + 50 + 2]


def test_a_warm_step_takes_no_time_and_leaves_its_experts() -> None:
    found = run([[[0]], [[0]]], timed=[False, True])
    assert found.step_ps.tolist() == [0, 15]
    assert (found.counts.lookups, found.counts.hits, found.counts.demands) == (1, 1, 0)


def test_with_no_places_every_use_is_passed() -> None:
    # Each step: gate at 10, arrival at 70, end at 75; nothing is kept.
    found = run([[[0]], [[0]]], places=0)
    assert found.step_ps.tolist() == [75, 75]
    assert found.counts.demands == 2
