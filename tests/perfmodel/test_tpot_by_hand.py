"""Policies on traces of a few tokens, against times that were added up by hand."""

import numpy as np
import pytest

from perfmodel.results import SimulationResult
from perfmodel.simulate import simulate
from tests.perfmodel.micro import (
    CHUNK,
    EXPERT,
    EXPERT_BYTES,
    FETCH,
    attention,
    gate,
    issue,
    make_catalog,
    make_config,
    make_trace,
)

PS = 1e12
GATE = gate(4)


def layer(context_tokens: int) -> int:
    """From the start of a layer until its gate is known, ps."""
    return attention(context_tokens) + GATE


def check(result: SimulationResult, token_ps: list[int], **parts: int) -> None:
    """Compare the total, the slowest token and the waits (those not named must be 0)."""
    assert result.breakdown.total_ps == sum(token_ps)
    assert result.tpot.mean_s == pytest.approx(sum(token_ps) / len(token_ps) / PS, rel=1e-15)
    assert result.tpot.p99_s == max(token_ps) / PS
    waits = {
        name: getattr(result.breakdown, name + "_ps")
        for name in ("demand_wait", "late_prefetch_wait", "engine_latency")
    }
    assert waits == {"demand_wait": 0, "late_prefetch_wait": 0, "engine_latency": 0, **parts}


def test_all_resident_is_the_sum_of_the_kernels(tmp_path) -> None:
    catalog = make_catalog(tmp_path, layers=2, experts=4, top_k=2)
    trace = make_trace([[[0, 1], [2, 3]], [[1, 2], [3, 0]]], experts=4)
    result = simulate(trace, "all_resident", make_config(), catalog=catalog)
    check(result, [2 * (layer(1) + 2 * EXPERT), 2 * (layer(2) + 2 * EXPERT)])
    assert result.bytes.total == 0
    assert result.experts.hit_rate == 1


def test_on_demand_waits_for_every_expert_and_computes_behind_the_transfers(tmp_path) -> None:
    catalog = make_catalog(tmp_path, layers=2, experts=4, top_k=2)
    trace = make_trace([[[0, 1], [2, 3]], [[0, 1], [2, 3]]], experts=4)
    result = simulate(trace, "on_demand", make_config(), catalog=catalog)
    # The first expert runs while the second crosses the link.
    check(
        result,
        [2 * (layer(1) + 2 * FETCH + EXPERT), 2 * (layer(2) + 2 * FETCH + EXPERT)],
        demand_wait=4 * (FETCH + FETCH - EXPERT),
    )
    assert result.bytes.model_dump() == {
        "total": 8 * EXPERT_BYTES,
        "demand": 8 * EXPERT_BYTES,
        "prefetch_useful": 0,
        "prefetch_late": 0,
        "prefetch_wasted": 0,
    }


