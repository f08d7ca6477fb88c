"""What an expert takes over the link, on the device and on the host, worked out by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.catalogue import load_catalog
from catalog.errors import ForestageError
from perfmodel.config import SimulationConfig
from perfmodel.costs import CostModel
from perfmodel.durations import LONGEST_PS, durations
from perfmodel.workload import Durations
from predictor.policies.plan import Missing
from tests.perfmodel.micro import EXPERT, FETCH, make_catalog, make_config

CATALOG = load_catalog()


def of_micro(
    tmp_path: Path, *, most_tokens: int = 2, largest_step: int = 1, missing: Missing = Missing.FETCH, **values: Any
) -> Durations:
    catalog = make_catalog(tmp_path, layers=2, experts=4, top_k=2)
    config = make_config(**values)
    costs = CostModel(catalog.models.find("micro"), catalog.machines.find("micro"), config.link_gb_per_s)
    return durations(costs, config, most_tokens=most_tokens, largest_step=largest_step, missing=missing)


def test_chunks_pass_at_the_links_rate_and_latency_is_paid_once(tmp_path: Path) -> None:
    plain = of_micro(tmp_path)
    assert plain.chunk_ps.tolist() == [0, 10_000_000, 20_000_000, FETCH]
    late = of_micro(tmp_path, transfer_latency_us=2.5, chunk_bytes=20_000)
    assert late.chunk_ps.tolist() == [0, 22_500_000, 32_500_000]
    assert of_micro(tmp_path, chunk_bytes=30_000).chunk_ps.tolist() == [0, FETCH]
    assert of_micro(tmp_path, chunk_bytes=40_000).chunk_ps.tolist() == [0, FETCH]
    third = of_micro(tmp_path, link_gb_per_s=3)
    assert third.chunk_ps.tolist() == [0, 3_333_334, 6_666_667, 10_000_000]


def test_an_expert_of_one_token_takes_what_the_costs_say(tmp_path: Path) -> None:
    times = of_micro(tmp_path)
    assert times.expert_ps.tolist() == [0, EXPERT, EXPERT]
    for model in ("gpt-oss-20b", "DeepSeek-V2-Lite", "Mixtral-8x7B"):
        costs = CostModel(CATALOG.models.find(model), CATALOG.machines.find("A100"))
        times = durations(costs, SimulationConfig(), most_tokens=64, largest_step=64)
        assert times.chunk_ps[-1] == costs.expert_transfer_ps
        assert times.expert_bytes == costs.expert_bytes
        for tokens in (1, 2, 38, 39, 64):
            assert times.expert_ps[tokens] == costs.expert(tokens).duration_ps
            assert times.expert_compute_ps[tokens] == costs.expert(tokens).compute_ps


def test_the_host_reads_what_the_link_leaves(tmp_path: Path) -> None:
    host = {"missing": Missing.HOST, "host_gb_per_s": 4, "host_tflops": 0.01}
    times = of_micro(tmp_path, host_latency_us=1, largest_step=3, **host)
    assert times.host_work == 30_000 * 10**6
    # 10¹⁰ operations a second, 60,000 an expert and token, 30,000 bytes: 5,000 and 2,500 · 10⁶ bytes a second at most.
    assert times.host_free_rate.tolist() == [0, 4_000, 2_500]
    assert times.host_shared_rate.tolist() == [0, 3_000, 2_500]
    assert (times.host_groups, times.host_token_ps) == (1, 0)
    # 3 tokens of 100 values of 2 bytes at 1 GB/s, and the latency.
    assert times.host_before_ps == times.host_after_ps == 600_000 + 1_000_000
    apart = of_micro(tmp_path, shared_host_memory=False, **host)
    assert apart.host_shared_rate.tolist() == apart.host_free_rate.tolist() == [0, 4_000, 2_500]


def test_a_link_is_no_faster_than_the_host_memory_that_it_reads(tmp_path: Path) -> None:
    host = {"host_gb_per_s": 0.5, "host_tflops": 1, "missing": Missing.SOONER}
    times = of_micro(tmp_path, **host)
    assert times.chunk_ps[-1] == 2 * FETCH
    assert (times.host_free_rate[1], times.host_shared_rate[1]) == (500, 0)
    assert times.host_before_ps == 400_000
    assert of_micro(tmp_path, host_gb_per_s=0.5).chunk_ps[-1] == 2 * FETCH
    assert of_micro(tmp_path, shared_host_memory=False, **host).chunk_ps[-1] == FETCH


def test_a_rate_is_floored_once(tmp_path: Path) -> None:
    times = of_micro(tmp_path, host_gb_per_s=2.0002, host_tflops=1, link_gb_per_s=1.0003)
    assert (times.host_free_rate[1], times.host_shared_rate[1]) == (2_000, 999)  # 999.9 · 10⁶


def test_a_host_that_is_not_known_is_not_asked_to_compute(tmp_path: Path) -> None:
    with pytest.raises(
        ForestageError, match=r"^machine micro: host_memory: .*give host_memory, or host_gb_per_s and host_tflops$"
    ):
        of_micro(tmp_path, missing=Missing.HOST)
    with pytest.raises(ForestageError, match=r"^machine micro: host_tflops: .*give host_tflops$"):
        of_micro(tmp_path, missing=Missing.SOONER, host_gb_per_s=10)
    with pytest.raises(ForestageError, match="host_tflops: less than 1 MB/s of an expert for 600 tokens"):
        of_micro(tmp_path, missing=Missing.HOST, host_gb_per_s=10, host_tflops=0.001, most_tokens=600)
    times = of_micro(tmp_path)
    assert (times.host_free_rate.max(), times.host_shared_rate.max(), times.host_before_ps) == (0, 0, 0)


def test_the_largest_values_that_a_configuration_allows_do_not_overflow() -> None:
    model = CATALOG.models.find("Jamba-1.5-Large")
    config = SimulationConfig(
        link_gb_per_s=1e-3,
        transfer_latency_us=1e6,
        host_latency_us=1e6,
        chunk_bytes=4096,
        host_gb_per_s=1e-3,
        host_tflops=100_000,
    )
    costs = CostModel(model, CATALOG.machines.find("A100"), config.link_gb_per_s)
    times = durations(costs, config, most_tokens=4096, largest_step=4096, missing=Missing.HOST)
    assert len(times.chunk_ps) == 1 + -(-model.expert_bytes // 4096)
    assert int(times.chunk_ps[-1]) == 10**12 + model.expert_bytes * 10**6
    assert (np.diff(times.chunk_ps) > 0).all()
    assert times.host_work == model.expert_bytes * 10**6 < 2**62
    assert times.host_free_rate[1:].tolist() == [1] * 4096
    for hidden, fault in (
        (10**8, "model Jamba-1.5-Large: an expert has 14745600000000 bytes"),
        (10**6, "one transfer takes 1.47e\\+05 s; give a faster machine"),
    ):
        huge = CostModel(model.model_copy(update={"hidden": hidden}), costs.machine, 1e-3)
        with pytest.raises(ForestageError, match=fault):
            durations(huge, config, most_tokens=1, largest_step=1)
    wide = CostModel(model.model_copy(update={"hidden": 10**6}), costs.machine)
    with pytest.raises(ForestageError, match="chunk_bytes: an expert of 147456000000 bytes has more than"):
        durations(wide, SimulationConfig(chunk_bytes=4096), most_tokens=1, largest_step=1)
    assert LONGEST_PS < 2**62


def test_the_machines_own_host_memory_is_used_and_can_be_replaced() -> None:
    model = CATALOG.models.find("gpt-oss-20b")
    desktop = CostModel(model, CATALOG.machines.find("RTX-4090"))

    def times(**values: Any) -> Durations:
        return durations(desktop, SimulationConfig(**values), most_tokens=1, largest_step=1, missing=Missing.HOST)

    own = times()
    assert (own.host_free_rate[1], own.host_shared_rate[1]) == (76_160, 44_160)  # 0.85 · 89.6 GB/s, less 32
    assert own.host_before_ps == 5_000_000 + 2880 * 2 * 1000 // 32
    assert times(host_memory="DDR5-4800-12ch").host_free_rate[1] == 391_680
    assert times(host_gb_per_s=60).host_free_rate[1] == 60_000
    slow = model.expert_bytes * 10**10 // (model.expert_flops * 10**6)
    assert times(host_tflops=0.01).host_free_rate[1] == slow < 76_160
    assert times(host_latency_us=0).host_before_ps == 180_000
    with pytest.raises(ForestageError, match="host_memory 'HBM9' is not in the catalogue; the nearest known is"):
        times(host_memory="HBM9")
    bare = CostModel(model, CATALOG.machines.find("ST-MoE"), 32)
    with pytest.raises(ForestageError, match="machine ST-MoE-accelerator: host_memory: not in the catalogue"):
        durations(bare, SimulationConfig(), most_tokens=1, largest_step=1, missing=Missing.HOST)


def test_settings_of_the_host_have_bounds() -> None:
    for values in (
        {"transfer_latency_us": float("inf")},
        {"host_latency_us": float("nan")},
        {"host_gb_per_s": 0},
        {"host_tflops": 1e6},
    ):
        with pytest.raises(ForestageError):
            SimulationConfig.parse(values, origin="test")
