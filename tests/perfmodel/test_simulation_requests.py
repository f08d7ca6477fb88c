"""What `simulate` is asked, what it says it did, and how it refuses."""

import json
from typing import Any

import numpy as np
import pytest

from catalog.errors import ForestageError
from perfmodel.config import SimulationConfig
from perfmodel.policies import policy_names
from perfmodel.results import SimulationResult, TokenTime
from perfmodel.simulate import compute_bounds, simulate
from perfmodel.sweep import sweep
from perfmodel.units import PS_PER_S
from predictor.issue import IssueSets
from tests.perfmodel.micro import issue, make_catalog, make_config, make_trace

IDS = [[[0, 1], [2, 3]], [[1, 2], [3, 0]], [[1, 3], [2, 0]]]
TRACE = make_trace(IDS, experts=4)


@pytest.fixture
def catalog(tmp_path) -> Any:
    return make_catalog(tmp_path, layers=2, experts=4, top_k=2)


def test_a_result_says_what_was_simulated_and_is_json(catalog) -> None:
    config = make_config(capacity_fraction=0.75, link_gb_per_s=2)
    bounds = compute_bounds(TRACE, config, catalog=catalog)
    result = simulate(TRACE, "perfect_prefetch", config, bounds=bounds, catalog=catalog)
    document = json.loads(json.dumps(result.model_dump(mode="json")))
    assert SimulationResult.model_validate(document) == result
    assert (document["routing_of"], document["sizes_of"], document["machine"]) == ("micro", "micro", "micro")
    assert (document["capacity_experts"], document["link_gb_per_s"], document["expert_bytes"]) == (6, 2, 30_000)
    assert document["bounds"]["perfect_prefetch_s"] == document["tpot"]["mean_s"]
    assert sum(document["tpot_parts_s"].values()) == pytest.approx(document["tpot"]["mean_s"], rel=1e-12)
    assert not document["synthetic"]


def test_synthetic_routing_is_marked(catalog) -> None:
    trace = make_trace(IDS, experts=4, synthetic=True)
    assert simulate(trace, "all_resident", make_config(), catalog=catalog).synthetic


def test_bounds_without_a_capacity_are_those_that_need_no_cache(catalog) -> None:
    bounds = compute_bounds(TRACE, make_config(), catalog=catalog)
    assert bounds.on_demand_s > bounds.all_resident_s > 0
    assert bounds.no_prefetch_s is bounds.perfect_prefetch_s is bounds.link_roofline_s is bounds.belady_hit_rate is None


def test_bounds_are_those_of_the_cache(catalog) -> None:
    # Layer 0: 0 1 | 1 2 | 1 3 in three places: four loads. Layer 1: 2 3 | 3 0 | 2 0: three loads.
    bounds = compute_bounds(TRACE, make_config(capacity_experts=6), catalog=catalog)
    assert bounds.belady_hit_rate == bounds.lru_hit_rate == 5 / 12
    assert bounds.link_roofline_s == 7 * 30_000 / 1e9 / 3


def test_a_perfect_result_of_another_configuration_is_no_bound(catalog) -> None:
    result = simulate(TRACE, "perfect_prefetch", make_config(capacity_experts=6), catalog=catalog)
    with pytest.raises(ValueError, match="another policy or configuration"):
        compute_bounds(TRACE, make_config(capacity_experts=7), perfect=result, catalog=catalog)


def test_progress_ends_at_the_last_token(catalog) -> None:
    trace = make_trace(IDS * 50, experts=4, prompts=[0])
    seen: list[tuple[int, int]] = []
    simulate(trace, "on_demand", make_config(), progress=lambda *done: seen.append(done), catalog=catalog)
    assert seen == [(64, 150), (128, 150), (150, 150)]


def test_a_percentile_is_the_time_of_the_token_that_so_many_do_not_exceed() -> None:
    times = TokenTime.of([PS_PER_S * n for n in range(200, 0, -1)])
    assert (times.mean_s, times.p50_s, times.p95_s, times.p99_s) == (100.5, 100, 190, 198)


