"""Policies on traces of a few tokens and a model of round sizes, in both engines, against times added up by hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from predictor.policies.plan import Missing
from predictor.policies.policy import Eviction, Policy, Prefetch
from tests.perfmodel.micro import (
    CHUNK,
    EXPERT,
    FETCH,
    Simulated,
    attention,
    gate,
    make_catalog,
    make_config,
    make_trace,
    simulate,
)

GATE = gate(4)
LRU = Policy(eviction=Eviction.LRU)
TOLD = Policy(eviction=Eviction.LRU, prefetch=Prefetch.ST_MOE)
"""Fetches what a test names."""
PERFECT = Policy(eviction=Eviction.LRU, prefetch=Prefetch.PERFECT)


def layer(context_tokens: int) -> int:
    """From the start of a layer until its gate is known, ps."""
    return attention(context_tokens) + GATE


def check(found: Simulated, step_ps: list[int], **waits: int) -> None:
    """Compare the times, and the waits (those not named must be 0)."""
    assert found.step_ps == step_ps
    parts = vars(found.run.parts)
    expected = {"demand_wait": 0, "late_wait": 0, "host_wait": 0, **waits}
    assert {name: parts[name] for name in expected} == expected


def test_with_every_expert_on_the_device_a_token_is_the_sum_of_its_kernels(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path, layers=2, experts=4, top_k=2)
    trace = make_trace([[[0, 1], [2, 3]], [[1, 2], [3, 0]]], experts=4)
    found = simulate(trace, LRU, make_config(capacity_experts=8), catalog, resident=range(8))
    check(found, [2 * (layer(1) + 2 * EXPERT), 2 * (layer(2) + 2 * EXPERT)])
    assert found.simulator.all_resident_ps == sum(found.step_ps)
    assert (found.run.counts.hits, found.run.counts.lookups, found.run.link_busy_ps) == (8, 8, 0)


def test_a_device_that_keeps_nothing_waits_for_every_expert_and_computes_behind_the_transfers(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path, layers=2, experts=4, top_k=2)
    trace = make_trace([[[0, 1], [2, 3]], [[0, 1], [2, 3]]], experts=4)
    found = simulate(trace, LRU, make_config(capacity_experts=0), catalog)
    # The first expert runs while the second crosses the link.
    check(
        found,
        [2 * (layer(1) + 2 * FETCH + EXPERT), 2 * (layer(2) + 2 * FETCH + EXPERT)],
        demand_wait=4 * (FETCH + FETCH - EXPERT),
    )
    assert (found.run.counts.demands, found.run.link_busy_ps) == (8, 8 * FETCH)


def test_where_the_link_is_faster_than_hbm_the_experts_are_what_takes_time(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path, layers=1, experts=4, top_k=2)
    found = simulate(make_trace([[[0, 1]]], experts=4), LRU, make_config(capacity_experts=0, link_gb_per_s=20), catalog)
    check(found, [layer(1) + FETCH // 20 + 2 * EXPERT], demand_wait=FETCH // 20)


def test_each_transfer_pays_its_latency(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path, layers=1, experts=4, top_k=2)
    config = make_config(capacity_experts=0, transfer_latency_us=7)
    found = simulate(make_trace([[[0, 1]]], experts=4), LRU, config, catalog)
    both = 2 * (7_000_000 + FETCH)
    check(found, [layer(1) + both + EXPERT], demand_wait=both - EXPERT)


def test_lru_runs_what_it_has_while_it_waits_for_the_rest(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path, layers=1, experts=4, top_k=2)
    trace = make_trace([[[0, 1]], [[2, 0]], [[0, 2]]], experts=4)
    found = simulate(trace, LRU, make_config(capacity_experts=2), catalog)
    check(
        found,
        [layer(1) + 2 * FETCH + EXPERT, layer(2) + FETCH + EXPERT, layer(3) + 2 * EXPERT],
        demand_wait=2 * FETCH - EXPERT + FETCH - EXPERT,
    )
    assert (found.run.counts.lookups, found.run.counts.hits, found.run.link_busy_ps) == (6, 3, 3 * FETCH)


@pytest.mark.parametrize(("scope", "hits"), [("layer", 5), ("global", 8)])
def test_scope_decides_who_competes(tmp_path: Path, scope: str, hits: int) -> None:
    # Layer 0 goes round three experts, layer 1 stays with one: two places each serve layer 1 alone, four in all both.
    catalog = make_catalog(tmp_path, layers=2, experts=4, top_k=1)
    trace = make_trace([[[token % 3], [0]] for token in range(6)], experts=4)
    found = simulate(trace, LRU, make_config(capacity_experts=4, scope=scope), catalog)
    assert (found.run.counts.hits, found.run.counts.demands) == (hits, 12 - hits)


def test_a_perfect_prefetch_keeps_the_link_busy_from_the_first_moment(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path, layers=2, experts=4, top_k=1)
    found = simulate(make_trace([[[0], [1]]], experts=4), PERFECT, make_config(capacity_experts=8), catalog)
    # Layer 0 is asked for when the token begins, layer 1 at gate 0: the transfers follow each other without a gap.
    check(found, [2 * FETCH + EXPERT], late_wait=(FETCH - layer(1)) + (2 * FETCH - (FETCH + EXPERT + layer(1))))
    assert (found.run.counts.late, found.run.counts.demands, found.run.counts.hits) == (2, 0, 0)


# Two layers, one expert each. Token 0 brings expert 0 of layer 0 and expert 1 of layer 1; token 1 needs expert 0 again
# in layer 0 and expert 2, which is not there, in layer 1. What differs is what is predicted for token 1, layer 1.
ROWS = [[[0], [1]], [[0], [2]]]
TOKEN_0 = 2 * (layer(1) + FETCH + EXPERT)
TO_GATE_1 = layer(2) + EXPERT + layer(2)  # of token 1; gate 0 comes at layer(2)


def told(tmp_path: Path, named: Mapping[tuple[int, int], Sequence[int]], rows: Any = ROWS, **config: Any) -> Simulated:
    catalog = make_catalog(tmp_path, layers=2, experts=4, top_k=len(rows[0][0]))
    values = {"capacity_experts": 8, **config}
    return simulate(make_trace(rows, experts=4), TOLD, make_config(**values), catalog, named=named)


def test_without_a_prediction_the_expert_is_demanded(tmp_path: Path) -> None:
    check(told(tmp_path, {}), [TOKEN_0, TO_GATE_1 + FETCH + EXPERT], demand_wait=3 * FETCH)


def test_a_right_prediction_that_is_late_hides_what_came_between_the_gates(tmp_path: Path) -> None:
    found = told(tmp_path, {(1, 1): [2]})
    check(
        found,
        [TOKEN_0, layer(2) + FETCH + EXPERT],
        demand_wait=2 * FETCH,
        late_wait=FETCH - (EXPERT + layer(2)),
    )
    assert (found.run.counts.demands, found.run.counts.late, found.run.counts.ahead) == (2, 1, 0)


def test_a_right_prediction_in_time_leaves_no_wait(tmp_path: Path) -> None:
    fast = FETCH // 100  # of a link of 100 GB/s
    found = told(tmp_path, {(1, 1): [2]}, link_gb_per_s=100)
    check(found, [2 * (layer(1) + fast + EXPERT), TO_GATE_1 + EXPERT], demand_wait=2 * fast)
    assert (found.run.counts.ahead, found.run.counts.useful, found.run.counts.hits) == (1, 1, 2)


def test_a_wrong_prefetch_is_given_up_at_its_next_chunk_for_a_demand(tmp_path: Path) -> None:
    found = told(tmp_path, {(1, 1): [3]})
    # It started at gate 0 and is in its first chunk when gate 1 asks for expert 2.
    check(
        found,
        [TOKEN_0, layer(2) + CHUNK + FETCH + EXPERT],
        demand_wait=2 * FETCH + CHUNK - (EXPERT + layer(2)) + FETCH,
    )
    assert (found.run.counts.abandoned_bytes, found.run.counts.demands, found.run.counts.dropped) == (10_000, 3, 1)


def test_a_wrong_prefetch_that_waits_costs_nothing_more(tmp_path: Path) -> None:
    # The right one goes first; the wrong one never starts.
    found = told(tmp_path, {(1, 1): [2, 3]})
    check(
        found,
        [TOKEN_0, layer(2) + FETCH + EXPERT],
        demand_wait=2 * FETCH,
        late_wait=FETCH - (EXPERT + layer(2)),
    )
    assert (found.run.counts.dropped, found.run.counts.abandoned_bytes, found.run.link_busy_ps) == (1, 0, 3 * FETCH)


def test_a_prefetch_behind_a_wrong_one_is_promoted_when_its_gate_asks(tmp_path: Path) -> None:
    found = told(tmp_path, {(1, 1): [3, 2]})
    # It was queued when its gate asked, and starts for that gate: a demand that a prediction had asked for.
    check(
        found,
        [TOKEN_0, layer(2) + CHUNK + FETCH + EXPERT],
        demand_wait=2 * FETCH,
        late_wait=CHUNK - (EXPERT + layer(2)) + FETCH,
    )
    assert (found.run.counts.demands, found.run.counts.abandoned_bytes) == (3, 10_000)


def test_a_wrong_prefetch_that_nothing_overtakes_ends_and_may_be_used_later(tmp_path: Path) -> None:
    # Layer 1 of token 1 needs what is there; expert 3, predicted wrongly, is used by token 2.
    found = told(tmp_path, {(1, 1): [3]}, [[[0], [1]], [[0], [1]], [[0], [3]]], link_gb_per_s=10)
    fast = FETCH // 10  # as long as an expert: it arrives in token 1, whatever its gates ask
    check(
        found, [2 * (layer(1) + fast + EXPERT), 2 * (layer(2) + EXPERT), 2 * (layer(3) + EXPERT)], demand_wait=2 * fast
    )
    assert (found.run.counts.ahead, found.run.counts.useful, found.run.counts.wasted) == (1, 1, 0)


def test_a_wrong_prefetch_still_on_its_way_serves_a_later_token(tmp_path: Path) -> None:
    found = told(tmp_path, {(1, 1): [3], (2, 1): [3]}, [[[0], [1]], [[0], [1]], [[0], [3]]])
    token_1 = 2 * (layer(2) + EXPERT)
    in_time = token_1 - layer(2) + 2 * layer(3) + EXPERT  # from gate 0 of token 1 to gate 1 of token 2
    check(
        found,
        [TOKEN_0, token_1, 2 * layer(3) + EXPERT + (FETCH - in_time) + EXPERT],
        demand_wait=2 * FETCH,
        late_wait=FETCH - in_time,
    )
    assert (found.run.counts.late, found.run.counts.demands) == (1, 2)


def test_the_prefetch_engine_delays_what_it_predicts(tmp_path: Path) -> None:
    # At 1 GHz an event takes 1 µs; the token's beginning is an event too, and gate 0 comes before its answer.
    found = told(tmp_path, {(1, 1): [2]}, engine_cycles=1000)
    check(
        found,
        [TOKEN_0, 2_000_000 + FETCH + EXPERT],
        demand_wait=2 * FETCH,
        late_wait=2_000_000 + FETCH - TO_GATE_1,
    )


def test_a_prediction_that_comes_after_its_gate_is_refused(tmp_path: Path) -> None:
    found = told(tmp_path, {(1, 1): [2]}, engine_cycles=2000)  # two events: longer than an expert and a gate
    check(found, [TOKEN_0, TO_GATE_1 + FETCH + EXPERT], demand_wait=3 * FETCH)
    assert (found.run.counts.refused, found.run.counts.demands) == (1, 3)


FOUR = [[[0], [0]], [[0], [1]], [[0], [1]], [[0], [0]]]


@pytest.mark.parametrize("prompts", [(), (0, 1)])
def test_a_prefetch_that_evicts_what_is_needed_pollutes(tmp_path: Path, prompts: tuple[int, ...]) -> None:
    # Two places in layer 1 hold experts 0 and 1; prefetching 3 evicts 0, which token 3 would have found there. What
    # a prompt leaves on the device is held like what tokens brought; the prompt is one step.
    catalog = make_catalog(tmp_path, layers=2, experts=4, top_k=1)
    trace = make_trace(FOUR, experts=4, prompts=prompts)
    config = make_config(capacity_experts=4, link_gb_per_s=10)
    step = 2 - max(0, len(prompts) - 1)
    found = simulate(trace, TOLD, config, catalog, named={(step, 1): [3]})
    assert (found.run.counts.wasted, found.run.counts.ahead) == (1, 1)
    alone = simulate(trace, LRU, config, catalog)
    assert alone.run.counts.hits == found.run.counts.hits + 1


def test_a_predicted_expert_does_not_give_way_to_a_prefetch(tmp_path: Path) -> None:
    # Layer 1 holds 0 (older) and 1. Both are named with 2: neither gives way, so 2 does not move.
    found = told(tmp_path, {(2, 1): [2, 0, 1]}, [[[0], [0]], [[0], [1]], [[0], [0]]], capacity_experts=4)
    assert (found.run.counts.ahead, found.run.counts.late, found.run.counts.demands) == (0, 0, 3)
    assert (found.run.counts.hits, found.run.counts.dropped + found.run.counts.refused) == (3, 1)
    assert found.run.link_busy_ps == 3 * FETCH


def test_a_prompt_warms_the_device_in_no_time_and_is_not_counted(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path, layers=1, experts=4, top_k=1)
    trace = make_trace([[[0]], [[1]], [[0]], [[1]]], experts=4, prompts=[0, 1])
    found = simulate(trace, LRU, make_config(capacity_experts=2), catalog)
    check(found, [layer(3) + EXPERT, layer(4) + EXPERT])
    assert (found.run.counts.lookups, found.run.counts.demands, found.run.link_busy_ps) == (2, 0, 0)
    assert found.simulator.outcome(LRU, found.run).tokens == 2
    assert found.simulator.link_roofline_s is None


def test_shared_experts_run_before_the_routed_and_hide_part_of_the_wait(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path, layers=1, experts=4, top_k=1, shared_experts=2)
    found = simulate(make_trace([[[0]]], experts=4), LRU, make_config(capacity_experts=0), catalog)
    check(found, [layer(1) + FETCH + EXPERT], demand_wait=FETCH - 2 * EXPERT)


def test_a_whole_models_dense_layers_are_paid_for(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path, layers=3, experts=4, top_k=2, shared_experts=1, dense_layers=[0])
    config = make_config(capacity_fraction=1.0)
    whole = make_trace([[[0, 1], [2, 3]]], experts=4, layer_map=(1, 2))
    dense = attention(1) + 3 * EXPERT
    check(simulate(whole, LRU, config, catalog, resident=range(8)), [dense + 2 * (layer(1) + EXPERT + 2 * EXPERT)])
    part = make_trace([[[0, 1]]], experts=4)
    check(simulate(part, LRU, config, catalog, resident=range(4)), [layer(1) + 3 * EXPERT])


HOST = {"host_gb_per_s": 2, "host_tflops": 1}
ON_HOST = FETCH // 2  # ps: 30,000 bytes at 2 GB/s
ACTIVATIONS = 200_000  # ps: 100 values of 2 bytes over the link


def test_the_host_computes_what_a_static_placement_lacks_beside_the_device(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path, layers=1, experts=4, top_k=3)
    static = Policy(eviction=Eviction.STATIC, missing=Missing.HOST)
    trace = make_trace([[[0, 1, 2]], [[0, 1, 3]]], experts=4)
    found = simulate(trace, static, make_config(capacity_experts=2, **HOST), catalog, resident=[0, 2])
    one, two = ON_HOST + 2 * ACTIVATIONS, 2 * ON_HOST + 2 * ACTIVATIONS
    check(found, [layer(1) + one, layer(2) + two], host_wait=one - 2 * EXPERT + two - EXPERT)
    assert (found.run.counts.computed, found.run.host_busy_ps, found.run.link_busy_ps) == (3, 3 * ON_HOST, 0)


def test_the_host_has_only_the_memory_that_the_link_leaves_it(tmp_path: Path) -> None:
    # Layer 0's expert is not there; that of layer 1, predicted, moves from gate 0 on and takes half of the memory.
    catalog = make_catalog(tmp_path, layers=2, experts=4, top_k=1)
    policy = TOLD.model_copy(update={"missing": Missing.HOST})
    found = simulate(
        make_trace([[[0], [1]]], experts=4),
        policy,
        make_config(capacity_experts=8, **HOST),
        catalog,
        named={(0, 1): [1]},
    )
    # While the transfer lasts the host does what is left of its 30 µs; the rest at twice the rate.
    slowed = FETCH - ACTIVATIONS
    layer_0 = ACTIVATIONS + slowed + (FETCH - slowed) // 2 + ACTIVATIONS
    check(found, [layer(1) + layer_0 + layer(1) + EXPERT], host_wait=layer_0)
    assert (found.run.counts.ahead, found.run.counts.useful, found.run.counts.computed) == (1, 1, 1)
