"""Experts in memory that computes: their layout, their times, what they contend for, and what is refused."""

import math
from pathlib import Path
from typing import Any

import pytest

from catalog import load_catalog
from catalog.catalogue import Catalog
from catalog.errors import ForestageError
from perfmodel.config import SimulationConfig
from perfmodel.costs import CostModel
from perfmodel.durations import durations
from perfmodel.in_memory import ExpertMemory, in_memory_durations
from perfmodel.in_memory_config import InMemory
from perfmodel.workload import Durations
from pim_model.unit.schedule import schedule
from predictor.policies.plan import Missing
from predictor.policies.policy import Eviction, Policy
from tests.perfmodel.micro import attention, gate, make_catalog, make_config, make_trace, simulate

CATALOG = load_catalog()


def memory_of(
    model: str = "gpt-oss-20b", machine: str = "A100-80GB", *, catalog: Catalog = CATALOG, **settings: Any
) -> ExpertMemory:
    costs = CostModel(catalog.find_model(model), catalog.machines.find(machine))
    return ExpertMemory.of(InMemory(**settings), costs, catalog)


def durations_of(model: str = "gpt-oss-20b", *, most_tokens: int = 9, largest_step: int = 3, **of: Any) -> Durations:
    costs = CostModel(CATALOG.find_model(model), CATALOG.machines.find("A100-80GB"))
    return in_memory_durations(
        costs, SimulationConfig(), InMemory(**of), most_tokens=most_tokens, largest_step=largest_step
    )


# --- layout ---


def test_an_expert_lies_in_one_stack_and_shared_scales_stay_together() -> None:
    of = memory_of()
    assert (of.pseudo_channels, of.groups, of.tokens_per_read) == (32, 8, 1)
    # 2880 rows in 32s: 90 of these over 32 pseudo-channels, 3 at most.
    assert of.slice_rows == 96
    assert memory_of("DeepSeek-V2-Lite").slice_rows == 44  # 1408 / 32, BF16 shares nothing
    halves = memory_of(pseudo_channels_per_expert=16)
    assert (halves.slice_rows, halves.groups) == (192, 16)
    assert (memory_of(pseudo_channels_per_expert=64).groups, memory_of(dram="HBM2-PIM").groups) == (4, 8)


def test_weights_lie_one_way_whatever_number_of_tokens_reads_them() -> None:
    of = memory_of("DeepSeek-V2-Lite")
    laid_out = of.program(of.tokens_per_read)
    assert of.tokens_per_read == laid_out.tokens == 4
    for tokens in (1, 2, 3):
        program = of.program(tokens)
        assert program.tokens >= tokens
        assert [phase.tiles for phase in program.phases] == [phase.tiles for phase in laid_out.phases]
    alone = memory_of("DeepSeek-V2-Lite", tokens_per_read=1)
    assert alone.program(1).phases[1].tiles != laid_out.phases[1].tiles
    assert alone.expert_ps(1) < of.expert_ps(1) < 4 * alone.expert_ps(1)
    # Three tokens have four's places among the accumulators, and fewer readbacks.
    assert [of.program(tokens).tokens for tokens in (1, 2, 3, 4)] == [3, 3, 3, 4]


def test_all_experts_must_fit_into_the_stacks() -> None:
    of = memory_of()
    # 4 of 32 experts lie in each stack, in each of 24 layers.
    needed_gb = 4 * 24 * of.stored_expert_bytes / 1e9
    assert of.stored_expert_bytes > of.model.expert_bytes
    memory_of(stack_gb=needed_gb * 1.0001)
    with pytest.raises(
        ForestageError, match=rf"^in_memory: stacks: 8 of .* GB do not hold .*, {needed_gb:.4g} GB a stack"
    ):
        memory_of(stack_gb=needed_gb * 0.9999)
    with pytest.raises(ForestageError, match=r"^in_memory: stacks: 1 of 12 GB do not hold the experts of gpt-oss-20b"):
        memory_of(stacks=1)


def test_another_format_lies_there_beside_the_models_own() -> None:
    model = CATALOG.find_model("DeepSeek-V2-Lite")
    own, other = memory_of(model.name), memory_of(model.name, weight_format="int8")
    assert other.tokens_per_read == 2
    assert other.stored_expert_bytes - model.expert_bytes < 0.6 * own.stored_expert_bytes


# --- times ---


def test_an_expert_of_many_tokens_takes_several_passes() -> None:
    of = memory_of("DeepSeek-V2-Lite", refresh=False)
    ran = schedule(of.program(4), of.parameters)
    # 2048 BF16 inputs and 2048 FP32 outputs a token over pins of 32 bytes every two clocks of 0.625 ns.
    pins_ck = 2 * 2048 * (2 + 4) // 32
    assert of.expert_ps(4) == math.ceil((ran.compute_ck + ran.readout_ck + 4 * pins_ck) * 625)
    assert abs(of.expert_ps(10) - 2 * of.expert_ps(4) - of.expert_ps(2)) <= 2
    assert memory_of("DeepSeek-V2-Lite").expert_ps(4) > of.expert_ps(4)


