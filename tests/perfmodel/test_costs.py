"""Durations and bytes against figures worked out by hand from the published shapes."""

import pytest

from catalog.catalogue import load_catalog
from catalog.errors import ForestageError
from perfmodel.costs import CostModel

CATALOG = load_catalog()


def costs(model: str = "gpt-oss-20b", machine: str = "A100", **values: float) -> CostModel:
    return CostModel(CATALOG.models.find(model), CATALOG.machines.find(machine), **values)


def test_an_expert_of_gpt_oss_takes_414_microseconds_over_pcie_4() -> None:
    # 3 · 2880 · 2880 weights of 4.25 bits and (2880 + 2880 + 2880) biases of 2 bytes.
    assert costs().expert_bytes == 13_219_200 + 17_280
    assert costs().expert_transfer_ps == 413_640_000  # 13,236,480 / 32 GB/s
    assert costs(link_gb_per_s=64).expert_transfer_ps == 206_820_000


def test_one_token_of_an_expert_is_bound_by_hbm_and_many_by_compute() -> None:
    one = costs().expert()
    assert one.hbm_ps == pytest.approx(13_236_480 / 1734e9 * 1e12, abs=1)  # 2040 GB/s · 0.85
    assert one.compute_ps == pytest.approx(6 * 2880 * 2880 / 249.6e12 * 1e12, abs=1)  # 312 TFLOPS · 0.80
    assert one.duration_ps == one.hbm_ps
    # Operations overtake bytes between 38 and 39 tokens: 7.6335 µs / 0.19938 µs = 38.3.
    assert costs().expert(38).duration_ps == one.hbm_ps
    assert costs().expert(39).duration_ps == costs().expert(39).compute_ps > one.hbm_ps
    assert costs().expert(39).hbm_bytes == one.hbm_bytes


def test_attention_reads_its_weights_and_the_context() -> None:
    weights = 2880 * 64 * (2 * 64 + 2 * 8)
    kernel = costs().attention(1000)
    assert kernel.hbm_bytes == 2 * weights + 1000 * 2 * 8 * 64 * 2
    assert kernel.flops == 2 * weights + 1000 * 2 * 2 * 64 * 64
    assert costs().attention(1001).hbm_bytes - kernel.hbm_bytes == 2048


def test_latent_attention_reads_the_latent_alone() -> None:
    deep = costs("DeepSeek-V2-Lite")
    assert deep.attention(1001).hbm_bytes - deep.attention(1000).hbm_bytes == (512 + 64) * 2
    assert deep.attention(1001).flops - deep.attention(1000).flops == 2 * 16 * (512 + 64 + 512)


def test_gate_shared_experts_and_dense_layers() -> None:
    assert costs().gate().hbm_bytes == 2880 * 32 * 2
    assert costs().shared_experts() is None
    deep = costs("DeepSeek-V2-Lite")
    expert_bytes = 3 * 2048 * 1408 * 2
    shared = deep.shared_experts()
    assert shared is not None
    assert shared.hbm_bytes == 2 * expert_bytes
    assert deep.dense_layer(7).hbm_bytes == deep.attention(7).hbm_bytes + 8 * expert_bytes
    assert deep.dense_layer(7).flops == deep.attention(7).flops + 8 * 2 * 3 * 2048 * 1408


def test_a_dense_layer_of_deepseek_v3_is_as_wide_as_published() -> None:
    record = CATALOG.models.find("DeepSeek-V3")
    assert (record.top_k + record.shared_experts) * record.expert_intermediate == 18432


def test_what_the_catalogue_does_not_know_is_asked_for() -> None:
    with pytest.raises(ForestageError, match="host_link_gb_per_s: not in the catalogue; give link_gb_per_s"):
        costs(machine="ST-MoE")
    assert costs(machine="ST-MoE", link_gb_per_s=32).link_bytes_per_s == 32 * 10**9
    unknown = next(model for model in CATALOG.models if model.attention is None)
    with pytest.raises(ForestageError, match=f"model {unknown.name}: attention: not in the catalogue"):
        costs(unknown.name)