def test_on_demand_is_bound_by_the_experts_where_the_link_is_faster_than_hbm(tmp_path) -> None:
    catalog = make_catalog(tmp_path, layers=1, experts=4, top_k=2)
    trace = make_trace([[[0, 1]]], experts=4)
    result = simulate(trace, "on_demand", make_config(link_gb_per_s=20), catalog=catalog)
    check(result, [layer(1) + FETCH // 20 + 2 * EXPERT], demand_wait=FETCH // 20)


def test_transfer_latency_is_paid_once_by_transfers_asked_for_together(tmp_path) -> None:
    catalog = make_catalog(tmp_path, layers=1, experts=4, top_k=2)
    trace = make_trace([[[0, 1]]], experts=4)
    result = simulate(trace, "on_demand", make_config(transfer_latency_us=7), catalog=catalog)
    latency = 7_000_000
    check(result, [layer(1) + latency + 2 * FETCH + EXPERT], demand_wait=latency + 2 * FETCH - EXPERT)


def test_lru_runs_what_it_has_while_it_waits_for_the_rest(tmp_path) -> None:
    catalog = make_catalog(tmp_path, layers=1, experts=4, top_k=2)
    trace = make_trace([[[0, 1]], [[2, 0]], [[0, 2]]], experts=4)
    result = simulate(trace, "lru_cache", make_config(capacity_experts=2), catalog=catalog)
    check(
        result,
        [layer(1) + 2 * FETCH + EXPERT, layer(2) + FETCH + EXPERT, layer(3) + 2 * EXPERT],
        demand_wait=2 * FETCH - EXPERT + FETCH - EXPERT,
    )
    assert (result.experts.lookups, result.experts.hits) == (6, 3)
    assert result.bytes.demand == 3 * EXPERT_BYTES
    assert result.utilisation["host_link"] == pytest.approx(3 * FETCH / result.breakdown.total_ps)


@pytest.mark.parametrize(("scope", "hits"), [("layer", 5), ("global", 8)])
def test_scope_decides_who_competes(tmp_path, scope: str, hits: int) -> None:
    # Layer 0 goes round three experts, layer 1 stays with one: two places each serve layer 1 alone, four in all both.
    catalog = make_catalog(tmp_path, layers=2, experts=4, top_k=1)
    trace = make_trace([[[token % 3], [0]] for token in range(6)], experts=4)
    result = simulate(trace, "lru_cache", make_config(capacity_experts=4, scope=scope), catalog=catalog)
    assert result.experts.hits == hits
    assert result.bytes.demand == (12 - hits) * EXPERT_BYTES


def test_a_perfect_prefetch_keeps_the_link_busy_from_the_first_moment(tmp_path) -> None:
    catalog = make_catalog(tmp_path, layers=2, experts=4, top_k=1)
    trace = make_trace([[[0], [1]]], experts=4)
    result = simulate(trace, "perfect_prefetch", make_config(capacity_experts=8), catalog=catalog)
    # Layer 0 is asked for when the token begins, layer 1 at gate 0: the transfers follow each other without a gap.
    check(
        result, [2 * FETCH + EXPERT], late_prefetch_wait=(FETCH - layer(1)) + (2 * FETCH - (FETCH + EXPERT + layer(1)))
    )
    assert result.experts.model_dump(include={"issued", "late", "useful", "used_at_target", "hits"}) == {
        "issued": 2,
        "late": 2,
        "useful": 0,
        "used_at_target": 2,
        "hits": 0,
    }
    assert result.bytes.prefetch_late == 2 * EXPERT_BYTES


def test_the_oracle_knows_no_limit_and_no_latency(tmp_path) -> None:
    catalog = make_catalog(tmp_path, layers=2, experts=4, top_k=2)
    trace = make_trace([[[0, 1], [2, 3]]], experts=4)
    free = simulate(trace, "perfect_prefetch", make_config(capacity_experts=8), catalog=catalog)
    config = make_config(capacity_experts=8, issue_limit=1, engine_cycles=5000)
    assert simulate(trace, "perfect_prefetch", config, catalog=catalog).breakdown == free.breakdown
    check(free, [4 * FETCH + EXPERT], late_prefetch_wait=free.breakdown.late_prefetch_wait_ps)


# Two layers, one expert each. Token 0 brings expert 0 of layer 0 and expert 1 of layer 1; token 1 needs expert 0 again
# in layer 0 and expert 2, which is not there, in layer 1. What differs is what is predicted for token 1, layer 1.
ROWS = [[[0], [1]], [[0], [2]]]
TOKEN_0 = 2 * (layer(1) + FETCH + EXPERT)
TO_GATE_1 = layer(2) + EXPERT + layer(2)  # of token 1; gate 0 comes at layer(2)


def run(tmp_path, named, **config) -> SimulationResult:
    trace = make_trace(ROWS, experts=4)
    catalog = make_catalog(tmp_path, layers=2, experts=4, top_k=1)
    values = {"capacity_experts": 8, **config}
    return simulate(trace, "st_moe_prefetch", make_config(**values), issue_sets=issue(trace, named), catalog=catalog)


def test_without_a_prediction_the_expert_is_demanded(tmp_path) -> None:
    result = run(tmp_path, {})
    check(result, [TOKEN_0, TO_GATE_1 + FETCH + EXPERT], demand_wait=3 * FETCH)


def test_a_right_prediction_that_is_late_hides_what_came_between_the_gates(tmp_path) -> None:
    result = run(tmp_path, {(1, 1): [2]})
    check(
        result,
        [TOKEN_0, layer(2) + FETCH + EXPERT],
        demand_wait=2 * FETCH,
        late_prefetch_wait=FETCH - (EXPERT + layer(2)),
    )
    assert (result.experts.late, result.experts.timeliness) == (1, 0)
    assert (result.bytes.demand, result.bytes.prefetch_late) == (2 * EXPERT_BYTES, EXPERT_BYTES)


def test_a_right_prediction_in_time_leaves_no_wait(tmp_path) -> None:
    fast = FETCH // 100  # of a link of 100 GB/s
    result = run(tmp_path, {(1, 1): [2]}, link_gb_per_s=100)
    check(result, [2 * (layer(1) + fast + EXPERT), TO_GATE_1 + EXPERT], demand_wait=2 * fast)
    assert (result.experts.useful, result.experts.timeliness, result.experts.accuracy) == (1, 1, 1)
    assert result.bytes.prefetch_useful == EXPERT_BYTES
    assert result.experts.hits == 2


def test_a_wrong_prefetch_is_given_up_at_its_next_chunk_for_a_demand(tmp_path) -> None:
    result = run(tmp_path, {(1, 1): [3]})
    # It started at gate 0 and is in its first chunk when gate 1 asks for expert 2.
    check(
        result,
        [TOKEN_0, layer(2) + CHUNK + FETCH + EXPERT],
        demand_wait=2 * FETCH + CHUNK - (EXPERT + layer(2)) + FETCH,
    )
    assert (result.bytes.prefetch_wasted, result.bytes.demand) == (10_000, 3 * EXPERT_BYTES)
    assert (result.experts.issued, result.experts.dropped, result.experts.used_at_target) == (1, 1, 0)


def test_a_wrong_prefetch_that_waits_costs_nothing_more(tmp_path) -> None:
    # The right one goes first; the wrong one never starts.
    result = run(tmp_path, {(1, 1): [2, 3]})
    check(
        result,
        [TOKEN_0, layer(2) + FETCH + EXPERT],
        demand_wait=2 * FETCH,
        late_prefetch_wait=FETCH - (EXPERT + layer(2)),
    )
    assert (result.experts.issued, result.experts.dropped, result.bytes.prefetch_wasted) == (2, 1, 0)


def test_a_prefetch_behind_a_wrong_one_is_promoted_when_its_gate_asks(tmp_path) -> None:
    result = run(tmp_path, {(1, 1): [3, 2]})
    check(
        result,
        [TOKEN_0, layer(2) + CHUNK + FETCH + EXPERT],
        demand_wait=2 * FETCH,
        late_prefetch_wait=CHUNK - (EXPERT + layer(2)) + FETCH,
    )
    assert (result.bytes.prefetch_late, result.bytes.prefetch_wasted) == (EXPERT_BYTES, 10_000)


def test_the_issue_limit_cuts_the_tail_of_the_set(tmp_path) -> None:
    result = run(tmp_path, {(1, 1): [3, 2]}, issue_limit=1)
    assert (result.experts.predicted, result.experts.issued, result.experts.late) == (1, 1, 0)


@pytest.mark.parametrize(("again", "at_target"), [({}, 0), ({(2, 1): [3]}, 1)])
def test_a_wrong_prefetch_that_nothing_overtakes_ends_and_may_be_used_later(tmp_path, again, at_target: int) -> None:
    # Layer 1 of token 1 needs what is there; expert 3, predicted wrongly, is used by token 2.
    trace = make_trace([[[0], [1]], [[0], [1]], [[0], [3]]], experts=4)
    catalog = make_catalog(tmp_path, layers=2, experts=4, top_k=1)
    result = simulate(
        trace,
        "st_moe_prefetch",
        make_config(capacity_experts=8, link_gb_per_s=10),
        issue_sets=issue(trace, {(1, 1): [3], **again}),
        catalog=catalog,
    )
    fast = FETCH // 10  # as long as an expert: it arrives in token 1, whatever its gates ask
    check(
        result,
        [2 * (layer(1) + fast + EXPERT), 2 * (layer(2) + EXPERT), 2 * (layer(3) + EXPERT)],
        demand_wait=2 * fast,
    )
    assert (result.experts.issued, result.experts.useful, result.experts.wasted) == (1, 1, 0)
    assert result.experts.used_at_target == at_target


def test_what_is_on_its_way_when_a_sequence_ends_is_given_up_at_its_next_chunk(tmp_path) -> None:
    # Token 1 ends its sequence; expert 3, predicted wrongly for it, is in its first chunk then.
    trace = make_trace([[[0], [1]]] * 6, experts=4, sequences=(2, 4))
    catalog = make_catalog(tmp_path, layers=2, experts=4, top_k=1)
    result = simulate(
        trace,
        "st_moe_prefetch",
        make_config(capacity_experts=8),
        issue_sets=issue(trace, {(1, 1): [3]}),
        catalog=catalog,
    )
    assert (result.experts.issued, result.experts.dropped, result.bytes.prefetch_wasted) == (1, 1, 10_000)


def test_the_prefetch_engine_delays_what_it_predicts(tmp_path) -> None:
    result = run(tmp_path, {(1, 1): [2]}, engine_cycles=2000)  # at 1 GHz: 2 µs
    delay = 2_000_000
    check(
        result,
        [TOKEN_0, layer(2) + delay + FETCH + EXPERT],
        demand_wait=2 * FETCH,
        late_prefetch_wait=FETCH - (EXPERT + layer(2)),
        engine_latency=delay,
    )


def test_the_engine_is_blamed_once_for_prefetches_it_asked_for_together(tmp_path) -> None:
    trace = make_trace([[[0, 1], [0, 1]], [[0, 1], [2, 3]]], experts=4)
    catalog = make_catalog(tmp_path, layers=2, experts=4, top_k=2)
    result = simulate(
        trace,
        "st_moe_prefetch",
        make_config(capacity_experts=8, engine_cycles=2000),
        issue_sets=issue(trace, {(1, 1): [2, 3]}),
        catalog=catalog,
    )
    delay = 2_000_000
    check(
        result,
        [2 * (layer(1) + 2 * FETCH + EXPERT), layer(2) + delay + 2 * FETCH + EXPERT],
        demand_wait=2 * (2 * FETCH - EXPERT),
        engine_latency=delay,
        late_prefetch_wait=FETCH - (2 * EXPERT + layer(2)) + FETCH - EXPERT,
    )


def test_what_is_on_its_way_and_predicted_again_is_not_fetched_twice(tmp_path) -> None:
    # Token 1 predicts expert 3 wrongly and needs nothing else from the link; token 2 predicts it again, rightly.
    trace = make_trace([[[0], [1]], [[0], [1]], [[0], [3]]], experts=4)
    catalog = make_catalog(tmp_path, layers=2, experts=4, top_k=1)
    result = simulate(
        trace,
        "st_moe_prefetch",
        make_config(capacity_experts=8),
        issue_sets=issue(trace, {(1, 1): [3], (2, 1): [3]}),
        catalog=catalog,
    )
    token_1 = 2 * (layer(2) + EXPERT)
    in_time = token_1 - layer(2) + 2 * layer(3) + EXPERT  # from gate 0 of token 1 to gate 1 of token 2
    check(
        result,
        [TOKEN_0, token_1, 2 * layer(3) + EXPERT + (FETCH - in_time) + EXPERT],
        demand_wait=2 * FETCH,
        late_prefetch_wait=FETCH - in_time,
    )
    assert (result.experts.issued, result.experts.late, result.experts.used_at_target) == (1, 1, 1)
    assert result.bytes.total == 3 * EXPERT_BYTES


def test_the_engine_is_not_blamed_while_the_link_had_work(tmp_path) -> None:
    # Expert 3 of layer 1, predicted when token 1 begins (lookahead 2), keeps the link busy during the engine's 2 µs.
    trace = make_trace([[[0], [1], [0]], [[0], [3], [2]]], experts=4)
    catalog = make_catalog(tmp_path, layers=3, experts=4, top_k=1)
    result = simulate(
        trace,
        "st_moe_prefetch",
        make_config(capacity_experts=12, lookahead=2),
        issue_sets=issue(trace, {(1, 1): [3], (1, 2): [2]}),
        engine_cycles=np.array([[0, 0, 0], [2000, 0, 0]]),
        catalog=catalog,
    )
    # Token 1 begins: 2 µs of engine, then expert 3 until 32 µs, then expert 2 until 62 µs.
    delay = 2_000_000
    check(
        result,
        [3 * (layer(1) + FETCH + EXPERT), delay + 2 * FETCH + EXPERT],
        demand_wait=3 * FETCH,
        engine_latency=delay,
        late_prefetch_wait=FETCH - (2 * layer(2) + EXPERT) + FETCH - (EXPERT + layer(2)),
    )


def test_a_prediction_that_comes_after_its_gate_is_thrown_away(tmp_path) -> None:
    result = run(tmp_path, {(1, 1): [2]}, engine_cycles=4000)  # longer than an expert and a gate
    check(result, [TOKEN_0, TO_GATE_1 + FETCH + EXPERT], demand_wait=3 * FETCH)
    assert (result.experts.overdue, result.experts.predicted, result.experts.issued) == (1, 0, 0)


def test_a_prefetch_that_evicts_what_is_needed_pollutes(tmp_path) -> None:
    # Two places in layer 1 hold experts 0 and 1; prefetching 3 evicts 0, which token 3 would have found there.
    trace = make_trace([[[0], [0]], [[0], [1]], [[0], [1]], [[0], [0]]], experts=4)
    catalog = make_catalog(tmp_path, layers=2, experts=4, top_k=1)
    result = simulate(
        trace,
        "st_moe_prefetch",
        make_config(capacity_experts=4, link_gb_per_s=10),
        issue_sets=issue(trace, {(2, 1): [3]}),
        catalog=catalog,
    )
    assert (result.experts.polluted, result.experts.wasted) == (1, 1)
    assert result.bytes.prefetch_wasted == EXPERT_BYTES
    plain = simulate(trace, "lru_cache", make_config(capacity_experts=4, link_gb_per_s=10), catalog=catalog)
    assert plain.experts.hits == result.experts.hits + 1


def test_a_prompt_warms_the_cache_without_prefetching_too(tmp_path) -> None:
    # As above, but tokens 0 and 1 are a prompt: what they leave is what token 3 would have found.
    trace = make_trace([[[0], [0]], [[0], [1]], [[0], [1]], [[0], [0]]], experts=4, prompts=[0, 1])
    catalog = make_catalog(tmp_path, layers=2, experts=4, top_k=1)
    config = make_config(capacity_experts=4, link_gb_per_s=10)
    result = simulate(trace, "st_moe_prefetch", config, issue_sets=issue(trace, {(2, 1): [3]}), catalog=catalog)
    assert (result.experts.polluted, result.experts.wasted) == (1, 1)


def test_a_predicted_expert_is_not_evicted_for_a_prefetch(tmp_path) -> None:
    # Layer 1 holds 0 (older) and 1. Both are named with 2: neither gives way, so 2 is refused.
    trace = make_trace([[[0], [0]], [[0], [1]], [[0], [0]]], experts=4)
    catalog = make_catalog(tmp_path, layers=2, experts=4, top_k=1)
    result = simulate(
        trace,
        "st_moe_prefetch",
        make_config(capacity_experts=4),
        issue_sets=issue(trace, {(2, 1): [2, 0, 1]}),
        catalog=catalog,
    )
    assert (result.experts.issued, result.experts.refused, result.experts.dropped) == (1, 1, 1)
    assert result.bytes.prefetch_wasted == 0
    assert result.experts.hits == 3


def test_prompt_tokens_warm_the_cache_and_are_not_counted(tmp_path) -> None:
    catalog = make_catalog(tmp_path, layers=1, experts=4, top_k=1)
    trace = make_trace([[[0]], [[1]], [[0]], [[1]]], experts=4, prompts=[0, 1])
    result = simulate(trace, "lru_cache", make_config(capacity_experts=2), catalog=catalog)
    check(result, [layer(3) + EXPERT, layer(4) + EXPERT])
    assert (result.decode_tokens, result.prompt_tokens, result.bytes.total) == (2, 2, 0)


def test_shared_experts_run_before_the_routed_and_hide_part_of_the_wait(tmp_path) -> None:
    catalog = make_catalog(tmp_path, layers=1, experts=4, top_k=1, shared_experts=2)
    trace = make_trace([[[0]]], experts=4)
    result = simulate(trace, "on_demand", make_config(), catalog=catalog)
    check(result, [layer(1) + FETCH + EXPERT], demand_wait=FETCH - 2 * EXPERT)


def test_a_whole_models_dense_layers_are_paid_for(tmp_path) -> None:
    catalog = make_catalog(tmp_path, layers=3, experts=4, top_k=2, shared_experts=1, dense_layers=[0])
    trace = make_trace([[[0, 1], [2, 3]]], experts=4, layer_map=(1, 2))
    result = simulate(trace, "all_resident", make_config(), catalog=catalog)
    dense = attention(1) + 3 * EXPERT
    check(result, [dense + 2 * (layer(1) + EXPERT + 2 * EXPERT)])
    part = make_trace([[[0, 1]]], experts=4)
    assert simulate(part, "all_resident", make_config(), catalog=catalog).breakdown.total_ps == layer(1) + 3 * EXPERT