@pytest.mark.parametrize("device", ["HBM2-PIM", "HBM3", "HBM4"])
def test_refresh_costs_its_share_of_a_long_pass(device: str) -> None:
    of = memory_of("DeepSeek-V2-Lite", dram=device, pseudo_channels_per_expert=2, stack_gb=200)
    free = memory_of("DeepSeek-V2-Lite", dram=device, pseudo_channels_per_expert=2, stack_gb=200, refresh=False)
    interval, away = of.device.trefi_ck, of.device.trfc_ck
    assert free.pass_ck[-1] > 10 * interval
    # At least tRFC in every tREFI, and at most the closing and opening of all banks besides.
    opening = 2 * of.parameters.blocks.blocks * of.device.trc_ck
    least, most = interval / (interval - away), interval / (interval - away - opening)
    assert least * 0.99 < of.pass_ck[-1] / free.pass_ck[-1] < most


def test_the_engines_rates_give_the_experts_times() -> None:
    times, of = durations_of(), memory_of()
    assert times.host_groups == 8
    for tokens in range(1, 10):
        took = -(-times.host_work // int(times.host_free_rate[tokens]))
        assert took == pytest.approx(of.expert_ps(tokens), rel=1e-5)
    assert (times.host_shared_rate == (times.host_free_rate * of.shared_share).astype(int)).all()


def test_inputs_cross_once_a_layer_and_partial_outputs_for_every_token_of_every_expert() -> None:
    times = durations_of(latency_us=2.0)
    assert times.host_before_ps == 2_000_000 + 3 * 2880 * 2 * 1000 // 300
    assert times.host_after_ps == 2_000_000
    # 32 pseudo-channels have a slice of 96 rows or 64.
    assert times.host_token_ps == 32 * 2880 * 4 * 1000 // 300
    assert durations_of(partial_sums="stack").host_token_ps == 2880 * 4 * 1000 // 300
    two = durations_of(partial_sums="stack", pseudo_channels_per_expert=64)
    assert two.host_token_ps == 2 * 2880 * 4 * 1000 // 300


def test_experts_are_fetched_from_their_stacks_pins() -> None:
    expert = CATALOG.find_model("gpt-oss-20b").expert_bytes
    assert durations_of().chunk_ps[-1] == -(-expert * 1000 // 300)  # the A100's link
    assert durations_of(device_link_gb_per_s=100).chunk_ps[-1] == -(-expert * 1000 // 100)
    assert durations_of(dram="HBM2-PIM").chunk_ps[-1] == -(-expert * 1000 // 256)  # 16 pseudo-channels of 16 GB/s
    assert durations_of(where="host").chunk_ps[-1] == -(-expert * 1000 // 32)  # PCIe


def test_a_transfer_takes_clocks_of_the_group_that_it_reads() -> None:
    device = CATALOG.dram.find("HBM3")
    of = memory_of(device_link_gb_per_s=50)
    # A visit: 4 KB, a row in each of 4 bank groups; close, open, 128 bursts of 2, close, open 16 banks.
    act = max(device.trrd_s_ck, 2, device.tfaw_ck / 4)
    away = 2 * (device.trtp_l_ck + device.trp_ck) + 2 * device.trcd_read_ck + 256 + (3 + 15) * act
    lost = 50e9 / 32 / 4096 * away * 0.625e-9
    assert of.shared_share == pytest.approx(1 - lost / 8)
    assert memory_of(device_link_gb_per_s=50, pseudo_channels_per_expert=256).shared_share == pytest.approx(
        1 - lost / 8
    )
    # A link as fast as the stack's pins leaves the group nothing.
    assert memory_of(device_link_gb_per_s=900).shared_share == 1 - 1 / 8


def test_the_device_computes_as_it_does_without_that_memory() -> None:
    costs = CostModel(CATALOG.find_model("gpt-oss-20b"), CATALOG.machines.find("A100-80GB"))
    plain = durations(costs, SimulationConfig(), most_tokens=9, largest_step=3)
    assert (durations_of().expert_ps == plain.expert_ps).all()
    assert (durations_of().expert_compute_ps == plain.expert_compute_ps).all()


# --- both engines, by hand ---


def test_a_missing_expert_runs_in_memory_beside_the_device(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path, layers=1, experts=4, top_k=3)
    memory = InMemory(weight_format="bf16", device_link_gb_per_s=1, refresh=False, pseudo_channels_per_expert=32)
    config = make_config(capacity_experts=1, in_memory=memory)
    policy = Policy(eviction=Eviction.STATIC, missing=Missing.IN_MEMORY)
    # Expert 0 is there; 1 and 2 lie in different stacks and run at once.
    found = simulate(make_trace([[[0, 1, 2]]], experts=4), policy, config, catalog, resident=[0])
    costs = CostModel(catalog.find_model("micro"), catalog.machines.find("micro"))
    of = ExpertMemory.of(memory, costs, catalog)
    link = 200 * 1000  # one vector of 100 BF16 at 1 GB/s
    sums = 32 * 100 * 4 * 1000  # slices of 4 of its 100 rows or 3, FP32
    work_ps = 10**6 + link + of.expert_ps(1) + 10**6 + 2 * sums
    before_ps = attention(1) + gate(4)
    assert found.step_ps == [pytest.approx(before_ps + work_ps, abs=10)]
    assert (found.run.counts.computed, found.run.counts.fetched) == (2, 0)
    assert found.run.parts.host_wait == found.step_ps[0] - before_ps - int(found.simulator.durations.expert_ps[1])
    # In one group they run one after the other.
    alone = config.model_copy(update={"in_memory": memory.model_copy(update={"stacks": 1})})
    later = simulate(make_trace([[[0, 1, 2]]], experts=4), policy, alone, catalog, resident=[0])
    assert later.step_ps[0] - found.step_ps[0] == pytest.approx(of.expert_ps(1), abs=10)


def test_a_memory_that_computes_nothing_is_fetched_from(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path, layers=1, experts=4, top_k=1)
    memory = InMemory(weight_format="bf16", device_link_gb_per_s=2)
    config = make_config(capacity_experts=1, in_memory=memory)
    ran = simulate(
        make_trace([[[1]]], experts=4), Policy(eviction=Eviction.LRU, missing=Missing.FROM_MEMORY), config, catalog
    )
    host = simulate(make_trace([[[1]]], experts=4), Policy(eviction=Eviction.LRU), config, catalog)
    assert (ran.run.counts.fetched, ran.run.counts.computed) == (1, 0)
    assert host.step_ps[0] - ran.step_ps[0] == 15_000_000  # 30,000 bytes over 1 and over 2 GB/s


# --- refusals ---


@pytest.mark.parametrize(
    ("model", "machine", "settings", "said"),
    [
        (
            "DeepSeek-V3",
            "A100-80GB",
            {},
            "weight_format: fp8 of DeepSeek-V3 is none that the PIM unit has; give one of",
        ),
        (
            "Switch-base-128",
            "A100-80GB",
            {"weight_format": "bf16"},
            "activation: relu with 2 matrices; the PIM unit",
        ),
        ("gpt-oss-20b", "RTX-4090", {}, "device_link_gb_per_s: not in the catalogue for RTX-4090; give it"),
        ("gpt-oss-20b", "A100-80GB", {"tokens_per_read": 2}, "tokens_per_read: 2: MXFP4 weights take a power of two"),
        ("DeepSeek-V2-Lite", "A100-80GB", {"tokens_per_read": 3}, "tokens_per_read: 3: BF16 weights take a power of"),
        (
            "gpt-oss-20b",
            "A100-80GB",
            {"pseudo_channels_per_expert": 48},
            "pseudo_channels_per_expert: 48 in 8 stacks of",
        ),
        (
            "gpt-oss-20b",
            "A100-80GB",
            {"pseudo_channels_per_expert": 96},
            "pseudo_channels_per_expert: 96 in 8 stacks of",
        ),
        ("gpt-oss-20b", "A100-80GB", {"dram": "HBM2"}, "device HBM2 has no compute at its banks"),
        ("gpt-oss-20b", "A100-80GB", {"dram": "HBM9"}, "dram 'HBM9' is not in the catalogue; the nearest known is"),
    ],
)
def test_what_the_memory_cannot_do_is_refused(model: str, machine: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ForestageError, match=said):
        memory_of(model, machine, **settings).expert_ps(1)


def test_memory_of_the_host_lies_behind_the_host_link() -> None:
    with pytest.raises(ForestageError, match="leave out device_link_gb_per_s"):
        InMemory.parse({"where": "host", "device_link_gb_per_s": 10}, origin="test")


def test_a_policy_in_memory_needs_one(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path, layers=1, experts=4, top_k=1)
    policy = Policy(eviction=Eviction.STATIC, missing=Missing.IN_MEMORY)
    with pytest.raises(ForestageError, match="no memory that computes is given; give its settings"):
        simulate(make_trace([[[1]]], experts=4), policy, make_config(capacity_experts=1), catalog)