def test_sizes_of_another_model_are_named(catalog) -> None:
    trace = make_trace(np.tile([0, 1, 2, 3], (2, 3, 1)), experts=32)
    result = simulate(trace, "on_demand", make_config(sizes_of="gpt-oss-20b"), catalog=catalog)
    assert (result.routing_of, result.sizes_of, result.expert_bytes) == ("micro", "gpt-oss-20b", 13_236_480)


def test_sizes_of_another_shape_are_used_only_on_request(catalog) -> None:
    with pytest.raises(ForestageError, match=r"the trace has \(experts, top_k\) = \(4, 2\), gpt-oss-20b has \(32, 4\)"):
        simulate(TRACE, "on_demand", make_config(sizes_of="gpt-oss-20b"), catalog=catalog)
    config = make_config(sizes_of="gpt-oss-20b", allow_other_shape=True)
    assert simulate(TRACE, "on_demand", config, catalog=catalog).sizes_of == "gpt-oss-20b"


def test_a_model_that_was_run_with_another_top_k_keeps_its_own_sizes(catalog) -> None:
    cut = make_trace([[[0], [2]], [[1], [3]]], experts=4)
    assert simulate(cut, "on_demand", make_config(), catalog=catalog).sizes_of == "micro"
    with pytest.raises(ForestageError, match=r"\(4, 1\), micro has \(4, 2\)"):
        simulate(cut, "on_demand", make_config(sizes_of="micro"), catalog=catalog)
    other = make_trace([[[0, 4], [2, 1]]], experts=5)
    with pytest.raises(ForestageError, match=r"\(5, 2\), micro has \(4, 2\)"):
        simulate(other, "on_demand", make_config(), catalog=catalog)


@pytest.mark.parametrize(
    ("trace", "policy", "values", "message"),
    [
        (TRACE, "lru_cach", {}, "policy: unknown name 'lru_cach'; the nearest known name is 'lru_cache'"),
        (TRACE, "on_demand", {"sizes_of": "micor"}, "the nearest known is 'micro'"),
        (TRACE, "on_demand", {"machine": "mircro"}, "machine 'mircro' is not in the catalogue; the nearest known is"),
        (
            make_trace(IDS, experts=4, model="nobody's"),
            "on_demand",
            {},
            "sizes_of: the trace's model 'nobody's' is not",
        ),
        (TRACE, "lru_cache", {}, "capacity: this policy has a cache; give"),
        (TRACE, "lru_cache", {"capacity_experts": 3}, "3 experts leave 1 places for a layer.* needs 2"),
        (TRACE, "perfect_prefetch", {"capacity_experts": 4}, "4 experts leave 2 places for a layer.* needs 3"),
        (TRACE, "lru_cache", {"capacity_gb": 1e-5}, "0 experts leave 0 places"),
        (TRACE, "st_moe_prefetch", {"capacity_experts": 6}, "issue_sets: .*give .3, 2, ….*none were given"),
        (make_trace(IDS, experts=4, prompts=[0, 1, 2]), "on_demand", {}, "phase: no decode token"),
        (
            make_trace([*IDS[:2], [[255, 255], [0, 1]]], experts=4, has_unrecorded=True),
            "on_demand",
            {},
            "decode token 2 has no recorded routing in layer 0",
        ),
    ],
)
def test_what_cannot_be_simulated_is_refused_in_one_line(catalog, trace, policy: str, values, message: str) -> None:
    with pytest.raises(ForestageError, match=message) as caught:
        simulate(trace, policy, make_config(**values), catalog=catalog)
    assert "\n" not in str(caught.value)


