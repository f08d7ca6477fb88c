"""The records' derived figures against published ones."""

import pytest

from catalog import DramRecord, Evidence, GroupedQueryAttention, HybridAttention, LatentAttention, load_catalog
from catalog.dram import SCALED_INTERVALS, SCALED_TIMINGS

CATALOG = load_catalog()


@pytest.mark.parametrize(
    ("model", "moe_layers", "expert_bytes"),
    [
        ("gpt-oss-20b", 24, 13.2e6),  # hardware-parameters.md: 13.2 MB
        ("DeepSeek-V2-Lite", 26, 17.3e6),  # seed-systems.md section 1: 17.3 MB
        ("DeepSeek-V3", 58, 44.05e6),
        ("Switch-base-128", 12, 18.87e6),
        ("forestage-small-moe", 8, 55_296),
    ],
)
def test_expert_sizes(model: str, moe_layers: int, expert_bytes: float) -> None:
    record = CATALOG.find_model(model)
    assert record.moe_layers == len(record.layer_map) == moe_layers
    assert record.expert_bytes == pytest.approx(expert_bytes, rel=0.005)


def test_expert_bytes_count_biases_and_operations_do_not() -> None:
    record = CATALOG.find_model("gpt-oss-20b")
    assert record.expert_weights == 3 * 2880 * 2880
    assert record.expert_bytes == 3 * 2880 * 2880 * 17 // 32 + 3 * 2880 * 2
    assert record.expert_flops == 2 * record.expert_weights


def test_quantised_recordings_match_their_preambles() -> None:
    assert CATALOG.find_model("Qwen3-30B-A3B-Q4_K_M").expert_bytes == (24 * 3_059_712 + 24 * 2_654_208) // 48
    gemma = CATALOG.find_model("gemma-4-26B-A4B-Q4_K_M")
    assert gemma.expert_bytes == pytest.approx((16 * 3_593_216 + 14 * 4_336_640) / 30, abs=1)


PUBLISHED: dict[str, tuple[float, float | None]] = {
    "gpt-oss-20b": (20.9, 3.6),
    "gpt-oss-120b": (116.8, 5.1),
    "DeepSeek-V2-Lite": (15.7, 2.4),
    "DeepSeek-V3": (671, 37),
    "DeepSeek-V3.2": (671, 37),
    "DeepSeek-V2": (236, 21),
    "Qwen3-30B-A3B": (30.5, 3.3),
    "Qwen3-30B-A3B-Q4_K_M": (30.5, 3.3),
    "Qwen3-235B-A22B": (235, 22),
    "Qwen3-Coder-480B-A35B": (480, 35),
    "Qwen3-Next-80B-A3B": (80, 3.9),
    "Qwen3.5-35B-A3B": (35, 3),
    "Qwen3.5-122B-A10B": (122, 10),
    "Qwen3.5-397B-A17B": (397, 17),
    "Qwen1.5-MoE-A2.7B": (14.3, 2.7),
    "Qwen2-57B-A14B": (57.4, 14),
    "Mixtral-8x7B": (46.7, 12.9),
    "Mixtral-8x22B": (141, 39),
    "OLMoE-1B-7B": (6.9, 1.3),
    "FlexOlmo-7x7B": (33, None),
    "Switch-base-128": (7.4, None),
    "gemma-4-26B-A4B": (25.2, 3.8),
    "gemma-4-26B-A4B-Q4_K_M": (25.2, 3.8),
    "GLM-4.5": (355, 32),
    "GLM-4.5-Air": (106, 12),
    "GLM-4.7-Flash": (30, 3),
    "GLM-5": (744, 40),
    "Kimi-K2": (1026, 32.6),
    "Kimi-K2-Thinking": (1026, 32.6),
    "Moonlight-16B-A3B": (16, 3),
    "MiniMax-M2": (229, 10),
    "granite-3.1-1b-a400m": (1.33, 0.4),
    "granite-3.1-3b-a800m": (3.3, 0.8),
    "granite-4.0-h-small": (32.2, 9),
    "granite-4.0-h-tiny": (6.94, 1.3),
    "Phi-3.5-MoE": (41.9, 6.6),
    "Jamba-v0.1": (51.6, 12),
    "Jamba-1.5-Large": (398, 94),
    "Llama-4-Scout-17B-16E": (109, 17),
    "Llama-4-Maverick-17B-128E": (401, 17),
    "Ling-mini-2.0": (16.3, 1.4),
    "Ling-flash-2.0": (103, 6.1),
    "Ling-lite": (16.8, 2.75),
    "Hunyuan-A13B": (80.4, 13),
    "ERNIE-4.5-21B-A3B": (21.8, 3),
    "ERNIE-4.5-300B-A47B": (300, 47),
    "dots.llm1": (142.8, 14),
    "LFM2-8B-A1B": (8.3, 1.5),
}
"""Billions of parameters, all and active, as the models' publishers say, or as their names do; publishers round, and
some leave embeddings out of what is active."""


@pytest.mark.parametrize("model", [record.name for record in CATALOG.models if record.evidence is not Evidence.MEASURED
                                   or record.name in PUBLISHED])  # fmt: skip
def test_all_parts_come_to_the_models_published_size(model: str) -> None:
    """A mistyped width, layer or expert shows here: the parts of every record are added up."""
    record = CATALOG.models.find(model)
    billions, active = PUBLISHED[model]
    assert record.parameters() / 1e9 == pytest.approx(billions, rel=0.02)
    assert record.vocabulary is not None
    if active is not None:
        counted = record.parameters(active=True) / 1e9
        embeddings = (1 if record.tied_embeddings else 2) * record.vocabulary * record.hidden / 1e9
        assert counted - embeddings < active * 1.1
        assert counted > active * 0.95


def test_what_a_record_does_not_know_is_counted_as_nothing() -> None:
    record = CATALOG.models.find("gpt-oss-20b")
    assert record.vocabulary is not None
    assert not record.tied_embeddings
    bare = record.model_copy(update={"vocabulary": None})
    assert record.parameters() - bare.parameters() == 2 * record.vocabulary * record.hidden
    tied = record.model_copy(update={"tied_embeddings": True})
    assert record.parameters() - tied.parameters() == record.vocabulary * record.hidden
    alone = bare.model_copy(update={"attention": None})
    weights = 32 * 3 * 2880 * 2880 + 32 * 2880  # experts and router
    assert alone.parameters() == 24 * weights


def test_every_record_says_its_attention() -> None:
    for record in CATALOG.models:
        assert all(record.attention_of(layer) is not None for layer in range(record.layers)), record.name


def test_attention_by_hand() -> None:
    grouped = GroupedQueryAttention(query_heads=4, kv_heads=2, head_dim=3)
    assert grouped.parameters(10) == 10 * 12 + 2 * 10 * 6 + 12 * 10
    assert grouped.kv_elements() == 12
    latent = LatentAttention(
        kind="mla", query_heads=2, query_rank=0, kv_rank=5, nope_dim=3, rope_dim=2, value_dim=4
    )  # fmt: skip
    assert latent.parameters(10) == 10 * 2 * 5 + 10 * 7 + 5 * 2 * 7 + 2 * 4 * 10
    assert latent.kv_elements() == 7
    indexed = LatentAttention(
        query_heads=2, query_rank=6, kv_rank=5, nope_dim=3, rope_dim=2, value_dim=4, index_heads=3, index_dim=2,
        index_top_k=9,
    )  # fmt: skip
    assert indexed.parameters(10) == 6 * (10 + 10) + 10 * 7 + 5 * 2 * 7 + 2 * 4 * 10 + 6 * 3 * 2 + 10 * (2 + 3)
    assert (indexed.attended(5), indexed.attended(50)) == (5, 9)
    gated = GroupedQueryAttention(query_heads=4, kv_heads=2, head_dim=3, output_gate=True)
    assert gated.parameters(10) - grouped.parameters(10) == 10 * 12
    keyed = GroupedQueryAttention(query_heads=4, kv_heads=2, head_dim=3, key_is_value=True)
    assert grouped.parameters(10) - keyed.parameters(10) == 10 * 6
    assert keyed.kv_elements() == 12


@pytest.mark.parametrize(
    ("device", "channel_gb_per_s", "stack_gb_per_s"),
    [("HBM2", 16, 256), ("HBM2-PIM", 16, 256), ("HBM3", 25.6, 819.2), ("HBM3E", 36.8, 1177.6), ("HBM4", 32, 2048)],
)
def test_dram_peaks_and_geometry(device: str, channel_gb_per_s: float, stack_gb_per_s: float) -> None:
    record = CATALOG.dram.find(device)
    assert record.pseudo_channel_gb_per_s == pytest.approx(channel_gb_per_s)
    assert record.stack_gb_per_s == pytest.approx(stack_gb_per_s)
    assert (record.burst_bytes, record.row_bytes) == (32, 1024)
    assert record.burst_bytes / (record.burst_ck * record.tck_ns) == pytest.approx(channel_gb_per_s)
    assert record.trc_ck >= record.tras_ck + record.trp_ck - 1  # HBM3's published 72 exceeds 45 + 26
    assert record.trcd_read_ck < record.tras_ck < record.trc_ck < record.trfc_per_bank_ck < record.trfc_ck


def test_refresh_intervals_are_the_published_microseconds() -> None:
    for device in CATALOG.dram:
        assert device.trefi_ck * device.tck_ns == pytest.approx(3900, rel=1e-3), device.name


def test_hbm_pim_has_four_times_the_pins_bandwidth() -> None:
    record = CATALOG.dram.find("HBM2-PIM")
    assert record.pim is not None
    assert record.pim.lanes == 16
    assert record.pim.bytes_per_ck == 64
    assert record.pim.bytes_per_ck / record.tck_ns == 4 * record.pseudo_channel_gb_per_s
    for device in ("HBM3", "HBM3E", "HBM4"):
        assert CATALOG.dram.find(device).source_of("pim").evidence is Evidence.ASSUMPTION