def test_arrays_of_another_trace_are_refused(catalog) -> None:
    config = make_config(capacity_experts=6)
    with pytest.raises(ForestageError, match=r"issue_sets: .*give \[3, 2, …\], the given ones are \(2, 2, 3\)"):
        simulate(TRACE, "st_moe_prefetch", config, issue_sets=issue(TRACE, {}).first_tokens(2), catalog=catalog)
    sets = issue(TRACE, {}).experts
    with pytest.raises(ForestageError, match="lookahead: the issue sets were made for 2, they are used at 1"):
        simulate(TRACE, "st_moe_prefetch", config, issue_sets=IssueSets(sets, 2), catalog=catalog)
    more = make_config(capacity_experts=6, issue_limit=4)
    with pytest.raises(ForestageError, match="issue_limit: 4 asked for, the issue sets hold at most 3"):
        simulate(TRACE, "st_moe_prefetch", more, issue_sets=IssueSets(sets, 1), catalog=catalog)
    with pytest.raises(ForestageError, match=r"engine_cycles: .*the given ones are \(3, 3\)"):
        simulate(TRACE, "on_demand", config, engine_cycles=np.zeros((3, 3), np.int64), catalog=catalog)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"capacity_expert": 3}, "unknown key 'capacity_expert'; the nearest known key is 'capacity_experts'"),
        (
            {"capacity_experts": 3, "capacity_gb": 1.0},
            "give one of capacity_experts, capacity_fraction and capacity_gb",
        ),
        ({"scope": "layers"}, "scope: Input should be 'layer' or 'global'"),
        ({"capacity_fraction": 1.5}, "capacity_fraction: Input should be less than or equal to 1"),
        ({"lookahead": 0}, "lookahead: Input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_configuration_is_refused(values, message: str) -> None:
    with pytest.raises(ForestageError, match=f"here: .*{message}"):
        SimulationConfig.parse(values, origin="here")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"capacity_experts": 5}, 5),
        ({"capacity_experts": 900}, 400),
        ({"capacity_fraction": 0.29}, 116),  # 0.29 · 400 is 115.99… in binary
        ({"capacity_fraction": 0.2924}, 116),
        ({"capacity_gb": 0.0014}, 46),
    ],
)
def test_capacity_in_experts(values, expected: int) -> None:
    assert SimulationConfig(**values).capacity(layers=4, experts=100, expert_bytes=30_000) == expected


def test_a_sweep_is_a_row_a_point(catalog) -> None:
    config = make_config(capacity_fraction=0.75)
    axes = {"link_gb_per_s": [1.0, 4.0], "capacity_experts": [6, 8]}
    done: list[tuple[int, int]] = []
    policies = ["lru_cache", "perfect_prefetch"]
    rows = sweep(TRACE, policies, config, axes, progress=lambda *args: done.append(args), catalog=catalog)
    assert [(row["link_gb_per_s"], row["capacity_experts"]) for row in rows] == [(1, 6), (1, 8), (4, 6), (4, 8)]
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    varied = make_config(capacity_experts=8, link_gb_per_s=4)
    expected = simulate(TRACE, "lru_cache", varied, catalog=catalog)
    assert rows[3]["tpot_s"]["lru_cache"] == expected.tpot.mean_s
    assert rows[3]["link_bytes"]["lru_cache"] == expected.bytes.total
    assert rows[3]["hit_rate"]["lru_cache"] == expected.experts.hit_rate
    assert rows[3]["bounds"] == compute_bounds(TRACE, varied, catalog=catalog).model_dump()
    json.dumps(rows)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({}, "0 keys; vary one or two"),
        ({"link_gb_per_s": [1], "scope": ["layer"], "chunk_bytes": [4096]}, "3 keys"),
        ({"link": [1]}, "unknown key 'link'"),
        ({"link_gb_per_s": [4, -1]}, "link_gb_per_s: Input should be greater than or equal to 0.001"),
        ({"lookahead": [1, 2]}, "the issue sets were made for one"),
    ],
)
def test_a_sweep_refuses_what_it_cannot_vary(catalog, axes, message: str) -> None:
    with pytest.raises(ForestageError, match=message):
        sweep(TRACE, ["on_demand"], make_config(), axes, catalog=catalog)


def test_policies_are_listed_from_the_slowest_to_the_bound() -> None:
    assert policy_names() == ("on_demand", "lru_cache", "st_moe_prefetch", "perfect_prefetch", "all_resident")