def test_hbm3e_is_hbm3_at_its_data_rate() -> None:
    hbm3, hbm3e = CATALOG.dram.find("HBM3"), CATALOG.dram.find("HBM3E")
    scaled = hbm3.at_data_rate(9.2, name="HBM3E")
    values = set(DramRecord.model_fields) - {"source", "field_sources", "tck_ns"}
    assert {field: getattr(scaled, field) for field in values} == {field: getattr(hbm3e, field) for field in values}
    assert scaled.tck_ns == pytest.approx(hbm3e.tck_ns, rel=1e-12)


def test_scaling_never_shortens_a_time_nor_stretches_a_refresh_interval() -> None:
    for device in CATALOG.dram:
        for rate in (1.6, 2.4, 3.2, 5.6, 9.2):
            scaled = device.at_data_rate(rate, name="x")
            for timing in SCALED_TIMINGS:
                before, after = getattr(device, timing) * device.tck_ns, getattr(scaled, timing) * scaled.tck_ns
                assert before - 1e-9 <= after < before + scaled.tck_ns, (device.name, rate, timing)
            for interval in SCALED_INTERVALS:
                assert getattr(scaled, interval) * scaled.tck_ns <= getattr(device, interval) * device.tck_ns + 1e-9
        same = device.at_data_rate(device.data_rate_gbps, name="x")
        assert all(getattr(same, timing) == getattr(device, timing) for timing in SCALED_TIMINGS)
        assert scaled.evidence is Evidence.ASSUMPTION


def test_energy_of_host_and_in_bank_reads() -> None:
    default = CATALOG.energy.find("oconnor-2017")
    assert default.host_read_pj_per_bit == pytest.approx(1.51 + 1.17 + 0.80)
    assert default.in_bank_read_pj_per_bit == pytest.approx(1.51)
    attacc = CATALOG.energy.find("attacc")
    assert attacc.host_read_pj_per_bit == pytest.approx(3.59)
    assert attacc.in_bank_read_pj_per_bit == pytest.approx(0.55)
    assert CATALOG.energy.find("accelergy-hbm2").in_bank_read_pj_per_bit is None


def test_machines() -> None:
    moe = CATALOG.machines.find("ST-MoE")
    assert moe.compute_tflops == pytest.approx(8 * 64 * 64 * 2 / 1000)
    assert (moe.staging_buffer_bytes, moe.host_link) == (16 << 20, None)
    for machine in CATALOG.machines:
        assert machine.engine_gb_per_s == 64
    assert CATALOG.machines.find("Sieve-B200-PIM").memory_gb == CATALOG.machines.find("Sieve-B200").memory_gb / 2  # type: ignore[operator]


@pytest.mark.parametrize(
    ("memory", "channels", "megatransfers", "usable_gb_per_s"),
    [("DDR5-5600-2ch", 2, 5600, 76.2), ("DDR5-4800-8ch", 8, 4800, 261.1), ("DDR5-4800-12ch", 12, 4800, 391.7)],
)
def test_host_memories(memory: str, channels: int, megatransfers: int, usable_gb_per_s: float) -> None:
    record = CATALOG.host_memories.find(memory)
    assert record.memory_gb_per_s == pytest.approx(channels * 8 * megatransfers / 1000)
    assert record.usable_bytes_per_s / 1e9 == pytest.approx(usable_gb_per_s, abs=0.05)


def test_what_no_one_published_of_a_host_is_an_assumption() -> None:
    for record in CATALOG.host_memories:
        for field in ("memory_utilisation", "compute_tflops", "latency_us"):
            assert record.source_of(field).evidence is Evidence.ASSUMPTION, (record.name, field)


def test_every_machine_with_a_host_link_has_a_host_memory() -> None:
    for machine in CATALOG.machines:
        assert (machine.host_link is None) == (machine.host_memory is None), machine.name
    assert CATALOG.machines.find("GH200").host_link_gb_per_s == 900 / 2
    assert CATALOG.machines.find("MI300X").memory_gb == 192


def test_attention_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="no multiple of kv_heads"):
        GroupedQueryAttention(query_heads=5, kv_heads=2, head_dim=3)
    with pytest.raises(ValueError, match="window or chunk"):
        GroupedQueryAttention(query_heads=4, kv_heads=2, head_dim=3, window=3, chunk=3)
    with pytest.raises(ValueError, match="come together"):
        LatentAttention(query_heads=2, query_rank=6, kv_rank=5, nope_dim=3, rope_dim=2, value_dim=4, index_heads=3)
    plain = GroupedQueryAttention(query_heads=4, kv_heads=2, head_dim=3)
    with pytest.raises(ValueError, match="pattern names"):
        HybridAttention(kind="hybrid", kinds={"a": plain}, pattern=("b",))
